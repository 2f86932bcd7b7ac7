//! Life-cycle policies: one row for each kind of identity, made with the vault.

use std::collections::BTreeMap;

use crate::params;
use crate::sealed_row;
use crate::store::identities::IdentityRow;
use crate::store::{Row, StoreError, Tx, Versioned};
use crate::types::{IdentityId, Kind, Owner, UnixMillis};

sealed_row! {
    /// How the identities of one kind live.
    pub struct LifecycleRow in "lifecycles", seal 1 {
        /// The kind.
        pub id: Kind,
        /// How long, in seconds, what is issued to them lives at most, each time.
        pub max_ttl_s: i64,
        /// How long it lives at most, in seconds, however often it is renewed.
        pub max_age_s: i64,
        /// After how long, in seconds, what they log in with must have been replaced.
        pub rotation_s: i64,
        /// The same, of those that are labelled as used in development; no longer.
        pub development_rotation_s: i64,
        /// After how long without use, in seconds, they are suspended; 0 for never.
        pub dormant_after_s: i64,
        /// How long before an end, in seconds, they are told of it.
        pub notice_s: i64,
        /// Whether each of their tokens can be used once alone.
        pub single_use: bool,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// The label of what is used in development alone.
const ENVIRONMENT: (&str, &str) = ("environment", "development");

impl LifecycleRow {
    /// Tells after how long, in seconds, what an identity of this kind logs in with must have been
    /// replaced. Its labels are administrators' to write.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when its labels are none.
    pub fn rotation_of(&self, identity: &IdentityRow) -> Result<i64, StoreError> {
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&identity.labels).map_err(|_unread| StoreError::Malformed)?;
        let (key, value) = ENVIRONMENT;
        let development = labels.get(key).is_some_and(|found| found == value);
        Ok(if development { self.development_rotation_s } else { self.rotation_s })
    }
}

/// Finds how the identities of a kind live.
pub async fn of_kind(tx: &mut Tx, kind: Kind) -> Result<Versioned<LifecycleRow>, StoreError> {
    tx.lookup::<LifecycleRow>(&kind).await?.ok_or(StoreError::Malformed)
}

/// Tells when anybody at all was last served.
pub async fn last_use(tx: &mut Tx) -> Result<Option<UnixMillis>, StoreError> {
    let row = tx.query_one("SELECT MAX(last_used_at) FROM identity_usage", vec![]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// One of those that a walk looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// When it ends.
    pub ends_at: UnixMillis,
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// Whether the record tells already that this end comes.
    pub told: bool,
}

const STANDS: &str = "state IN ('registered', 'active') AND kind <> 'bootstrap'";

fn ending_sql() -> String {
    format!(
        "SELECT expires_at, id, kind, (SELECT COUNT(*) FROM identity_notices n \
         WHERE n.id = identities.id AND n.ends_at = identities.expires_at) FROM identities \
         WHERE (expires_at, id) > ($1, $2) AND expires_at <= $3 AND {STANDS} \
         ORDER BY expires_at, id LIMIT $4"
    )
}

/// Walks by their end through identities that stand, from a place on, up to an end. Says by columns
/// alone who they are: whoever acts on it looks at the rows.
pub async fn ending(
    tx: &mut Tx,
    (from, after): (UnixMillis, &str),
    to: UnixMillis,
    limit: i64,
) -> Result<Vec<Ending>, StoreError> {
    let rows = tx.query(&ending_sql(), params![from, after.to_owned(), to, limit]).await?;
    let read = |mut row: Row| {
        let (ends_at, id) = (row.take()?, row.take()?);
        Ok(Ending { ends_at, id, kind: row.take()?, told: row.take()? })
    };
    rows.into_iter().map(read).collect()
}

/// Notes that the record tells of an end; false where it did already.
pub async fn tell(
    tx: &mut Tx,
    identity: IdentityId,
    ends_at: UnixMillis,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO identity_notices (id, ends_at) VALUES ($1, $2) ON CONFLICT (id) \
               DO UPDATE SET ends_at = excluded.ends_at \
               WHERE identity_notices.ends_at <> excluded.ends_at";
    Ok(tx.execute(sql, params![identity, ends_at]).await? == 1)
}

/// The end up to which notice is given of an identity's, as of a moment.
const NOTICED: &str =
    "$1 + 1000 * (SELECT l.notice_s FROM lifecycles l WHERE l.id = identities.kind)";
/// The last end of which notice is given of anybody's.
const HORIZON: &str = "$1 + 1000 * (SELECT MAX(l.notice_s) FROM lifecycles l)";

fn owned_sql() -> String {
    format!(
        "WHERE owner = $2 AND state <> 'retired' AND expires_at > $1 AND expires_at <= {HORIZON} \
         AND expires_at <= {NOTICED} AND id <> $2 AND {STANDS} ORDER BY expires_at LIMIT $3"
    )
}

/// Lists what an owner answers for besides itself and that ends within its notice, by when it does.
/// One that is not what was sealed is left out.
pub async fn ending_of(
    tx: &mut Tx,
    owner: Owner,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<IdentityRow>>, StoreError> {
    tx.select_intact(&owned_sql(), params![now, owner, limit]).await
}

/// Counts the identities that end within their notice, by kind.
pub async fn ending_counts(tx: &mut Tx, now: UnixMillis) -> Result<Vec<(Kind, i64)>, StoreError> {
    let sql = format!(
        "SELECT kind, COUNT(*) FROM identities WHERE expires_at > $1 AND expires_at <= {HORIZON} \
         AND expires_at <= {NOTICED} AND {STANDS} GROUP BY kind"
    );
    let rows = tx.query(&sql, params![now]).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

const DORMANT: &str = "SELECT id, CAST(CASE WHEN changed_at < $3 AND NOT EXISTS \
                       (SELECT 1 FROM identity_usage u WHERE u.id = identities.id \
                       AND u.last_used_at >= $3) THEN 1 ELSE 0 END AS BIGINT) FROM identities \
                       WHERE kind = $1 AND state = 'active' AND id > $2 ORDER BY id LIMIT $4";

/// Walks by id through the active identities of a kind, and tells of each whether it was neither
/// used nor changed since a moment. Says so by columns alone.
pub async fn resting(
    tx: &mut Tx,
    kind: Kind,
    after: &str,
    since: UnixMillis,
    limit: i64,
) -> Result<Vec<(String, bool)>, StoreError> {
    let rows = tx.query(DORMANT, params![kind, after.to_owned(), since, limit]).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// A login that a walk looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLogin {
    /// When it ends.
    pub ends_at: UnixMillis,
    /// Its id.
    pub id: String,
    /// Whether whose it is was there for the shortest rotation of its kind, that of development: no
    /// key of theirs is older.
    pub may_be_overdue: bool,
}

const LOGINS: &str = "SELECT c.expires_at, c.id, (SELECT COUNT(*) FROM identities i \
                      JOIN lifecycles l ON l.id = i.kind WHERE i.id = c.identity \
                      AND i.revocation_epoch = c.revocation_epoch \
                      AND i.created_at + 1000 * l.development_rotation_s <= $3) FROM credentials c \
                      WHERE c.kind = 'login' AND c.state = 'active' \
                      AND (c.expires_at, c.id) > ($1, $2) ORDER BY c.expires_at, c.id LIMIT $4";

/// Walks by their end through the logins that have not ended, from a place on. Says by columns alone
/// which may be overdue: whoever acts on it looks at the rows.
pub async fn live_logins(
    tx: &mut Tx,
    (from, after): (UnixMillis, &str),
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<LiveLogin>, StoreError> {
    let rows = tx.query(LOGINS, params![from, after.to_owned(), now, limit]).await?;
    let read = |mut row: Row| {
        let (ends_at, id) = (row.take()?, row.take()?);
        Ok(LiveLogin { ends_at, id, may_be_overdue: row.take()? })
    };
    rows.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SealedRow as _;

    #[test]
    fn no_walk_reads_identities_that_it_does_not_answer() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for schema in [
            include_str!("../../migrations/sqlite/0001_house.sql"),
            include_str!("../../migrations/sqlite/0004_identities.sql"),
        ] {
            connection.execute_batch(schema).unwrap();
        }
        for (sql, index) in [
            (ending_sql(), "INDEX identities_ending ((expires_at,id)>"),
            (IdentityRow::TABLE.select(&owned_sql()), "INDEX identities_owned (owner=? AND"),
            (LOGINS.to_owned(), "INDEX credentials_live_logins ((expires_at,id)>"),
            (DORMANT.to_owned(), "INDEX identities_active (kind=? AND id>?)"),
        ] {
            let sql = sql.replace('$', "?");
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let some = [1, 2, 3, 4].iter().take(plan.parameter_count());
            let steps =
                plan.query_map(rusqlite::params_from_iter(some), |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
            assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:?}");
            assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
        }
    }
}
