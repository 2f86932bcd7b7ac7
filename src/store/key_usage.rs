//! Statistics on the use of named keys, folded from the record; nothing is decided by them.

use crate::params;
use crate::store::{StoreError, Tx, Value};
use crate::types::{ObjectId, UnixMillis};

/// Rows of one statement.
const ROWS: usize = 16;
/// Columns of a row that counts, and of one that notes a last use.
const COLUMNS: usize = 7;
const LAST_COLUMNS: usize = 5;

/// What one row counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageKey {
    /// The key.
    pub key: ObjectId,
    /// The day, counted from 1970-01-01, in UTC.
    pub day: i64,
    /// The identity's id, or the worker's name.
    pub used_by: String,
    /// The key's version.
    pub version: i64,
    /// What it was used for.
    pub purpose: String,
}

impl UsageKey {
    /// Comes before every row, as the newest come first.
    #[must_use]
    pub const fn beyond(key: ObjectId) -> Self {
        Self {
            key,
            day: i64::MAX,
            used_by: String::new(),
            version: i64::MAX,
            purpose: String::new(),
        }
    }
}

/// How often, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// Calls.
    pub uses: i64,
    /// When the last one was decided.
    pub last_at: UnixMillis,
}

/// A key's last use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// When.
    pub at: UnixMillis,
    /// The identity's id, or the worker's name.
    pub used_by: String,
    /// The key's version.
    pub version: i64,
    /// What for.
    pub purpose: String,
}

/// Adds what was counted.
pub async fn add(tx: &mut Tx, counted: &[(UsageKey, Uses)]) -> Result<(), StoreError> {
    write(tx, counted, insert, values).await
}

/// Writes rows, many by a statement: a commit may have one for each of many keys.
async fn write<T: Sync>(
    tx: &mut Tx,
    rows: &[T],
    sql: fn(usize) -> String,
    values: fn(&[T]) -> Vec<Value>,
) -> Result<(), StoreError> {
    let (whole, rest) = rows.as_chunks::<ROWS>();
    let many = if whole.is_empty() { String::new() } else { sql(ROWS) };
    for rows in whole {
        tx.execute(&many, values(rows)).await?;
    }
    if !rest.is_empty() {
        let one = sql(1);
        for row in rest {
            tx.execute(&one, values(std::slice::from_ref(row))).await?;
        }
    }
    Ok(())
}

/// Places of the values of rows: `($1, $2), ($3, $4)`.
fn places(rows: usize, columns: usize) -> String {
    let places = |row: usize| {
        let first = row.saturating_mul(columns);
        let places = (1..=columns).map(|column| format!("${}", first.saturating_add(column)));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(places).collect::<Vec<_>>().join(", ")
}

fn insert(rows: usize) -> String {
    format!(
        "INSERT INTO key_usage (id, day, used_by, version, purpose, uses, last_at) VALUES {} \
         ON CONFLICT (id, day, used_by, version, purpose) DO UPDATE SET \
         uses = key_usage.uses + excluded.uses, last_at = CASE \
         WHEN excluded.last_at > key_usage.last_at THEN excluded.last_at \
         ELSE key_usage.last_at END",
        places(rows, COLUMNS)
    )
}

fn values(rows: &[(UsageKey, Uses)]) -> Vec<Value> {
    let row = |(of, uses): &(UsageKey, Uses)| {
        let UsageKey { key, day, used_by, version, purpose } = of.clone();
        params![key, day, used_by, version, purpose, uses.uses, uses.last_at]
    };
    rows.iter().flat_map(row).collect()
}

/// Notes last uses, one of each key; the newest note wins.
pub async fn note_last(tx: &mut Tx, last: &[(ObjectId, LastUse)]) -> Result<(), StoreError> {
    write(tx, last, insert_last, last_values).await
}

fn insert_last(rows: usize) -> String {
    format!(
        "INSERT INTO key_last_usage (id, last_at, used_by, version, purpose) VALUES {} \
         ON CONFLICT (id) DO UPDATE SET \
         last_at = excluded.last_at, used_by = excluded.used_by, \
         version = excluded.version, purpose = excluded.purpose \
         WHERE key_last_usage.last_at <= excluded.last_at",
        places(rows, LAST_COLUMNS)
    )
}

fn last_values(rows: &[(ObjectId, LastUse)]) -> Vec<Value> {
    let row = |(key, last): &(ObjectId, LastUse)| {
        let LastUse { at, used_by, version, purpose } = last.clone();
        params![*key, at, used_by, version, purpose]
    };
    rows.iter().flat_map(row).collect()
}

/// Tells a key's last use.
pub async fn last_use(tx: &mut Tx, key: ObjectId) -> Result<Option<LastUse>, StoreError> {
    let sql = "SELECT last_at, used_by, version, purpose FROM key_last_usage WHERE id = $1";
    let row = tx.query_one(sql, params![key]).await?;
    row.map(|mut row| {
        Ok(LastUse {
            at: row.take()?,
            used_by: row.take()?,
            version: row.take()?,
            purpose: row.take()?,
        })
    })
    .transpose()
}

/// Lists what was counted of a key, the newest day first, after a row.
pub async fn usage(
    tx: &mut Tx,
    after: &UsageKey,
    limit: i64,
) -> Result<Vec<(UsageKey, Uses)>, StoreError> {
    let sql = "SELECT day, used_by, version, purpose, uses, last_at FROM key_usage \
               WHERE id = $1 AND (day < $2 OR (day = $2 AND (used_by, version, purpose) > \
               ($3, $4, $5))) ORDER BY day DESC, used_by, version, purpose LIMIT $6";
    let UsageKey { key, day, used_by, version, purpose } = after.clone();
    let rows = tx.query(sql, params![key, day, used_by, version, purpose, limit]).await?;
    rows.into_iter()
        .map(|mut row| {
            let (day, used_by) = (row.take()?, row.take()?);
            let of = UsageKey { key, day, used_by, version: row.take()?, purpose: row.take()? };
            Ok((of, Uses { uses: row.take()?, last_at: row.take()? }))
        })
        .collect()
}

/// Forgets some of what was counted before a day; tells how many rows.
pub async fn purge(tx: &mut Tx, before: i64, limit: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM key_usage WHERE day < $1 AND (id, day, used_by, version, purpose) IN \
               (SELECT id, day, used_by, version, purpose FROM key_usage WHERE day < $1 LIMIT $2)";
    tx.execute(sql, params![before, limit]).await
}

/// Tells whether anything was counted before a day.
pub async fn has_older(tx: &mut Tx, before: i64) -> Result<bool, StoreError> {
    let sql = "SELECT day FROM key_usage WHERE day < $1 LIMIT 1";
    Ok(tx.query_one(sql, params![before]).await?.is_some())
}
