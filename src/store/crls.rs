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
        /// How many of its certificates were ended themselves.
        pub ended: i64,
        /// How many died with their identity.
        pub contained: i64,
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

/// Counts certificates that were ended themselves and end by time at a moment or after it.
pub async fn count_ended(tx: &mut Tx, since: UnixMillis) -> Result<i64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM credentials {ENDED} AND expires_at >= $1");
    tx.query_one(&sql, params![since]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Walks through the same by their end; a walk begins at that moment and an empty id.
pub async fn ended_after(
    tx: &mut Tx,
    (end, id): (UnixMillis, &str),
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    tx.select(&ended_from(), params![end, id.to_owned(), limit]).await
}

fn ended_from() -> String {
    format!("{ENDED} AND (expires_at, id) > ($1, $2) ORDER BY expires_at, id LIMIT $3")
}

// From the few identities that were ever contained to what they held: the other way would look at
// every certificate. The order of the join is SQLite's to keep.
const CONTAINED: &str = "FROM identities i CROSS JOIN credentials c WHERE i.revocation_epoch > 1 \
                         AND c.identity = i.id AND c.kind = 'certificate' AND c.state = 'active' \
                         AND c.revocation_epoch < i.revocation_epoch AND c.handle IS NOT NULL \
                         AND c.expires_at >= $1";

/// Counts certificates that died with their identity and end by time at a moment or after it.
pub async fn count_contained(tx: &mut Tx, since: UnixMillis) -> Result<i64, StoreError> {
    let sql = format!("SELECT COUNT(*) {CONTAINED}");
    tx.query_one(&sql, params![since]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Walks through the same by identity; a walk begins at two empty ids.
pub async fn contained_after(
    tx: &mut Tx,
    since: UnixMillis,
    (identity, id): (&str, &str),
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let params = params![since, identity.to_owned(), id.to_owned(), limit];
    tx.select(&contained_from(), params).await
}

fn contained_from() -> String {
    format!(
        "WHERE id IN (SELECT c.id {CONTAINED} AND i.id >= $2 AND (c.identity, c.id) > ($2, $3) \
         ORDER BY i.id, c.id LIMIT $4) ORDER BY identity, id"
    )
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
        let count = |tail: &str| format!("SELECT COUNT(*) {tail}");
        for (sql, indexes) in [
            (CredentialRow::TABLE.select(&ended_from()), &["credentials_ended_certificates"][..]),
            (
                count(&format!("FROM credentials {ENDED} AND expires_at >= $1")),
                &["COVERING INDEX credentials_ended_certificates (expires_at>?"],
            ),
            (
                count(CONTAINED),
                &["SCAN i USING INDEX identities_contained", "credentials_by_identity (identity=?"],
            ),
            (
                CredentialRow::TABLE.select(&contained_from()),
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
