//! Secrets, their versions and values.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{ElevationId, Id, IdentityId, ObjectId, SecretPath, SecretState, UnixMillis};

/// Versions of one secret that hold a value, at most.
pub const VERSIONS: i64 = 100;

sealed_row! {
    /// A secret: what decisions read of it, and how it is kept.
    pub struct SecretRow in "secrets", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its name, for ever.
        pub path: SecretPath,
        /// Whose data it is: under whose key its versions are.
        pub owner: IdentityId,
        /// Labels, as a JSON object of strings.
        pub labels: String,
        /// How many versions keep their value.
        pub max_versions: i64,
        /// How long a version can be undeleted, in seconds.
        pub window_s: i64,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When anything but its versions was last changed, or versions were taken away.
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
    /// Which version of a secret is the newest.
    pub struct SecretHeadRow in "secret_heads", seal 1 {
        /// The secret's id.
        pub id: ObjectId,
        /// The newest version's number; numbers are never used again.
        pub newest: i64,
        /// Versions before this one are destroyed: nobody looks through them, however many there were.
        pub valued_from: i64,
        /// When it was written.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// A version of a secret, without its value.
    pub struct SecretVersionRow in "secret_versions", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// The secret.
        pub secret: ObjectId,
        /// Its number among the secret's, from 1.
        pub version: i64,
        /// Where it is in its life.
        pub state: SecretState,
        /// Whether the value is a JSON object.
        pub is_json: bool,
        /// Length of the value.
        pub len_bytes: i64,
        /// Its data key, wrapped; empty once it is destroyed.
        pub wrap: Vec<u8>,
        /// The owner's key that the data key is wrapped with.
        pub wrap_key: Id,
        /// The version whose value it was given again.
        pub restored_from: Option<i64>,
        /// The version that its value was first written as: its own number, unless it was restored.
        pub root: i64,
        /// The first moment at which it is not read any more.
        pub expires_at: Option<UnixMillis>,
        /// When it is destroyed by itself.
        pub purge_at: Option<UnixMillis>,
        /// When it was first read by an elevated call: it is to be replaced.
        pub exposed_at: Option<UnixMillis>,
        /// The elevation of that.
        pub exposed_under: Option<ElevationId>,
        /// When it was written.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When its state last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Who read a secret last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRead {
    /// When.
    pub at: UnixMillis,
    /// By whom.
    pub by: IdentityId,
    /// Which version.
    pub version: i64,
}

/// Finds a secret by its name.
pub async fn secret_named(
    tx: &mut Tx,
    path: &SecretPath,
) -> Result<Option<Versioned<SecretRow>>, StoreError> {
    tx.lookup_where("WHERE path = $1", params![*path]).await
}

/// Walks through secrets by name, from one name to another, without those that are not what was
/// sealed.
pub async fn secrets_from(
    tx: &mut Tx,
    (from, to): (&str, &str),
    limit: i64,
) -> Result<Vec<Versioned<SecretRow>>, StoreError> {
    let tail = "WHERE path >= $1 AND path < $2 ORDER BY path LIMIT $3";
    tx.select_intact(tail, params![from.to_owned(), to.to_owned(), limit]).await
}

/// As [`secrets_from`], those of one owner.
pub async fn owned_from(
    tx: &mut Tx,
    owner: IdentityId,
    (from, to): (&str, &str),
    limit: i64,
) -> Result<Vec<Versioned<SecretRow>>, StoreError> {
    let tail = "WHERE owner = $1 AND path >= $2 AND path < $3 ORDER BY path LIMIT $4";
    tx.select_intact(tail, params![owner, from.to_owned(), to.to_owned(), limit]).await
}

/// Counts what an identity owns, up to a bound.
pub async fn count_owned(tx: &mut Tx, owner: IdentityId, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM secrets WHERE owner = $1 LIMIT $2) AS owned";
    let row = tx.query_one(sql, params![owner, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Finds a version by its number.
pub async fn version_numbered(
    tx: &mut Tx,
    secret: ObjectId,
    version: i64,
) -> Result<Option<Versioned<SecretVersionRow>>, StoreError> {
    tx.lookup_where("WHERE secret = $1 AND version = $2", params![secret, version]).await
}

/// Finds the version with the highest number.
pub async fn newest_version(
    tx: &mut Tx,
    secret: ObjectId,
) -> Result<Option<Versioned<SecretVersionRow>>, StoreError> {
    tx.lookup_where("WHERE secret = $1 ORDER BY version DESC LIMIT 1", params![secret]).await
}

/// Lists versions, the newest first, from before a number on.
pub async fn versions_before(
    tx: &mut Tx,
    secret: ObjectId,
    before: i64,
    limit: i64,
) -> Result<Vec<Versioned<SecretVersionRow>>, StoreError> {
    let tail = "WHERE secret = $1 AND version < $2 ORDER BY version DESC LIMIT $3";
    tx.select(tail, params![secret, before, limit]).await
}

/// Lists versions up to a number that still have a value, the oldest first.
pub async fn valued(
    tx: &mut Tx,
    head: &SecretHeadRow,
    up_to: i64,
) -> Result<Vec<Versioned<SecretVersionRow>>, StoreError> {
    let tail = "WHERE secret = $1 AND version >= $2 AND version <= $3 AND state <> 'destroyed' \
                ORDER BY version";
    tx.select(tail, params![head.id, head.valued_from, up_to]).await
}

/// Lists versions that have the value that was first written as this one.
pub async fn of_root(
    tx: &mut Tx,
    head: &SecretHeadRow,
    root: i64,
) -> Result<Vec<Versioned<SecretVersionRow>>, StoreError> {
    let tail = "WHERE secret = $1 AND version >= $2 AND root = $3 AND state <> 'destroyed' \
                ORDER BY version";
    tx.select(tail, params![head.id, head.valued_from, root]).await
}

/// Lists versions that are to be destroyed by now. One that is not what was sealed holds up itself
/// alone.
pub async fn versions_due(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<SecretVersionRow>>, StoreError> {
    let tail = "WHERE purge_at IS NOT NULL AND purge_at <= $1 ORDER BY purge_at LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}

/// Lists versions whose data keys are under an identity's key. One that is not what was sealed holds
/// up itself alone.
pub async fn versions_under(
    tx: &mut Tx,
    key: Id,
    limit: i64,
) -> Result<Vec<Versioned<SecretVersionRow>>, StoreError> {
    let tail = "WHERE wrap_key = $1 AND state <> 'destroyed' ORDER BY id LIMIT $2";
    tx.select_intact(tail, params![key, limit]).await
}

/// Reads a version's encrypted value.
pub async fn message(tx: &mut Tx, version: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT message FROM secret_values WHERE id = $1";
    let row = tx.query_one(sql, params![version]).await?;
    row.map(|mut row| row.take()).transpose()
}

/// Stores a version's encrypted value.
pub async fn insert_message(
    tx: &mut Tx,
    version: ObjectId,
    message: &[u8],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO secret_values (id, message) VALUES ($1, $2)";
    tx.execute(sql, params![version, message.to_vec()]).await.map(drop)
}

/// Removes a version's encrypted value.
pub async fn remove_message(tx: &mut Tx, version: ObjectId) -> Result<(), StoreError> {
    let sql = "DELETE FROM secret_values WHERE id = $1";
    tx.execute(sql, params![version]).await.map(drop)
}

/// Notes who read a secret; what is older than what is known changes nothing.
pub async fn note_read(tx: &mut Tx, secret: ObjectId, read: LastRead) -> Result<(), StoreError> {
    let sql = "INSERT INTO secret_usage (id, last_read_at, last_read_by, last_read_version) \
               VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET \
               last_read_at = excluded.last_read_at, last_read_by = excluded.last_read_by, \
               last_read_version = excluded.last_read_version \
               WHERE secret_usage.last_read_at <= excluded.last_read_at";
    tx.execute(sql, params![secret, read.at, read.by, read.version]).await.map(drop)
}

/// Tells who read a secret last.
pub async fn last_read(tx: &mut Tx, secret: ObjectId) -> Result<Option<LastRead>, StoreError> {
    let sql =
        "SELECT last_read_at, last_read_by, last_read_version FROM secret_usage WHERE id = $1";
    let Some(mut row) = tx.query_one(sql, params![secret]).await? else { return Ok(None) };
    Ok(Some(LastRead { at: row.take()?, by: row.take()?, version: row.take()? }))
}
