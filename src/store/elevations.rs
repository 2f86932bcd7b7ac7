//! Elevations and their roles.

use crate::params;
use crate::sealed_row;
use crate::store::walks::{Part, part};
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{ElevationId, ElevationState, IdentityId, ObjectId, Segment, UnixMillis};

sealed_row! {
    /// An elevation role: who may ask for what, for how long, and who approves it.
    pub struct ElevationRoleRow in "elevation_roles", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its name.
        pub name: Segment,
        /// What it says, as JSON.
        pub definition: String,
        /// What it is to say, as JSON; empty where nobody wants it changed.
        pub proposal: String,
        /// When that takes effect; none while nobody confirmed it.
        pub next_try: Option<UnixMillis>,
        /// Who confirmed what it says; empty where nobody had to.
        pub confirmed_by: String,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// Since when it says what it does.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
        /// By whom it was ever changed since it was made, who confirmed that among them: see
        /// [`changers`](crate::store::changers).
        pub changers: String,
    }
}

sealed_row! {
    /// An elevation, from its request on.
    pub struct ElevationRow in "elevations", seal 1 {
        /// Its id, for ever.
        pub id: ElevationId,
        /// Who asked for it, and has it.
        pub identity: IdentityId,
        /// Its role.
        pub role: ObjectId,
        /// Where it is in its life.
        pub state: ElevationState,
        /// What was asked for, as JSON; it never changes.
        pub scope: String,
        /// SHA-256 of the one encoding of that, and of what it stands on.
        pub scope_hash: [u8; 32],
        /// Who approved and denied it, as JSON.
        pub votes: String,
        /// How long it is in force, in seconds; approvers may have shortened it.
        pub ttl_s: i64,
        /// The vault's restore epoch when it was asked for; void under another.
        pub restore_epoch: i64,
        /// The identity's revocation epoch when it was asked for; a lower one than its is dead.
        pub revocation_epoch: i64,
        /// When it was asked for.
        pub requested_at: UnixMillis,
        /// From when on it may be activated, for an hour.
        pub starts_at: UnixMillis,
        /// When it came into force.
        pub activated_at: Option<UnixMillis>,
        /// The first moment at which it is in force no more.
        pub ends_at: Option<UnixMillis>,
        /// When a worker looks at it next; none when nothing is left to be done.
        pub next_try: Option<UnixMillis>,
        /// Why it is over, or what is still to be done; empty while there is nothing to say.
        pub why: String,
        /// Of one that nobody approved beforehand, or that may make what stands: by when it has to be
        /// reviewed; none afterwards.
        pub review_due: Option<UnixMillis>,
        /// Its review, as JSON; empty before.
        pub review: String,
        /// When people were told that its review is overdue.
        pub review_told_at: Option<UnixMillis>,
        /// When it last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Finds a role by its name.
pub async fn role_named(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<ElevationRoleRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Lists roles by name.
pub async fn roles_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<ElevationRoleRow>>, StoreError> {
    let tail = "WHERE name > $1 ORDER BY name LIMIT $2";
    tx.select(tail, params![after.to_owned(), limit]).await
}

/// Keeps other transactions that hold the same elevation waiting until this one ends: what is read
/// of it then is the newest.
pub async fn hold(tx: &mut Tx, id: ElevationId) -> Result<(), StoreError> {
    let sql = "UPDATE elevations SET row_version = row_version WHERE id = $1";
    tx.execute(sql, params![id]).await.map(drop)
}

/// Finds the elevation that an identity has in force, or had until a worker looks at it.
pub async fn active_of(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Option<Versioned<ElevationRow>>, StoreError> {
    let tail = "WHERE identity = $1 AND state = 'active' \
                AND state IN ('awaiting-approval', 'scheduled', 'active') LIMIT 1";
    tx.lookup_where(tail, params![identity]).await
}

/// Tells whether an identity has an elevation whose review is overdue.
pub async fn has_overdue(
    tx: &mut Tx,
    identity: IdentityId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM elevations WHERE identity = $1 AND review_due IS NOT NULL \
               AND review_due <= $2 LIMIT 1";
    Ok(tx.query_one(sql, params![identity, now]).await?.is_some())
}

/// Lists roles that are to say something else by now.
pub async fn roles_due(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<ElevationRoleRow>>, StoreError> {
    let tail = "WHERE next_try IS NOT NULL AND next_try <= $1 ORDER BY name LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}

/// Counts what an identity has open, up to a bound.
pub async fn count_open(tx: &mut Tx, identity: IdentityId, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM elevations WHERE identity = $1 \
               AND state IN ('awaiting-approval', 'scheduled', 'active') LIMIT $2) AS open";
    let row = tx.query_one(sql, params![identity, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Counts what an identity has open of its revocation epoch, up to a bound.
pub async fn count_in_force(
    tx: &mut Tx,
    (identity, epoch): (IdentityId, i64),
    most: i64,
) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 AS one FROM elevations WHERE identity = $1 \
               AND state IN ('awaiting-approval', 'scheduled', 'active') \
               AND revocation_epoch >= $2 LIMIT $3) AS open";
    let row = tx.query_one(sql, params![identity, epoch, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Counts what an identity asked for after a moment, up to a bound.
pub async fn count_asked(
    tx: &mut Tx,
    identity: IdentityId,
    after: UnixMillis,
    most: i64,
) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM elevations WHERE identity = $1 \
               AND requested_at > $2 LIMIT $3) AS asked";
    let row = tx.query_one(sql, params![identity, after, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Walks through elevations, the newest first, from before an id on; those that are over, too, or
/// not.
pub async fn before(
    tx: &mut Tx,
    id: &str,
    over: bool,
    limit: i64,
) -> Result<Part<ElevationRow>, StoreError> {
    let all = "WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let open = "WHERE id < $1 AND (state IN ('awaiting-approval', 'scheduled', 'active') \
                OR next_try IS NOT NULL) ORDER BY id DESC LIMIT $2";
    part(tx, ("changed_at", if over { all } else { open }), params![id.to_owned(), limit], limit)
        .await
}

/// Walks through elevations whose review is overdue, from after a moment and an id on. Also those of
/// which people were told: only the whole row vouches for that.
pub async fn overdue(
    tx: &mut Tx,
    now: UnixMillis,
    (at, id): &(UnixMillis, String),
    limit: i64,
) -> Result<Part<ElevationRow>, StoreError> {
    let tail = "WHERE review_due IS NOT NULL AND review_due <= $1 AND (review_due, id) > ($2, $3) \
                ORDER BY review_due, id LIMIT $4";
    part(tx, ("review_due", tail), params![now, *at, id.clone(), limit], limit).await
}

/// Lists elevations in force of who was contained since, or is over.
///
/// The identities' own seals are not looked at here: what is found is looked at again.
pub async fn without_right(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<ElevationRow>>, StoreError> {
    let tail = "WHERE state = 'active' AND state IN ('awaiting-approval', 'scheduled', 'active') \
                AND EXISTS (SELECT 1 FROM identities i WHERE i.id = elevations.identity \
                AND (i.revocation_epoch > elevations.revocation_epoch \
                OR i.state NOT IN ('registered', 'active') \
                OR (i.expires_at IS NOT NULL AND i.expires_at <= $1))) ORDER BY id LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}

/// Lists what the clock has to look at. One that is not what was sealed holds up itself alone.
pub async fn due(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<ElevationRow>>, StoreError> {
    let tail = "WHERE next_try IS NOT NULL AND next_try <= $1 ORDER BY next_try LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}
