//! Wrapped answers, and what is in them.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{CredentialId, ElevationId, IdentityId, ResourceName, UnixMillis, WrapState};

sealed_row! {
    /// A wrapped answer, without the answer.
    pub struct WrapRow in "wraps", seal 1 {
        /// Its id, for ever: its accessor.
        pub id: CredentialId,
        /// The MAC of its handle.
        pub handle: Vec<u8>,
        /// Whose call was answered so.
        pub creator: IdentityId,
        /// That identity's revocation epoch then: contained since, it is void.
        pub creator_epoch: i64,
        /// The credential that asked.
        pub credential: CredentialId,
        /// The elevation that the answer was given under.
        pub elevation: Option<ElevationId>,
        /// Another.
        pub elevation_too: Option<ElevationId>,
        /// Who alone may open it; none where whoever has the handle may.
        pub recipient: Option<IdentityId>,
        /// The recipient's revocation epoch then.
        pub recipient_epoch: Option<i64>,
        /// The action that was answered.
        pub action: String,
        /// On what.
        pub resource: ResourceName,
        /// The name of the answer's message.
        pub message: String,
        /// What became of it.
        pub state: WrapState,
        /// The vault's restore epoch when it was made; void under another.
        pub restore_epoch: i64,
        /// When it was made.
        pub created_at: UnixMillis,
        /// When it ends.
        pub expires_at: UnixMillis,
        /// Who opened it.
        pub opened_by: Option<IdentityId>,
        /// When.
        pub opened_at: Option<UnixMillis>,
        /// From where; empty where that is unknown.
        pub opened_from: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Lists what was wrapped by an identity or for it, the newest first, from before an id on.
pub async fn of_identity(
    tx: &mut Tx,
    identity: IdentityId,
    before: &str,
    limit: i64,
) -> Result<Vec<Versioned<WrapRow>>, StoreError> {
    // Each half by its own index: an OR would read everything that the identity ever wrapped.
    let tail = "WHERE id IN (\
                SELECT id FROM (SELECT id FROM wraps WHERE creator = $1 AND id < $2 \
                ORDER BY id DESC LIMIT $3) AS made UNION \
                SELECT id FROM (SELECT id FROM wraps WHERE recipient = $1 AND id < $2 \
                ORDER BY id DESC LIMIT $3) AS given) ORDER BY id DESC LIMIT $3";
    tx.select(tail, params![identity, before.to_owned(), limit]).await
}

/// Counts what an identity wrapped that may still be opened, up to a bound, whatever the rows' seals
/// say.
pub async fn count_pending(
    tx: &mut Tx,
    (creator, epoch): (IdentityId, i64),
    now: UnixMillis,
    most: i64,
) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM wraps WHERE creator = $1 \
               AND state = 'pending' AND expires_at > $2 AND creator_epoch >= $3 LIMIT $4) \
               AS pending";
    let row = tx.query_one(sql, params![creator, now, epoch, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Counts as [`count_pending`] does, and the bytes of the answers in it.
pub async fn pending(
    tx: &mut Tx,
    (creator, epoch): (IdentityId, i64),
    now: UnixMillis,
    most: i64,
) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM (SELECT length(p.payload) AS bytes \
               FROM wraps w LEFT JOIN wrap_payloads p ON p.id = w.id WHERE w.creator = $1 \
               AND w.state = 'pending' AND w.expires_at > $2 AND w.creator_epoch >= $3 LIMIT $4) \
               AS pending";
    let row = tx.query_one(sql, params![creator, now, epoch, most]).await?;
    let mut row = row.ok_or(StoreError::Malformed)?;
    Ok((row.take()?, row.take()?))
}

/// Counts what was wrapped for an identity by others and may still be opened, up to a bound, whatever
/// the rows' seals say.
pub async fn count_waiting(
    tx: &mut Tx,
    (recipient, epoch): (IdentityId, i64),
    now: UnixMillis,
    most: i64,
) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM wraps WHERE recipient = $1 \
               AND state = 'pending' AND expires_at > $2 AND recipient_epoch >= $3 \
               AND creator <> $1 LIMIT $4) AS waiting";
    let row = tx.query_one(sql, params![recipient, now, epoch, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Reads an encrypted answer.
pub async fn payload(tx: &mut Tx, wrap: CredentialId) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT payload FROM wrap_payloads WHERE id = $1";
    let row = tx.query_one(sql, params![wrap]).await?;
    row.map(|mut row| row.take()).transpose()
}

/// Stores an encrypted answer.
pub async fn insert_payload(
    tx: &mut Tx,
    wrap: CredentialId,
    expires_at: UnixMillis,
    payload: Vec<u8>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO wrap_payloads (id, expires_at, payload) VALUES ($1, $2, $3)";
    tx.execute(sql, params![wrap, expires_at, payload]).await.map(drop)
}

/// Removes an encrypted answer.
pub async fn remove_payload(tx: &mut Tx, wrap: CredentialId) -> Result<(), StoreError> {
    let sql = "DELETE FROM wrap_payloads WHERE id = $1";
    tx.execute(sql, params![wrap]).await.map(drop)
}

/// Tells whether there is an answer that was over at a moment.
pub async fn is_due(tx: &mut Tx, at: UnixMillis) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM wrap_payloads WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1";
    Ok(tx.query_one(sql, params![at]).await?.is_some())
}

/// Removes answers that were over at a moment, a bounded number of them; how many.
pub async fn purge(tx: &mut Tx, at: UnixMillis, limit: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM wrap_payloads WHERE id IN (SELECT id FROM wrap_payloads \
               WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    tx.execute(sql, params![at, limit]).await
}
