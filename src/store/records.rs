//! Tables of the record and its log. What the bytes mean is `audit/`'s.

use crate::params;
use crate::store::{StoreError, Tx};

/// A batch that has no place in the log yet.
#[derive(Debug, Clone)]
pub struct PendingBatch {
    /// Its lane.
    pub lane: i64,
    /// Its sequence number in the lane, from 1.
    pub seq: i64,
    /// How many entries it holds.
    pub entries: i64,
    /// Hash of the batch before it.
    pub previous: Vec<u8>,
    /// Its MAC.
    pub mac: Vec<u8>,
    /// Its entries.
    pub body: Vec<u8>,
}

/// A lane, as far as it has its place in the log.
#[derive(Debug, Clone)]
pub struct LaneState {
    /// The lane.
    pub lane: i64,
    /// The last sequence number that has its place.
    pub seq: i64,
    /// The hash of that batch.
    pub hash: Vec<u8>,
    /// The last sequence number that is stored; 0 when none is.
    pub last: i64,
}

/// The log's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRow {
    /// Entries in the tree.
    pub size: i64,
    /// Root hash.
    pub root: Vec<u8>,
    /// The frontier: hashes of the complete subtrees, 32 bytes each.
    pub edge: Vec<u8>,
    /// Digest over how far each lane has its place.
    pub lanes: Vec<u8>,
    /// MAC over all of the above; empty before the first step.
    pub mac: Vec<u8>,
    /// The newest signed checkpoint; empty before the first.
    pub checkpoint: String,
    /// When it was signed, Unix milliseconds.
    pub signed_at: i64,
}

/// Reads the head.
pub async fn head(tx: &mut Tx) -> Result<HeadRow, StoreError> {
    let sql = "SELECT size, root, edge, lanes, mac, checkpoint, signed_at FROM log_head \
               WHERE id = 1";
    let mut row = tx.query_one(sql, vec![]).await?.ok_or(StoreError::Malformed)?;
    Ok(HeadRow {
        size: row.take()?,
        root: row.take()?,
        edge: row.take()?,
        lanes: row.take()?,
        mac: row.take()?,
        checkpoint: row.take()?,
        signed_at: row.take()?,
    })
}

/// Lists every lane that did not pass out of sight, in order.
pub async fn lanes(tx: &mut Tx) -> Result<Vec<LaneState>, StoreError> {
    let sql = "SELECT lane, integrated_seq, integrated_hash, \
               COALESCE((SELECT MAX(b.seq) FROM record_batches b WHERE b.lane = l.lane), 0) \
               FROM record_lanes l WHERE ended = 0 ORDER BY lane";
    let rows = tx.query(sql, vec![]).await?;
    rows.into_iter()
        .map(|mut row| {
            Ok(LaneState {
                lane: row.take()?,
                seq: row.take()?,
                hash: row.take()?,
                last: row.take()?,
            })
        })
        .collect()
}

/// Reads a lane that passed out of sight: what is stored of it beyond its place counts for nothing.
pub async fn ended_lane(tx: &mut Tx, lane: i64) -> Result<Option<LaneState>, StoreError> {
    let sql = "SELECT integrated_seq, integrated_hash FROM record_lanes \
               WHERE lane = $1 AND ended <> 0";
    let row = tx.query_one(sql, params![lane]).await?;
    row.map(|mut row| {
        let seq = row.take()?;
        Ok(LaneState { lane, seq, hash: row.take()?, last: seq })
    })
    .transpose()
}

