//! Which object an idempotency key made: for 24 h, and no answer with it.

use std::time::Duration;

use crate::params;
use crate::store::{StoreError, Tx};
use crate::types::UnixMillis;

/// How long a key is kept.
pub const KEPT: Duration = Duration::from_hours(24);

/// What an earlier try with the same key made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// A MAC of its request.
    pub request: [u8; 32],
    /// What it made.
    pub object: String,
    /// When.
    pub at: UnixMillis,
}

/// Claims a key, or finds who did before; one that is over is free again.
pub async fn claim(
    tx: &mut Tx,
    id: &str,
    request: &[u8; 32],
    object: &str,
    now: UnixMillis,
) -> Result<Option<Earlier>, StoreError> {
    let sql = "INSERT INTO idempotency (id, request, object, at) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (id) DO NOTHING";
    let params = params![id.to_owned(), *request, object.to_owned(), now];
    if tx.execute(sql, params).await? == 1 {
        return Ok(None);
    }
    let earlier = read(tx, id).await?.ok_or(StoreError::Stale)?;
    if now.since(earlier.at) <= KEPT {
        return Ok(Some(earlier));
    }
    let sql = "UPDATE idempotency SET request = $1, object = $2, at = $3 \
               WHERE id = $4 AND object = $5 AND at = $6";
    let params =
        params![*request, object.to_owned(), now, id.to_owned(), earlier.object, earlier.at];
    if tx.execute(sql, params).await? == 1 { Ok(None) } else { Err(StoreError::Stale) }
}

async fn read(tx: &mut Tx, id: &str) -> Result<Option<Earlier>, StoreError> {
    let sql = "SELECT request, object, at FROM idempotency WHERE id = $1";
    let Some(mut row) = tx.query_one(sql, params![id.to_owned()]).await? else { return Ok(None) };
    Ok(Some(Earlier { request: row.take()?, object: row.take()?, at: row.take()? }))
}

/// Finds who claimed a key, unless that is over.
pub async fn lookup(tx: &mut Tx, id: &str, now: UnixMillis) -> Result<Option<Earlier>, StoreError> {
    Ok(read(tx, id).await?.filter(|earlier| now.since(earlier.at) <= KEPT))
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

/// Tells whether keys from before a moment are left.
pub async fn has_older(tx: &mut Tx, than: UnixMillis) -> Result<bool, StoreError> {
    let sql = "SELECT at FROM idempotency WHERE at < $1 LIMIT 1";
    Ok(tx.query_one(sql, params![than]).await?.is_some())
}

/// Forgets keys from before a moment, a bounded number of them.
pub async fn purge(tx: &mut Tx, before: UnixMillis) -> Result<(), StoreError> {
    let sql = "DELETE FROM idempotency WHERE id IN \
               (SELECT id FROM idempotency WHERE at < $1 ORDER BY at LIMIT 1000)";
    tx.execute(sql, params![before]).await.map(drop)
}
