//! Life-cycle policies: one row for each kind of identity, made with the vault.

use crate::params;
use crate::sealed_row;
use crate::store::identities::IdentityRow;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{Kind, UnixMillis};

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

/// Finds how the identities of a kind live.
pub async fn of_kind(tx: &mut Tx, kind: Kind) -> Result<Versioned<LifecycleRow>, StoreError> {
    tx.lookup::<LifecycleRow>(&kind).await?.ok_or(StoreError::Malformed)
}

const OVER: &str = "WHERE expires_at <= $1 AND state IN ('registered', 'active') \
                    AND kind <> 'bootstrap' AND id > $2 ORDER BY id LIMIT $3";

/// Lists identities whose end has passed and that are not contained yet, by id; one that is not
/// what was sealed is left out.
pub async fn over(
    tx: &mut Tx,
    now: UnixMillis,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<IdentityRow>>, StoreError> {
    tx.select_intact(OVER, params![now, after.to_owned(), limit]).await
}

/// Tells when anybody at all was last served.
pub async fn last_use(tx: &mut Tx) -> Result<Option<UnixMillis>, StoreError> {
    let row = tx.query_one("SELECT MAX(last_used_at) FROM identity_usage", vec![]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

const DORMANT: &str = "WHERE kind = $1 AND state = 'active' AND changed_at < $2 AND id > $3 \
                       AND NOT EXISTS (SELECT 1 FROM identity_usage u \
                       WHERE u.id = identities.id AND u.last_used_at >= $2) ORDER BY id LIMIT $4";

/// Lists active identities of a kind that were neither used nor changed since a moment, by id; one
/// that is not what was sealed is left out.
pub async fn dormant(
    tx: &mut Tx,
    kind: Kind,
    since: UnixMillis,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<IdentityRow>>, StoreError> {
    tx.select_intact(DORMANT, params![kind, since, after.to_owned(), limit]).await
}
