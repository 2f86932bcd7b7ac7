//! Revocation lists, and the certificates that stand on them.

use crate::params;
use crate::sealed_row;
use crate::store::credentials::CredentialRow;
use crate::store::{Column, Row, SealedRow as _, StoreError, Tx, Versioned, intact};
use crate::types::{CredentialId, IdentityId, Segment, UnixMillis};

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

/// A part of a walk by columns alone, which nobody vouches for.
#[derive(Debug)]
pub struct Part<A> {
    /// What was found; a row whose columns make no sense is an alarm and left out.
    pub found: Vec<(A, CredentialId)>,
    /// After what the next part begins; none where this is the last.
    pub next: Option<(A, CredentialId)>,
}

/// Walks through the same by their end.
pub async fn ended_after(
    tx: &mut Tx,
    since: UnixMillis,
    after: Option<(UnixMillis, CredentialId)>,
    limit: i64,
) -> Result<Part<UnixMillis>, StoreError> {
    let (end, id) = after.map_or((since, String::new()), |(end, id)| (end, id.to_string()));
    part(tx.query(ENDED_AFTER, params![end, id, limit]).await?, limit)
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

/// Walks through the same by identity.
pub async fn contained_after(
    tx: &mut Tx,
    since: UnixMillis,
    after: Option<(IdentityId, CredentialId)>,
    limit: i64,
) -> Result<Part<IdentityId>, StoreError> {
    let (identity, id) = after
        .map_or_else(Default::default, |(identity, id)| (identity.to_string(), id.to_string()));
    part(tx.query(&contained_walk(), params![since, identity, id, limit]).await?, limit)
}

fn contained_walk() -> String {
    format!(
        "SELECT c.identity, c.id {CONTAINED} AND i.id >= $2 AND (c.identity, c.id) > ($2, $3) \
         ORDER BY i.id, c.id LIMIT $4"
    )
}

fn part<A: Column + Copy>(rows: Vec<Row>, limit: i64) -> Result<Part<A>, StoreError> {
    let full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.extend(intact(place(row).map(Some))?);
    }
    // The walk goes on behind a row that makes sense: an id that does is what the column holds, byte
    // for byte, so that it never comes back to where it was.
    let next = found.last().copied().filter(|_| full);
    if full && next.is_none() { Err(StoreError::Malformed) } else { Ok(Part { found, next }) }
}

fn place<A: Column>(mut row: Row) -> Result<(A, CredentialId), StoreError> {
    let tampered = |id| StoreError::Tampered { table: CredentialRow::TABLE.name, id };
    let (first, id) = (row.take(), row.take::<String>());
    let id = id.map_err(|_no_text| tampered(String::new()))?;
    match (first, id.parse()) {
        (Ok(first), Ok(id)) => Ok((first, id)),
        (_, _) => Err(tampered(id)),
    }
}

/// Rows read by one statement, always as many, so that it is prepared once.
const AT_ONCE: usize = 100;

/// Reads certificates that a walk found; each that is not what was sealed is an alarm and left out.
pub async fn read(
    tx: &mut Tx,
    ids: &[CredentialId],
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let tail = some_rows();
    let mut rows = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        let params = some.iter().cycle().take(AT_ONCE).map(Column::to_value);
        rows.extend(tx.select_intact(&tail, params.collect()).await?);
    }
    Ok(rows)
}

fn some_rows() -> String {
    let numbers: Vec<_> = (1..=AT_ONCE).map(|number| format!("${number}")).collect();
    format!("WHERE id IN ({})", numbers.join(", "))
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
            (
                CredentialRow::TABLE.select(&some_rows()),
                &["SEARCH credentials USING INDEX sqlite_autoindex_credentials_1 (id=?"],
            ),
        ] {
            let sql = sql.replace('$', "?");
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let some = std::iter::repeat_n(1, plan.parameter_count());
            let steps =
                plan.query_map(rusqlite::params_from_iter(some), |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
            for index in indexes {
                assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:?}");
            }
        }
    }
}
