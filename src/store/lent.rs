//! What others hold by an identity's credentials: with a human's token, or a login that hangs on one,
//! tokens, logins and enrolments of machines are made. They hang on it, and end with it.

use crate::params;
use crate::store::{StoreError, Tx};
use crate::types::{CredentialKind, IdentityId, UnixMillis};

/// What others can hang on.
const LENDS: [CredentialKind; 2] = [CredentialKind::Token, CredentialKind::Login];

fn lending_sql(kind: CredentialKind) -> String {
    format!(
        "SELECT id FROM credentials WHERE identity = $1 AND kind = '{kind}' AND state = 'active' \
         AND revocation_epoch = $2 AND expires_at > $3 AND EXISTS (SELECT 1 FROM credentials c \
         WHERE c.parent = credentials.id AND c.parent IS NOT NULL AND c.state <> 'ended' \
         AND c.state <> 'revoking' AND c.identity <> credentials.identity) LIMIT $4"
    )
}

/// Lists the ids of an identity's tokens and logins of a revocation epoch on which something of
/// others hangs that is not to end yet; of each kind so many at most. Says so by columns alone.
pub async fn lending(
    tx: &mut Tx,
    (identity, epoch): (IdentityId, i64),
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<String>, StoreError> {
    let mut ids = Vec::new();
    for kind in LENDS {
        let rows = tx.query(&lending_sql(kind), params![identity, epoch, now, limit]).await?;
        for mut row in rows {
            ids.push(row.take()?);
        }
    }
    Ok(ids)
}

fn count_sql(kind: CredentialKind) -> String {
    format!(
        "SELECT COUNT(*) FROM (SELECT 1 AS one FROM credentials p JOIN credentials c \
         ON c.parent = p.id WHERE p.identity = $1 AND p.kind = '{kind}' AND p.state = 'active' \
         AND p.revocation_epoch = $2 AND p.expires_at > $3 AND c.parent IS NOT NULL \
         AND c.state <> 'ended' AND c.state <> 'revoking' AND c.identity <> $1 \
         AND (c.expires_at > $3 OR c.state = 'spent') LIMIT $4) AS lent"
    )
}

/// Counts what of others hangs on those, of each kind up to a bound.
pub async fn count_lent(
    tx: &mut Tx,
    (identity, epoch): (IdentityId, i64),
    now: UnixMillis,
    most: i64,
) -> Result<i64, StoreError> {
    let mut all = 0_i64;
    for kind in LENDS {
        let row = tx.query_one(&count_sql(kind), params![identity, epoch, now, most]).await?;
        let found: i64 = row.ok_or(StoreError::Malformed)?.take()?;
        all = all.saturating_add(found);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_at_tokens_that_are_over() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let schema = include_str!("../../migrations/sqlite/0001_house.sql");
        connection.execute_batch(schema).unwrap();
        let live = "credentials_live_tokens (identity=? AND revocation_epoch=? AND expires_at>?";
        for sql in [lending_sql(CredentialKind::Token), count_sql(CredentialKind::Token)] {
            let sql = sql.replace('$', "?");
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = plan.query_map([1, 2, 3, 4], |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
            for index in [live, "credentials_below (parent=?"] {
                assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:?}");
            }
        }
    }
}
