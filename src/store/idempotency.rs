//! Which object an idempotency key made: for as long as whoever claims it says, and no answer with it.

use crate::params;
use crate::store::{StoreError, Tx};
use crate::types::UnixMillis;

/// What an earlier try with the same key made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// A MAC of its request.
    pub request: [u8; 32],
    /// What it made.
    pub object: String,
    /// When.
    pub at: UnixMillis,
    /// Until when the key is kept.
    pub kept_until: UnixMillis,
}

/// Claims a key until a moment, or finds who did before; one that is over is free again.
pub async fn claim(
    tx: &mut Tx,
    id: &str,
    request: &[u8; 32],
    object: &str,
    (now, kept_until): (UnixMillis, UnixMillis),
) -> Result<Option<Earlier>, StoreError> {
    let sql = "INSERT INTO idempotency (id, request, object, at, kept_until) \
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING";
    let params = params![id.to_owned(), *request, object.to_owned(), now, kept_until];
    if tx.execute(sql, params).await? == 1 {
        return Ok(None);
    }
    let earlier = read(tx, id).await?.ok_or(StoreError::Stale)?;
    if earlier.kept_until >= now {
        return Ok(Some(earlier));
    }
    let sql = "UPDATE idempotency SET request = $1, object = $2, at = $3, kept_until = $4 \
               WHERE id = $5 AND object = $6 AND at = $7";
    let anew = params![*request, object.to_owned(), now, kept_until];
    let before = params![id.to_owned(), earlier.object, earlier.at];
    let params = [anew, before].concat();
    if tx.execute(sql, params).await? == 1 { Ok(None) } else { Err(StoreError::Stale) }
}

async fn read(tx: &mut Tx, id: &str) -> Result<Option<Earlier>, StoreError> {
    let sql = "SELECT request, object, at, kept_until FROM idempotency WHERE id = $1";
    let Some(mut row) = tx.query_one(sql, params![id.to_owned()]).await? else { return Ok(None) };
    let (request, object) = (row.take()?, row.take()?);
    Ok(Some(Earlier { request, object, at: row.take()?, kept_until: row.take()? }))
}

/// Finds who claimed a key, unless that is over.
pub async fn lookup(tx: &mut Tx, id: &str, now: UnixMillis) -> Result<Option<Earlier>, StoreError> {
    Ok(read(tx, id).await?.filter(|earlier| earlier.kept_until >= now))
}

/// Tells whether a key was claimed.
pub async fn is_claimed(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    let sql = "SELECT at FROM idempotency WHERE id = $1";
    Ok(tx.query_one(sql, params![id.to_owned()]).await?.is_some())
}

/// Says that a key's object was replaced by another; the key's age does not change.
pub async fn replace(tx: &mut Tx, id: &str, from: &str, to: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE idempotency SET object = $1 WHERE id = $2 AND object = $3";
    let params = params![to.to_owned(), id.to_owned(), from.to_owned()];
    Ok(tx.execute(sql, params).await? == 1)
}

/// Gives a key back.
pub async fn release(tx: &mut Tx, id: &str, object: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM idempotency WHERE id = $1 AND object = $2";
    tx.execute(sql, params![id.to_owned(), object.to_owned()]).await.map(drop)
}

/// Tells whether keys are left that are over.
pub async fn has_over(tx: &mut Tx, now: UnixMillis) -> Result<bool, StoreError> {
    let sql = "SELECT at FROM idempotency WHERE kept_until < $1 LIMIT 1";
    Ok(tx.query_one(sql, params![now]).await?.is_some())
}

/// Forgets keys that are over, a bounded number of them.
pub async fn purge(tx: &mut Tx, now: UnixMillis) -> Result<(), StoreError> {
    let sql = "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency \
               WHERE kept_until < $1 ORDER BY kept_until LIMIT 1000)";
    tx.execute(sql, params![now]).await.map(drop)
}
