//! Connections to target databases, the accounts that they go to, and roles.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{Id, IdentityId, ObjectId, ResourceName, Segment, UnixMillis};

/// Accounts that one connection may have had.
const TARGETS: i64 = 1_000;

sealed_row! {
    /// A connection: a name for the account that credentials are made with now.
    pub struct ConnectionRow in "db_connections", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its name.
        pub name: Segment,
        /// Who configured it first.
        pub owner: IdentityId,
        /// The account that it goes to.
        pub target: ObjectId,
        /// Whether it stands; one that was removed is taken up again when it is configured anew.
        pub active: bool,
        /// When it was configured.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// An account on a server. It stays when its connection goes elsewhere: leases end where they
    /// were made.
    pub struct TargetRow in "db_targets", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its connection.
        pub connection: ObjectId,
        /// Where it is, as JSON, without the password.
        pub settings: String,
        /// The password, encrypted and bound to this row and the version that wrote it.
        pub password: Vec<u8>,
        /// The key that it is encrypted under.
        pub password_key: Id,
        /// What the server called itself when it was last tested.
        pub server_version: String,
        /// When it was last tested and stored.
        pub tested_at: UnixMillis,
    }
}

sealed_row! {
    /// What a credential of a connection may do.
    pub struct RoleRow in "db_roles", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its name, `<connection>/<role>`.
        pub name: ResourceName,
        /// Its connection.
        pub connection: ObjectId,
        /// What it gives, as JSON.
        pub definition: String,
        /// Whether it stands, as of a connection.
        pub active: bool,
        /// When it was configured.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Finds a connection by its name.
pub async fn connection_named(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<ConnectionRow>>, StoreError> {
    Ok(connection_ever(tx, name).await?.filter(|found| found.row.active))
}

/// Finds a connection by its name, removed or not.
pub async fn connection_ever(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<ConnectionRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Lists connections by name.
pub async fn connections_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<ConnectionRow>>, StoreError> {
    let tail = "WHERE name > $1 AND active = 1 ORDER BY name LIMIT $2";
    tx.select(tail, params![after.to_owned(), limit]).await
}

/// Lists the accounts that a connection went to, oldest first.
pub async fn targets_of(
    tx: &mut Tx,
    connection: ObjectId,
) -> Result<Vec<Versioned<TargetRow>>, StoreError> {
    let tail = "WHERE connection = $1 ORDER BY id LIMIT $2";
    tx.select(tail, params![connection, TARGETS]).await
}

/// Finds a role by its name.
pub async fn role_named(
    tx: &mut Tx,
    name: &ResourceName,
) -> Result<Option<Versioned<RoleRow>>, StoreError> {
    Ok(role_ever(tx, name).await?.filter(|found| found.row.active))
}

/// Finds a role by its name, removed or not.
pub async fn role_ever(
    tx: &mut Tx,
    name: &ResourceName,
) -> Result<Option<Versioned<RoleRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Lists roles by name, of one connection or of all.
pub async fn roles_after(
    tx: &mut Tx,
    connection: Option<ObjectId>,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<RoleRow>>, StoreError> {
    let tail = "WHERE name > $1 AND active = 1 AND ($2 = '' OR connection = $2) \
                ORDER BY name LIMIT $3";
    let connection = connection.map(|connection| connection.to_string()).unwrap_or_default();
    tx.select(tail, params![after.to_owned(), connection, limit]).await
}
