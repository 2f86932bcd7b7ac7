//! Revocation lists, and the certificates that stand on them.

use crate::params;
use crate::sealed_row;
use crate::store::credentials::CredentialRow;
use crate::store::{StoreError, Tx, Value, Versioned};
use crate::types::{Segment, UnixMillis};

sealed_row! {
    /// The newest revocation list of an authority.
    pub struct CrlRow in "crls", seal 1 {
        /// The authority.
        pub id: Segment,
        /// Its number; each list has a higher one than the list before.
        pub number: i64,
        /// When it was signed, in whole seconds.
        pub this_update: UnixMillis,
        /// Until when another is signed at the latest.
        pub next_update: UnixMillis,
        /// What the certificates added up to that the store called ended when it was made: where
        /// another one is among them, they add up to something else.
        pub ended: i64,
        /// What those added up to that it called contained.
        pub contained: i64,
        /// Who stands on it and until when, encoded by who makes it: whatever becomes of the rows of
        /// these certificates, the next list names them too.
        pub listed: Vec<u8>,
        /// The list.
        pub der: Vec<u8>,
    }
}

/// Tells which version the newest list has; none before the first. Whoever has another loads it.
pub async fn version(tx: &mut Tx, id: &Segment) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT row_version FROM crls WHERE id = $1";
    let row = tx.query_one(sql, params![*id]).await?;
    row.map(|mut row| row.take()).transpose()
}

const ENDED: &str = "WHERE kind = 'certificate' AND state = 'ended'";

/// Adds certificates up. One that is put aside does not hide another that comes: to that end it
/// would have to be issued in the same millisecond.
const SUM: &str = "CAST(COALESCE(SUM(1 + issued_at % 1000000007), 0) AS BIGINT)";

/// Adds up the certificates that were ended themselves and end by time at a moment or after it.
pub async fn sum_ended(tx: &mut Tx, since: UnixMillis) -> Result<i64, StoreError> {
    let sql = format!("SELECT {SUM} FROM credentials {ENDED} AND expires_at >= $1");
    tx.query_one(&sql, params![since]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Walks through the same by their end, by columns alone; a walk begins at that moment and an empty id.
/// An id is what the column says, which nobody vouches for.
pub async fn ended_after(
    tx: &mut Tx,
    (end, id): (UnixMillis, &str),
    limit: i64,
) -> Result<Vec<(UnixMillis, String)>, StoreError> {
    let rows = tx.query(ENDED_AFTER, params![end, id.to_owned(), limit]).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

const ENDED_AFTER: &str = "SELECT expires_at, id FROM credentials \
                           WHERE kind = 'certificate' AND state = 'ended' \
                           AND (expires_at, id) > ($1, $2) ORDER BY expires_at, id LIMIT $3";

// From the few identities that were ever contained to what they held: the other way would look at
// every certificate. The order of the join is SQLite's to keep, and the plus keeps it to the index in
// the walk's order: another would sort all of a holder's certificates for each part.
const CONTAINED: &str = "FROM identities i CROSS JOIN credentials c WHERE i.revocation_epoch > 1 \
                         AND c.identity = i.id AND c.kind = 'certificate' AND c.state = 'active' \
                         AND +c.revocation_epoch < i.revocation_epoch AND c.handle IS NOT NULL \
                         AND c.expires_at >= $1";

/// Adds up the certificates that died with their identity and end by time at a moment or after it.
pub async fn sum_contained(tx: &mut Tx, since: UnixMillis) -> Result<i64, StoreError> {
    let sql = format!("SELECT {SUM} {CONTAINED}");
    tx.query_one(&sql, params![since]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Walks through the same by identity, as [`ended_after`] does; a walk begins at two empty ids.
pub async fn contained_after(
    tx: &mut Tx,
    since: UnixMillis,
    (identity, id): (&str, &str),
    limit: i64,
) -> Result<Vec<(String, String)>, StoreError> {
    let params = params![since, identity.to_owned(), id.to_owned(), limit];
    let rows = tx.query(&contained_walk(), params).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

fn contained_walk() -> String {
    format!(
        "SELECT c.identity, c.id {CONTAINED} AND i.id >= $2 AND (c.identity, c.id) > ($2, $3) \
         ORDER BY i.id, c.id LIMIT $4"
    )
}

/// Rows read by one statement, always as many, so that it is prepared once.
const AT_ONCE: usize = 100;

/// Reads certificates that a walk found; each that is not what was sealed is an alarm and left out.
pub async fn read(
    tx: &mut Tx,
    ids: &[String],
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let numbers: Vec<_> = (1..=AT_ONCE).map(|number| format!("${number}")).collect();
    let tail = format!("WHERE id IN ({})", numbers.join(", "));
    let mut rows = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        let params = some.iter().cycle().take(AT_ONCE).cloned().map(Value::Text);
        rows.extend(tx.select_intact(&tail, params.collect()).await?);
    }
    Ok(rows)
}

/// Tells until when the newest list may be used, and the length of what it lists: for whoever looks at
/// a store without its keys.
pub async fn outlook(tx: &mut Tx) -> Result<Option<(UnixMillis, i64)>, StoreError> {
    let sql = "SELECT next_update, CAST(LENGTH(listed) AS BIGINT) FROM crls \
               ORDER BY next_update DESC LIMIT 1";
    let row = tx.query_one(sql, params![]).await?;
    row.map(|mut row| Ok((row.take()?, row.take()?))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_at_certificates_that_were_neither_ended_nor_contained() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let schema = include_str!("../../migrations/sqlite/0001_house.sql");
        connection.execute_batch(schema).unwrap();
        let count = |tail: &str| format!("SELECT {SUM} {tail}");
        for (sql, indexes) in [
            (
                ENDED_AFTER.to_owned(),
                &["COVERING INDEX credentials_ended_certificates ((expires_at,id)>"][..],
            ),
            (
                count(&format!("FROM credentials {ENDED} AND expires_at >= $1")),
                &["COVERING INDEX credentials_ended_certificates (expires_at>?"],
            ),
            (
                count(CONTAINED),
                &["SCAN i USING INDEX identities_contained", "credentials_by_identity (identity=?"],
            ),
            (
                contained_walk(),
                &[
                    "SEARCH i USING INDEX identities_contained (id>?",
                    "credentials_by_identity (identity=?",
                ],
            ),
        ] {
            let sql = sql.replace('$', "?");
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let some = [1, 2, 3, 4].iter().take(plan.parameter_count());
            let steps =
                plan.query_map(rusqlite::params_from_iter(some), |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
            for index in indexes {
                assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:?}");
            }
        }
    }
}
