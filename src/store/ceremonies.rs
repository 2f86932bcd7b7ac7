//! Ceremonies: what several administrators do together.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{CeremonyId, CeremonyState, IdentityId, ResourceName, UnixMillis};

sealed_row! {
    /// A ceremony, from its request on.
    pub struct CeremonyRow in "ceremonies", seal 1 {
        /// Its id, for ever.
        pub id: CeremonyId,
        /// Who asked.
        pub identity: IdentityId,
        /// The action that it is about.
        pub action: String,
        /// The first resource that this touches.
        pub resource: ResourceName,
        /// All of what it is about, as JSON.
        pub about: String,
        /// What approvals bind to.
        pub about_hash: Vec<u8>,
        /// How many administrators it takes, who asked among them.
        pub needed: i64,
        /// Where it is in its life.
        pub state: CeremonyState,
        /// Who approved and denied it, as JSON.
        pub votes: String,
        /// The factor that who asked proved; empty where nobody else has to approve.
        pub factor: String,
        /// The revocation epoch of who asked, then.
        pub revocation_epoch: i64,
        /// How often the vault had been restored then.
        pub restore_epoch: i64,
        /// When it was asked for.
        pub requested_at: UnixMillis,
        /// The first moment at which it waits no more.
        pub expires_at: UnixMillis,
        /// When it last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Finds the one that an identity asked for about exactly this, where it waits at a moment.
pub async fn open_of(
    tx: &mut Tx,
    identity: IdentityId,
    about_hash: &[u8],
    now: UnixMillis,
) -> Result<Option<Versioned<CeremonyRow>>, StoreError> {
    let tail = "WHERE identity = $1 AND about_hash = $2 AND state = 'open' AND expires_at > $3 \
                ORDER BY id DESC LIMIT 1";
    tx.lookup_where(tail, params![identity, about_hash.to_vec(), now]).await
}

/// Counts what an identity asked for after a moment, up to a bound.
pub async fn count_asked(
    tx: &mut Tx,
    identity: IdentityId,
    after: UnixMillis,
    most: i64,
) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM ceremonies WHERE identity = $1 \
               AND requested_at > $2 LIMIT $3) AS asked";
    let row = tx.query_one(sql, params![identity, after, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Lists what waited too long. One that is not what was sealed holds up itself alone.
pub async fn due(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<CeremonyRow>>, StoreError> {
    let tail = "WHERE state = 'open' AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}

/// Lists ceremonies from before an id on, the newest first: all, or those that wait at a moment. One
/// that is not what was sealed hides no other.
pub async fn before(
    tx: &mut Tx,
    id: &str,
    waiting_at: Option<UnixMillis>,
    limit: i64,
) -> Result<Vec<Versioned<CeremonyRow>>, StoreError> {
    match waiting_at {
        None => {
            let tail = "WHERE id < $1 ORDER BY id DESC LIMIT $2";
            tx.select_intact(tail, params![id.to_owned(), limit]).await
        }
        Some(now) => {
            let tail = "WHERE id < $1 AND state = 'open' AND expires_at > $2 \
                        ORDER BY id DESC LIMIT $3";
            tx.select_intact(tail, params![id.to_owned(), now, limit]).await
        }
    }
}
