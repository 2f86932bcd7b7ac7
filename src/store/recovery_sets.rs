//! Recovery sets, and the wraps of identity keys for them.

use crate::params;
use crate::sealed_row;
use crate::store::keys::{IdentityKeyRow, KeyState, WrapRow, count_wraps};
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{Id, UnixMillis};

/// Recovery sets that are listed at the most.
const MOST: i64 = 100;

sealed_row! {
    /// A recovery set.
    pub struct RecoverySetRow in "recovery_sets", seal 1 {
        /// Its id, for ever.
        pub id: Id,
        /// The public half that keys are wrapped for: on X25519 of one that is split, on P-256 of one
        /// in a token.
        pub public_key: Vec<u8>,
        /// How many shares give the private half; one, where it is in a token.
        pub threshold: i64,
        /// The shares, each sealed to its holder or to the token, as JSON.
        pub shares: String,
        /// Active, or destroyed for good.
        pub state: KeyState,
        /// When it was made.
        pub created_at: UnixMillis,
        /// Who made it.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// Who changed it.
        pub changed_by: String,
    }
}

/// Lists the sets that keys are wrapped for: one that is not what was sealed is none, with the alarm,
/// and keeps no vault sealed.
pub async fn active(tx: &mut Tx) -> Result<Vec<Versioned<RecoverySetRow>>, StoreError> {
    tx.select_intact("WHERE state = 'active' ORDER BY id LIMIT $1", params![MOST]).await
}

/// Lists all of them.
pub async fn all(tx: &mut Tx) -> Result<Vec<Versioned<RecoverySetRow>>, StoreError> {
    tx.select("ORDER BY id LIMIT $1", params![MOST]).await
}

/// Lists keys behind one that have no wrap for a recipient, in order.
pub async fn keys_without(
    tx: &mut Tx,
    recipient: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<IdentityKeyRow>>, StoreError> {
    let tail = "WHERE id > $1 AND state <> 'destroyed' AND id NOT IN \
                (SELECT key_id FROM key_wraps WHERE recipient = $2) ORDER BY id LIMIT $3";
    tx.select(tail, params![after.to_owned(), recipient.to_owned(), limit]).await
}

/// Lists the keys behind one that are not destroyed, in order.
pub async fn keys_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<IdentityKeyRow>>, StoreError> {
    let tail = "WHERE id > $1 AND state <> 'destroyed' ORDER BY id LIMIT $2";
    tx.select(tail, params![after.to_owned(), limit]).await
}

/// Tells the newest key's id; empty where there is none.
pub async fn newest_key_id(tx: &mut Tx) -> Result<String, StoreError> {
    let row = tx.query_one("SELECT COALESCE(MAX(id), '') FROM identity_keys", vec![]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Counts the keys that have a wrap for a recipient, and all that are not destroyed, as [`Tx::tally`]
/// does.
pub async fn covered(tx: &mut Tx, recipient: &str) -> Result<(i64, i64), StoreError> {
    let rows = "SELECT 1 AS counts, 0 AS value FROM identity_keys WHERE state <> 'destroyed'";
    let keys = tx.tally("keys", rows, vec![]).await?.count;
    Ok((count_wraps(tx, recipient).await?, keys))
}

/// Inserts wraps of keys that have none for that recipient and were not destroyed meanwhile.
pub async fn add_wraps(tx: &mut Tx, wraps: &[WrapRow]) -> Result<u64, StoreError> {
    write(tx, wraps, "NOTHING").await
}

/// The same, in the place of wraps for that recipient: a recovery that came to nothing may have made
/// them, for a key of that name in a token that is gone.
pub async fn put_wraps(tx: &mut Tx, wraps: &[WrapRow]) -> Result<u64, StoreError> {
    write(tx, wraps, "UPDATE SET suite = excluded.suite, blob = excluded.blob").await
}

async fn write(tx: &mut Tx, wraps: &[WrapRow], on_conflict: &str) -> Result<u64, StoreError> {
    let sql = format!(
        "INSERT INTO key_wraps (key_id, recipient, suite, blob) \
         SELECT id, $2, $3, $4 FROM identity_keys WHERE id = $1 AND state <> 'destroyed' \
         ON CONFLICT (key_id, recipient) DO {on_conflict}"
    );
    let mut added = 0_u64;
    for wrap in wraps {
        let WrapRow { key_id, recipient, suite, blob } = wrap;
        let params = params![*key_id, recipient.clone(), *suite, blob.clone()];
        added = added.saturating_add(tx.execute(&sql, params).await?);
    }
    Ok(added)
}

/// Deletes every wrap for a recipient, and leaves nothing of them in the store's files.
pub async fn delete_wraps(tx: &mut Tx, recipient: &str) -> Result<u64, StoreError> {
    let sql = "DELETE FROM key_wraps WHERE recipient = $1";
    let deleted = tx.execute(sql, params![recipient.to_owned()]).await?;
    tx.wipe();
    Ok(deleted)
}
