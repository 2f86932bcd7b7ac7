//! Revocation lists, and the certificates that stand on them.

use crate::params;
use crate::sealed_row;
use crate::store::credentials::CredentialRow;
use crate::store::{StoreError, Tx, Versioned};
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

/// A part of a walk through certificates.
#[derive(Debug)]
pub struct Part<C> {
    /// Those that are what was sealed; each other one is an alarm.
    pub rows: Vec<Versioned<CredentialRow>>,
    /// Where the next part begins; none where this is the last.
    pub next: Option<C>,
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

/// Walks through the same by their end; a walk begins at that moment and an empty id.
pub async fn ended_after(
    tx: &mut Tx,
    (end, id): (UnixMillis, &str),
    limit: i64,
) -> Result<Part<(UnixMillis, String)>, StoreError> {
    let params = || params![end, id.to_owned(), limit];
    let rows = tx.select_intact(&format!("{} LIMIT $3", ended_from()), params()).await?;
    // Where a part ends is told by all of its rows, whatever is wrong with them.
    let last = format!("SELECT expires_at, id FROM credentials {} {LAST} $3 - 1", ended_from());
    let last = tx.query_one(&last, params()).await?;
    let next = last.map(|mut row| Ok((row.take()?, row.take()?))).transpose()?;
    Ok(Part { rows, next })
}

fn ended_from() -> String {
    format!("{ENDED} AND (expires_at, id) > ($1, $2) ORDER BY expires_at, id")
}

const LAST: &str = "LIMIT 1 OFFSET";

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

/// Walks through the same by identity; a walk begins at two empty ids.
pub async fn contained_after(
    tx: &mut Tx,
    since: UnixMillis,
    (identity, id): (&str, &str),
    limit: i64,
) -> Result<Part<(String, String)>, StoreError> {
    let params = || params![since, identity.to_owned(), id.to_owned(), limit];
    let rows = tx.select_intact(&contained_rows(), params()).await?;
    let last = format!("SELECT c.identity, c.id {} {LAST} $4 - 1", contained_from());
    let last = tx.query_one(&last, params()).await?;
    let next = last.map(|mut row| Ok((row.take()?, row.take()?))).transpose()?;
    Ok(Part { rows, next })
}

fn contained_from() -> String {
    format!("{CONTAINED} AND i.id >= $2 AND (c.identity, c.id) > ($2, $3) ORDER BY i.id, c.id")
}

fn contained_rows() -> String {
    format!("WHERE id IN (SELECT c.id {} LIMIT $4) ORDER BY identity, id", contained_from())
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
    use crate::store::SealedRow as _;

    #[test]
    fn nobody_looks_at_certificates_that_were_neither_ended_nor_contained() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let schema = include_str!("../../migrations/sqlite/0001_house.sql");
        connection.execute_batch(schema).unwrap();
        let count = |tail: &str| format!("SELECT {SUM} {tail}");
        for (sql, indexes) in [
            (CredentialRow::TABLE.select(&ended_from()), &["credentials_ended_certificates"][..]),
            (
                format!("SELECT expires_at, id FROM credentials {} {LAST} $3 - 1", ended_from()),
                &["COVERING INDEX credentials_ended_certificates ((expires_at,id)>"],
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
                CredentialRow::TABLE.select(&contained_rows()),
                &[
                    "SEARCH i USING INDEX identities_contained (id>?",
                    "credentials_by_identity (identity=?",
                    "SEARCH credentials USING INDEX sqlite_autoindex_credentials_1 (id=?",
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
