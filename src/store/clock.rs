//! The high-water mark of the nodes' clocks.

use crate::params;
use crate::store::{StoreError, Tx};
use crate::types::UnixMillis;

/// Reads the mark and who moved it last.
pub async fn mark(tx: &mut Tx) -> Result<Option<(String, UnixMillis)>, StoreError> {
    let row = tx.query_one("SELECT node, at FROM clock_mark WHERE id = 1", vec![]).await?;
    row.map(|mut row| Ok((row.take()?, row.take()?))).transpose()
}

/// Moves the mark on; never back.
pub async fn advance(tx: &mut Tx, node: &str, at: UnixMillis) -> Result<(), StoreError> {
    let sql = "INSERT INTO clock_mark (id, node, at) VALUES (1, $1, $2) ON CONFLICT (id) \
               DO UPDATE SET node = excluded.node, at = excluded.at \
               WHERE clock_mark.at < excluded.at";
    tx.execute(sql, params![node.to_owned(), at]).await.map(drop)
}
