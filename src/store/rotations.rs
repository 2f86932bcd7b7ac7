//! Rotations, and when what rotates by itself does next.

use crate::params;
use crate::sealed_row;
use crate::store::credentials::CredentialRow;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{CredentialKind, Id, Rotates, RotationState, UnixMillis};

sealed_row! {
    /// A rotation: from one version to the next.
    pub struct RotationRow in "rotations", seal 1 {
        /// Its subject and the version that it leads to: nobody rotates twice to the same.
        pub id: String,
        /// What is rotated.
        pub subject: Rotates,
        /// The old version.
        pub from_version: i64,
        /// The new version.
        pub to_version: i64,
        /// Where it is.
        pub state: RotationState,
        /// How much was under older versions when it began.
        pub total: i64,
        /// The node that makes or destroys the key in the HSM.
        pub node: String,
        /// When it was asked for.
        pub started_at: UnixMillis,
        /// By whom.
        pub started_by: String,
        /// When its state last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// When something rotates by itself.
    pub struct ScheduleRow in "rotation_schedules", seal 1 {
        /// What does.
        pub id: Rotates,
        /// How often, in seconds; none where it does not.
        pub every_s: Option<i64>,
        /// When it does next.
        pub next_at: Option<UnixMillis>,
        /// When this was last changed, or done.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

impl RotationRow {
    /// Names a rotation.
    #[must_use]
    pub fn name(subject: Rotates, to_version: i64) -> String {
        format!("{subject}/{to_version}")
    }
}

/// Lists the rotations of a subject, the newest first.
pub async fn of_subject(
    tx: &mut Tx,
    subject: Rotates,
    limit: i64,
) -> Result<Vec<Versioned<RotationRow>>, StoreError> {
    let tail = "WHERE subject = $1 ORDER BY to_version DESC LIMIT $2";
    tx.select(tail, params![subject, limit]).await
}

/// Lists the rotations of a subject that did not come to nothing, the newest first.
pub async fn standing_of(
    tx: &mut Tx,
    subject: Rotates,
    limit: i64,
) -> Result<Vec<Versioned<RotationRow>>, StoreError> {
    let tail = "WHERE subject = $1 AND state <> 'failed' ORDER BY to_version DESC LIMIT $2";
    tx.select(tail, params![subject, limit]).await
}

/// Walks through rotations in a state, after one of them. One that is not what was sealed holds up
/// itself alone.
pub async fn in_state(
    tx: &mut Tx,
    state: RotationState,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<RotationRow>>, StoreError> {
    // Its words stand in the text: an index holds those that are not at their end alone.
    let tail = format!(
        "WHERE state = '{state}' AND state NOT IN ('retired', 'failed') AND id > $1 \
         ORDER BY id LIMIT $2"
    );
    tx.select_intact(&tail, params![after.to_owned(), limit]).await
}

/// Walks through what is to rotate by now, after one of it.
pub async fn due(
    tx: &mut Tx,
    now: UnixMillis,
    (at, after): (UnixMillis, &str),
    limit: i64,
) -> Result<Vec<Versioned<ScheduleRow>>, StoreError> {
    let tail = "WHERE next_at IS NOT NULL AND next_at <= $1 AND (next_at, id) > ($2, $3) \
                ORDER BY next_at, id LIMIT $4";
    tx.select_intact(tail, params![now, at, after.to_owned(), limit]).await
}

/// What is under an identity's key: values of secrets, named keys, authenticators.
const UNDER: [&str; 3] = [
    "FROM secret_versions WHERE wrap_key = $1 AND state <> 'destroyed'",
    "FROM named_key_versions WHERE wrap_key = $1",
    "FROM factors WHERE secret_key = $1",
];

/// Counts what is under an identity's key, as [`Tx::tally`] does.
pub async fn count_under(tx: &mut Tx, key: Id) -> Result<i64, StoreError> {
    let mut under = 0_i64;
    for from in UNDER {
        let rows = format!("SELECT 1 AS counts, 0 AS value {from}");
        let some = tx.tally(&format!("{key} {from}"), &rows, params![key]).await?;
        under = under.saturating_add(some.count);
    }
    Ok(under)
}

/// Tells whether anything is under an identity's key.
pub async fn has_under(tx: &mut Tx, key: Id) -> Result<bool, StoreError> {
    for from in UNDER {
        if tx.query_one(&format!("SELECT 1 {from} LIMIT 1"), params![key]).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Counts what was signed in a span of time and is valid, and tells until when the last of it is, as
/// [`Tx::tally`] does; 0 where there is none.
pub async fn valid_of(
    tx: &mut Tx,
    kind: CredentialKind,
    (from, to): (UnixMillis, UnixMillis),
    now: UnixMillis,
) -> Result<(i64, UnixMillis), StoreError> {
    // Its word stands in the text: an index holds those of a kind alone.
    let rows = format!(
        "SELECT CASE WHEN issued_at >= $2 AND issued_at <= $3 THEN 1 ELSE 0 END AS counts, \
         CASE WHEN issued_at >= $2 AND issued_at <= $3 THEN expires_at ELSE 0 END AS value \
         FROM credentials WHERE kind = '{kind}' AND state = 'active' AND expires_at > $1"
    );
    // A root and what is below it begin at one moment and end at others. Nothing is signed after now.
    let end = if to < now { to } else { UnixMillis(i64::MAX) };
    let key = format!("{kind} from {} to {}", from.0, end.0);
    let valid = tx.tally(&key, &rows, params![now, from, to]).await?;
    Ok((valid.count, UnixMillis(valid.highest)))
}

/// Lists what was signed after a moment, up to another, and is valid; each other row is an alarm.
pub async fn valid_after(
    tx: &mut Tx,
    kind: CredentialKind,
    (after, to): (UnixMillis, UnixMillis),
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let tail = format!(
        "WHERE kind = '{kind}' AND state = 'active' AND expires_at > $1 \
         AND issued_at > $2 AND issued_at <= $3 LIMIT $4"
    );
    tx.select_intact(&tail, params![now, after, to, limit]).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sqlite;
    use crate::store::tx::Connection;

    #[test]
    fn spans_that_begin_together_are_counted_apart_also_of_much() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let fill = "CREATE TABLE credentials \
                    (kind TEXT, state TEXT, issued_at BIGINT, expires_at BIGINT); \
                    WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 10001) \
                    INSERT INTO credentials SELECT 'certificate', 'active', n, 30000 FROM s";
        connection.execute_batch(fill).unwrap();
        let mut tx = Tx::new(Connection::Sqlite(connection), Arc::default(), true);
        for (to, count, highest) in
            [(0, 0, 0), (7, 7, 30_000), (20_000, 10_001, 30_000), (20_001, 10_001, 30_000)]
        {
            let span = (UnixMillis(0), UnixMillis(to));
            let counted = valid_of(&mut tx, CredentialKind::Certificate, span, UnixMillis(20_000));
            assert_eq!(sqlite::drive(counted), Ok((count, UnixMillis(highest))), "{to}");
        }
    }
}
