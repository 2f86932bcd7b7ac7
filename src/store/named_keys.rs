//! Named keys, their versions, and how many messages were reserved for each.
//!
//! Not `keys.rs`, which holds the hierarchy that these hang on.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{
    Id, IdentityId, KeyAlgorithm, KeyName, KeyOrigin, KeyPurpose, KeyVersionState, NamedKeyState,
    ObjectId, Placement, UnixMillis,
};

sealed_row! {
    /// A named key: what decisions read of it, and which of its versions are used.
    pub struct NamedKeyRow in "named_keys", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its name, for ever.
        pub name: KeyName,
        /// Whose key it is: under whose key its versions are.
        pub owner: IdentityId,
        /// What it does, and how.
        pub algorithm: KeyAlgorithm,
        /// Where it is kept.
        pub placement: Placement,
        /// What it may sign.
        pub purpose: KeyPurpose,
        /// Where its first key comes from, for ever.
        pub origin: KeyOrigin,
        /// Whether it may be backed up by itself, for ever.
        pub may_back_up: bool,
        /// Whether it is used.
        pub state: NamedKeyState,
        /// The version that what is new uses.
        pub newest: i64,
        /// The oldest version that is used for what was made before.
        pub min_version: i64,
        /// How often it rotates by itself, in seconds.
        pub rotate_every_s: Option<i64>,
        /// When it does next.
        pub rotate_at: Option<UnixMillis>,
        /// Labels, as a JSON object of strings.
        pub labels: String,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed or rotated.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
        /// Since when it is its owner's.
        pub owned_since: UnixMillis,
        /// Who made it so.
        pub owned_by: String,
    }
}

sealed_row! {
    /// A version of a named key.
    pub struct NamedKeyVersionRow in "named_key_versions", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// The key.
        pub named_key: ObjectId,
        /// Its number among the key's, from 1.
        pub version: i64,
        /// Where it is in its life.
        pub state: KeyVersionState,
        /// The key itself, encrypted under its owner's; empty where it is in the HSM.
        pub material: Vec<u8>,
        /// The owner's key that it is under.
        pub wrap_key: Option<Id>,
        /// Its public half, DER of the `SubjectPublicKeyInfo`.
        pub public_key: Option<Vec<u8>>,
        /// What the key in the HSM is pinned by.
        pub pinned: Option<Vec<u8>>,
        /// Where the key comes from.
        pub origin: KeyOrigin,
        /// Whose place in the HSM it takes, as long as anything of it may be there.
        pub in_hsm_of: Option<IdentityId>,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When its state last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// How many messages nodes have reserved for a version.
    pub struct NamedKeyCountRow in "named_key_counts", seal 1 {
        /// The version's id.
        pub id: ObjectId,
        /// How many, used or not.
        pub reserved: i64,
        /// The restores that were accepted before the last of them was reserved.
        pub restore_epoch: i64,
    }
}

/// Lists keys that are kept in the HSM.
pub async fn in_hsm(tx: &mut Tx, limit: i64) -> Result<Vec<Versioned<NamedKeyRow>>, StoreError> {
    tx.select("WHERE placement = 'hsm' ORDER BY id LIMIT $1", params![limit]).await
}

