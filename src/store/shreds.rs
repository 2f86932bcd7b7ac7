//! Identities that were shredded, and what hangs on the key of one that is to be.

use crate::params;
use crate::sealed_row;
use crate::store::credentials::{CredentialRow, lease_below};
use crate::store::database::ConnectionRow;
use crate::store::keys::{IdentityKeyRow, KeyOwner};
use crate::store::named_keys::NamedKeyVersionRow;
use crate::store::{Row, StoreError, Tx, Versioned};
use crate::types::{IdentityId, ResourceName, UnixMillis};

sealed_row! {
    /// That an identity was shredded.
    pub struct ShredRow in "shreds", seal 1 {
        /// Whose key it was.
        pub id: IdentityId,
        /// Its place among all of them, from 1, in the order in which this store heard of them.
        pub number: i64,
        /// Versions of its key that were destroyed.
        pub key_versions: i64,
        /// Secrets that do not open any more, counted up to 1,000.
        pub secrets: i64,
        /// Sealed named keys that do not open any more, counted up to 1,000.
        pub named_keys: i64,
        /// Keys in the HSM that were to be destroyed.
        pub hsm_keys: i64,
        /// Connections whose credentials were forgotten.
        pub connections: i64,
        /// What could open a copy of the store from before, as a JSON list of recipients of wraps.
        pub openers: String,
        /// Since when it is shredded.
        pub shredded_at: UnixMillis,
        /// By whom.
        pub shredded_by: String,
        /// Since when nothing opens a copy from before, where that was established.
        pub unrecoverable_at: Option<UnixMillis>,
        /// When it last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Tells the number of who was shredded last; 0 before the first. It only ever rises.
pub async fn newest(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = tx.query_one("SELECT COALESCE(MAX(number), 0) FROM shreds", vec![]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Counts who was shredded, whatever the rows' seals say. Fewer than the newest number where somebody
/// took a row out; never more.
pub async fn count(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = tx.query_one("SELECT COUNT(*) FROM shreds", vec![]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Lists who was shredded last, the newest first.
pub async fn last(tx: &mut Tx, limit: i64) -> Result<Vec<Versioned<ShredRow>>, StoreError> {
    tx.select("ORDER BY number DESC LIMIT $1", params![limit]).await
}

/// Lists identities that were shredded, by their numbers, from after one on.
pub async fn numbered_after(
    tx: &mut Tx,
    after: i64,
    limit: i64,
) -> Result<Vec<Versioned<ShredRow>>, StoreError> {
    tx.select("WHERE number > $1 ORDER BY number LIMIT $2", params![after, limit]).await
}

/// Lists identities that were shredded, and of whose keys something is there all the same, by their
/// ids, from after one on: somebody put it back.
pub async fn undone_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<IdentityId>, StoreError> {
    let sql = "SELECT s.id FROM shreds s WHERE s.id > $1 AND EXISTS (SELECT 1 FROM identity_keys k \
               WHERE k.owner = s.id AND (k.state <> 'destroyed' \
               OR EXISTS (SELECT 1 FROM key_wraps w WHERE w.key_id = k.id))) \
               ORDER BY s.id LIMIT $2";
    let rows = tx.query(sql, params![after.to_owned(), limit]).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

/// Lists identities that were shredded, by their ids, from after one on.
pub async fn shreds_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<ShredRow>>, StoreError> {
    tx.select("WHERE id > $1 ORDER BY id LIMIT $2", params![after.to_owned(), limit]).await
}

/// Lists versions of an owner's key that are not destroyed.
pub async fn keys_of(
    tx: &mut Tx,
    owner: KeyOwner,
    limit: i64,
) -> Result<Vec<Versioned<IdentityKeyRow>>, StoreError> {
    let tail = "WHERE owner = $1 AND state <> 'destroyed' ORDER BY version LIMIT $2";
    tx.select(tail, params![owner, limit]).await
}

/// Deletes every wrap of every version of an owner's key. The store wipes what it deletes, and its
/// log with it, once this is durable.
pub async fn delete_wraps(tx: &mut Tx, owner: KeyOwner) -> Result<u64, StoreError> {
    let sql = "DELETE FROM key_wraps WHERE key_id IN \
               (SELECT id FROM identity_keys WHERE owner = $1)";
    let deleted = tx.execute(sql, params![owner]).await?;
    tx.wipe();
    Ok(deleted)
}

/// Lists who can open the wraps of an owner's keys.
pub async fn recipients_of(tx: &mut Tx, owner: KeyOwner) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT DISTINCT recipient FROM key_wraps WHERE key_id IN \
               (SELECT id FROM identity_keys WHERE owner = $1) ORDER BY recipient";
    let rows = tx.query(sql, params![owner]).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

/// Counts versions of an owner's secrets that hold a value, up to a bound.
pub async fn count_values(tx: &mut Tx, owner: IdentityId, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM secrets s JOIN secret_versions v \
               ON v.secret = s.id WHERE s.owner = $1 AND v.state <> 'destroyed' LIMIT $2) AS held";
    let row = tx.query_one(sql, params![owner, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Counts an owner's named keys that are sealed, up to a bound.
pub async fn count_sealed(tx: &mut Tx, owner: IdentityId, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM named_keys WHERE owner = $1 \
               AND placement = 'sealed' LIMIT $2) AS held";
    let row = tx.query_one(sql, params![owner, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Lists versions that take an owner's places in the HSM and are used, or are to unwrap what is imported.
pub async fn versions_in_hsm(
    tx: &mut Tx,
    owner: IdentityId,
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = "WHERE in_hsm_of = $1 AND state IN ('live', 'awaiting') ORDER BY id LIMIT $2";
    tx.select(tail, params![owner, limit]).await
}

/// Counts versions that are still to be destroyed in the HSM of those that take an owner's places there.
pub async fn count_ending(tx: &mut Tx, owner: IdentityId) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM named_key_versions \
               WHERE in_hsm_of = $1 AND state IN ('pending', 'retired')";
    let row = tx.query_one(sql, params![owner]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Lists the connections that stand of an owner.
pub async fn connections_of(
    tx: &mut Tx,
    owner: IdentityId,
    limit: i64,
) -> Result<Vec<Versioned<ConnectionRow>>, StoreError> {
    tx.select("WHERE owner = $1 AND active = 1 ORDER BY name LIMIT $2", params![owner, limit]).await
}

/// Finds a lease that has not ended on one of an owner's connections.
pub async fn lease_on(
    tx: &mut Tx,
    connections: &[Versioned<ConnectionRow>],
) -> Result<Option<(ResourceName, Versioned<CredentialRow>)>, StoreError> {
    for connection in connections {
        let name = ResourceName::join("database", &[connection.row.name.as_str()]);
        let name = name.map_err(|_malformed| StoreError::Malformed)?;
        if let Some(lease) = lease_below(tx, &name).await? {
            return Ok(Some((name, lease)));
        }
    }
    Ok(None)
}

/// Lists names of what goes with an owner, as resources: secrets, named keys and roles of connections,
/// up to a bound each.
pub async fn names_of(
    tx: &mut Tx,
    owner: IdentityId,
    limit: i64,
) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for sql in [
        "SELECT 'secrets/' || path FROM secrets WHERE owner = $1 ORDER BY path LIMIT $2",
        "SELECT 'keys/' || name FROM named_keys WHERE owner = $1 ORDER BY name LIMIT $2",
        "SELECT 'database/' || r.name FROM db_roles r JOIN db_connections c \
         ON c.id = r.connection WHERE c.owner = $1 AND c.active = 1 AND r.active = 1 \
         ORDER BY r.name LIMIT $2",
    ] {
        let rows: Vec<Row> = tx.query(sql, params![owner, limit]).await?;
        for mut row in rows {
            names.push(row.take()?);
        }
    }
    Ok(names)
}
