//! Walks through the rows of a table in steps, where one that is not what was sealed neither hides
//! nor holds up another.

use crate::params;
use crate::store::{SealedRow, StoreError, Tx, Value, Versioned};
use crate::types::UnixMillis;

/// A part of a walk.
#[derive(Debug)]
pub struct Part<T> {
    /// What is what was sealed; the rest is left out, each an alarm.
    pub rows: Vec<Versioned<T>>,
    /// The last of all that was found: the moment that it is sorted by or when it changed, and its id.
    pub last: Option<(UnixMillis, String)>,
    /// Whether there may be more.
    pub more: bool,
}

/// Reads a part: the column of a moment, and what is looked for in which order.
pub(super) async fn part<T: SealedRow>(
    tx: &mut Tx,
    (at, tail): (&str, &str),
    params: Vec<Value>,
    limit: i64,
) -> Result<Part<T>, StoreError> {
    let keys = format!("SELECT {at}, id FROM {} {tail}", T::TABLE.name);
    let mut found = tx.query(&keys, params.clone()).await?;
    let more = i64::try_from(found.len()).is_ok_and(|found| found == limit);
    let last = match found.last_mut() {
        Some(row) => Some((row.take()?, row.take()?)),
        None => return Ok(Part { rows: Vec::new(), last: None, more }),
    };
    Ok(Part { rows: tx.select_intact(tail, params).await?, last, more })
}

/// Lists what changed after a moment and an id, the oldest change first.
///
/// # Errors
/// What the database answers.
pub async fn changed_after<T: SealedRow>(
    tx: &mut Tx,
    at: UnixMillis,
    id: &str,
    limit: i64,
) -> Result<Part<T>, StoreError> {
    let tail = "WHERE (changed_at, id) > ($1, $2) ORDER BY changed_at, id LIMIT $3";
    part(tx, ("changed_at", tail), params![at, id.to_owned(), limit], limit).await
}