/// Tells whether no connection writes to a lane any more. On PostgreSQL each holds a lock on its
/// lane as long as it lives; on SQLite there is one writer, which knows its own.
pub async fn is_left(tx: &mut Tx, lane: i64) -> Result<bool, StoreError> {
    if !tx.is_postgres() {
        return Ok(true);
    }
    let sql = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND database = \
               (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND classid::bigint = CAST($1 AS BIGINT) >> 32 \
               AND objid::bigint = CAST($1 AS BIGINT) & 4294967295";
    Ok(tx.query_one(sql, params![lane]).await?.is_none())
}

/// Lets a lane pass out of sight, if all that is stored of it has its place.
pub async fn end_lane(tx: &mut Tx, lane: &LaneState) -> Result<(), StoreError> {
    let sql = "UPDATE record_lanes SET ended = 1 \
               WHERE lane = $1 AND ended = 0 AND integrated_seq = $2 AND NOT EXISTS \
               (SELECT 1 FROM record_batches b WHERE b.lane = $1 AND b.seq > $2)";
    match tx.execute(sql, params![lane.lane, lane.seq]).await? {
        1 => Ok(()),
        _ => Err(StoreError::Stale),
    }
}

/// Lists the next batches of a lane, in order: sequence number and bytes of the body.
pub async fn sizes_after(
    tx: &mut Tx,
    lane: i64,
    seq: i64,
    limit: i64,
) -> Result<Vec<(i64, i64)>, StoreError> {
    let sql = "SELECT seq, CAST(LENGTH(body) AS BIGINT) FROM record_batches \
               WHERE lane = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    let rows = tx.query(sql, params![lane, seq, limit]).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// Reads the batches of a lane after one up to, and with, another, in order.
pub async fn batches_between(
    tx: &mut Tx,
    lane: i64,
    after: i64,
    last: i64,
) -> Result<Vec<PendingBatch>, StoreError> {
    let sql = "SELECT lane, seq, entries, previous, mac, body FROM record_batches \
               WHERE lane = $1 AND seq > $2 AND seq <= $3 ORDER BY seq";
    let rows = tx.query(sql, params![lane, after, last]).await?;
    rows.into_iter()
        .map(|mut row| {
            Ok(PendingBatch {
                lane: row.take()?,
                seq: row.take()?,
                entries: row.take()?,
                previous: row.take()?,
                mac: row.take()?,
                body: row.take()?,
            })
        })
        .collect()
}

/// Counts batches that have no place in the log yet.
pub async fn waiting(tx: &mut Tx) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM record_lanes l JOIN record_batches b \
               ON b.lane = l.lane AND b.seq > l.integrated_seq WHERE l.ended = 0";
    tx.query_one(sql, vec![]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Moves the head on if nobody did before; its checkpoint stays.
pub async fn advance_head(tx: &mut Tx, from: &HeadRow, to: &HeadRow) -> Result<(), StoreError> {
    let sql = "UPDATE log_head SET size = $1, root = $2, edge = $3, lanes = $4, mac = $5 \
               WHERE id = 1 AND size = $6 AND mac = $7";
    let HeadRow { size, root, edge, lanes, mac, checkpoint: _, signed_at: _ } = to.clone();
    let values = params![size, root, edge, lanes, mac, from.size, from.mac.clone()];
    match tx.execute(sql, values).await? {
        1 => Ok(()),
        _ => Err(StoreError::Stale),
    }
}

/// Stores a signed checkpoint in place of the one that its head was seen to extend; nothing when
/// another node was first.
pub async fn store_checkpoint(
    tx: &mut Tx,
    before: String,
    checkpoint: String,
    at: i64,
) -> Result<(), StoreError> {
    let sql =
        "UPDATE log_head SET checkpoint = $1, signed_at = $2 WHERE id = 1 AND checkpoint = $3";
    tx.execute(sql, params![checkpoint, at, before]).await.map(drop)
}

/// Gives a batch its place.
pub async fn place(
    tx: &mut Tx,
    first: i64,
    lane: i64,
    seq: i64,
    entries: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO log_places (first, lane, seq, entries) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, params![first, lane, seq, entries]).await.map(drop)
}

/// Says how far a lane has its place.
pub async fn advance_lane(tx: &mut Tx, lane: &LaneState) -> Result<(), StoreError> {
    let sql = "UPDATE record_lanes SET integrated_seq = $1, integrated_hash = $2 WHERE lane = $3";
    tx.execute(sql, params![lane.seq, lane.hash, lane.lane]).await.map(drop)
}

/// Writes a hash tile, replacing its narrower form.
pub async fn put_tile(
    tx: &mut Tx,
    level: i64,
    tile: i64,
    hashes: Vec<u8>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO log_tiles (level, tile, hashes) VALUES ($1, $2, $3) \
               ON CONFLICT (level, tile) DO UPDATE SET hashes = excluded.hashes";
    tx.execute(sql, params![level, tile, hashes]).await.map(drop)
}

/// Reads a hash tile.
pub async fn tile(tx: &mut Tx, level: i64, tile: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT hashes FROM log_tiles WHERE level = $1 AND tile = $2";
    let row = tx.query_one(sql, params![level, tile]).await?;
    row.map(|mut row| row.take()).transpose()
}

/// The filter of a bundle.
#[derive(Debug, Clone)]
pub struct FilterRow {
    /// The bundle.
    pub bundle: i64,
    /// The filter's bits.
    pub filter: Vec<u8>,
    /// Its MAC.
    pub mac: Vec<u8>,
}

/// Writes the filter of a bundle.
pub async fn put_filter(tx: &mut Tx, row: &FilterRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO log_filters (bundle, filter, mac) VALUES ($1, $2, $3) \
               ON CONFLICT (bundle) DO UPDATE SET filter = excluded.filter, mac = excluded.mac";
    let FilterRow { bundle, filter, mac } = row.clone();
    tx.execute(sql, params![bundle, filter, mac]).await.map(drop)
}

/// Lists filters downwards from a bundle.
pub async fn filters_down(
    tx: &mut Tx,
    from: i64,
    limit: i64,
) -> Result<Vec<FilterRow>, StoreError> {
    let sql = "SELECT bundle, filter, mac FROM log_filters WHERE bundle <= $1 \
               ORDER BY bundle DESC LIMIT $2";
    let rows = tx.query(sql, params![from, limit]).await?;
    rows.into_iter()
        .map(|mut row| Ok(FilterRow { bundle: row.take()?, filter: row.take()?, mac: row.take()? }))
        .collect()
}

/// A batch with its place, read for its entries.
#[derive(Debug, Clone)]
pub struct PlacedBatch {
    /// Index of its first entry in the log.
    pub first: i64,
    /// Its entries.
    pub body: Vec<u8>,
    /// What stands beside them, unless all of it was erased.
    pub side: Option<Vec<u8>>,
}

/// Reads the batches that hold the entries from `from` up to, and not including, `to`.
pub async fn placed(tx: &mut Tx, from: i64, to: i64) -> Result<Vec<PlacedBatch>, StoreError> {
    let sql = "SELECT p.first, b.body, b.side FROM log_places p \
               JOIN record_batches b ON b.lane = p.lane AND b.seq = p.seq \
               WHERE p.first < $2 AND p.first >= \
               COALESCE((SELECT MAX(first) FROM log_places WHERE first <= $1), 0) \
               ORDER BY p.first";
    let rows = tx.query(sql, params![from, to]).await?;
    rows.into_iter()
        .map(|mut row| Ok(PlacedBatch { first: row.take()?, body: row.take()?, side: row.take()? }))
        .collect()
}

/// Reads the batches that hold the entries from `from` up to, and not including, `to`, without what
/// stands beside them: index of the first entry, and the entries.
pub async fn bodies(tx: &mut Tx, from: i64, to: i64) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let sql = "SELECT p.first, b.body FROM log_places p \
               JOIN record_batches b ON b.lane = p.lane AND b.seq = p.seq \
               WHERE p.first < $2 AND p.first >= \
               COALESCE((SELECT MAX(first) FROM log_places WHERE first <= $1), 0) \
               ORDER BY p.first";
    let rows = tx.query(sql, params![from, to]).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}