/// Finds a key by its name.
pub async fn key_named(
    tx: &mut Tx,
    name: &KeyName,
) -> Result<Option<Versioned<NamedKeyRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Walks through keys by name, from one name to another, without those that are not what was sealed.
pub async fn keys_from(
    tx: &mut Tx,
    (from, to): (&str, &str),
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyRow>>, StoreError> {
    let tail = "WHERE name >= $1 AND name < $2 ORDER BY name LIMIT $3";
    tx.select_intact(tail, params![from.to_owned(), to.to_owned(), limit]).await
}

/// As [`keys_from`], those of one owner.
pub async fn owned_from(
    tx: &mut Tx,
    owner: IdentityId,
    (from, to): (&str, &str),
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyRow>>, StoreError> {
    let tail = "WHERE owner = $1 AND name >= $2 AND name < $3 ORDER BY name LIMIT $4";
    tx.select_intact(tail, params![owner, from.to_owned(), to.to_owned(), limit]).await
}

/// Finds a version by its number.
pub async fn version_numbered(
    tx: &mut Tx,
    key: ObjectId,
    version: i64,
) -> Result<Option<Versioned<NamedKeyVersionRow>>, StoreError> {
    tx.lookup_where("WHERE named_key = $1 AND version = $2", params![key, version]).await
}

/// Finds the version with the highest number, of those that are there or of all.
pub async fn newest_version(
    tx: &mut Tx,
    key: ObjectId,
    live: bool,
) -> Result<Option<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = if live {
        "WHERE named_key = $1 AND state IN ('live', 'awaiting') ORDER BY version DESC LIMIT 1"
    } else {
        "WHERE named_key = $1 ORDER BY version DESC LIMIT 1"
    };
    tx.lookup_where(tail, params![key]).await
}

/// Lists versions, the newest first.
pub async fn versions_of(
    tx: &mut Tx,
    key: ObjectId,
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = "WHERE named_key = $1 ORDER BY version DESC LIMIT $2";
    tx.select(tail, params![key, limit]).await
}

/// Walks through active keys whose time to rotate has come, after one of them. One that is not what
/// was sealed holds up itself alone.
pub async fn keys_due(
    tx: &mut Tx,
    now: UnixMillis,
    after: (UnixMillis, ObjectId),
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyRow>>, StoreError> {
    let tail = "WHERE state = 'active' AND rotate_at IS NOT NULL AND rotate_at <= $1 \
                AND owner NOT IN (SELECT id FROM shreds) AND (rotate_at, id) > ($2, $3) \
                ORDER BY rotate_at, id LIMIT $4";
    tx.select_intact(tail, params![now, after.0, after.1, limit]).await
}

/// Walks through active keys whose newest version has so many messages reserved, after one of them.
pub async fn keys_spent(
    tx: &mut Tx,
    reserved: i64,
    after: ObjectId,
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyRow>>, StoreError> {
    let tail = "WHERE state = 'active' AND id > $1 AND owner NOT IN (SELECT id FROM shreds) \
                AND id IN (\
                SELECT v.named_key FROM named_key_counts c \
                JOIN named_key_versions v ON v.id = c.id \
                JOIN named_keys k ON k.id = v.named_key AND k.newest = v.version \
                WHERE c.reserved >= $2) ORDER BY id LIMIT $3";
    tx.select_intact(tail, params![after, reserved, limit]).await
}

/// Walks through versions of which something is to be destroyed in the HSM, after one of them: those
/// that have been in the making since before a moment, and those that are not used any more.
pub async fn versions_left(
    tx: &mut Tx,
    before: UnixMillis,
    after: (UnixMillis, ObjectId),
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = "WHERE state IN ('pending', 'retired') \
                AND (state = 'retired' OR changed_at <= $1) \
                AND (changed_at, id) > ($2, $3) ORDER BY changed_at, id LIMIT $4";
    tx.select_intact(tail, params![before, after.0, after.1, limit]).await
}

/// Lists the versions that take a place in the HSM, the oldest first.
pub async fn versions_in_hsm(
    tx: &mut Tx,
    key: ObjectId,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = "WHERE named_key = $1 AND in_hsm_of IS NOT NULL ORDER BY version";
    tx.select(tail, params![key]).await
}

/// Lists every version with a key in the store, the oldest first.
pub async fn versions_sealed(
    tx: &mut Tx,
    key: ObjectId,
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = "WHERE named_key = $1 AND wrap_key IS NOT NULL ORDER BY version LIMIT $2";
    tx.select(tail, params![key, limit]).await
}

/// Lists the versions with a key in the store from one number to another, the oldest first.
pub async fn versions_used(
    tx: &mut Tx,
    key: ObjectId,
    (from, to): (i64, i64),
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    let tail = "WHERE named_key = $1 AND version >= $2 AND version <= $3 AND state = 'live' \
                ORDER BY version LIMIT $4";
    tx.select(tail, params![key, from, to, limit]).await
}

/// Lists versions that are under an identity's key. One that is not what was sealed holds up itself
/// alone.
pub async fn versions_under(
    tx: &mut Tx,
    key: Id,
    limit: i64,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>, StoreError> {
    tx.select_intact("WHERE wrap_key = $1 ORDER BY id LIMIT $2", params![key, limit]).await
}

/// Counts the places in the HSM that an identity's keys take, up to a bound: also of what is in the
/// making, and of what is still to be destroyed.
pub async fn count_in_hsm(tx: &mut Tx, owner: IdentityId, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM named_key_versions \
               WHERE in_hsm_of = $1 LIMIT $2) AS held";
    let row = tx.query_one(sql, params![owner, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}
