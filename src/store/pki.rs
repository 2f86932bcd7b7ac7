//! Certificate roles, and what is asked about issued certificates.

use crate::params;
use crate::sealed_row;
use crate::store::credentials::CredentialRow;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{Id, IdentityId, ResourceName, Segment, UnixMillis};

sealed_row! {
    /// A certificate role.
    pub struct PkiRoleRow in "pki_roles", seal 1 {
        /// Its id, for ever.
        pub id: Id,
        /// Its name.
        pub name: Segment,
        /// What its certificates may say, as JSON.
        pub profile: String,
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

/// Finds a role by its name.
pub async fn role_named(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<PkiRoleRow>>, StoreError> {
    Ok(role_ever(tx, name).await?.filter(|found| found.row.active))
}

/// Finds a role by its name, removed or not.
pub async fn role_ever(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<PkiRoleRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Lists roles by name.
pub async fn roles_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<PkiRoleRow>>, StoreError> {
    let tail = "WHERE name > $1 AND active = 1 ORDER BY name LIMIT $2";
    tx.select(tail, params![after.to_owned(), limit]).await
}

/// Lists certificates by id, which is by age: of one identity or of all, of one role or of all.
pub async fn certificates_after(
    tx: &mut Tx,
    identity: Option<IdentityId>,
    role: Option<&ResourceName>,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let role = role.map(ToString::to_string).unwrap_or_default();
    if let Some(identity) = identity {
        let tail = "WHERE identity = $1 AND kind = 'certificate' AND ($2 = '' OR resource = $2) \
                    AND id > $3 ORDER BY id LIMIT $4";
        return tx.select(tail, params![identity, role, after.to_owned(), limit]).await;
    }
    let tail = "WHERE kind = 'certificate' AND ($1 = '' OR resource = $1) AND id > $2 \
                ORDER BY id LIMIT $3";
    tx.select(tail, params![role, after.to_owned(), limit]).await
}

/// Stores serial numbers that certificates are about to have, one after the other.
pub async fn store_serials(
    tx: &mut Tx,
    id: Id,
    numbers: Vec<u8>,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO serials (id, numbers, stored_at) VALUES ($1, $2, $3)";
    tx.execute(sql, params![id, numbers, at]).await?;
    Ok(())
}

/// Tells whether a login certificate was ever issued for an identity.
pub async fn has_login(tx: &mut Tx, identity: IdentityId) -> Result<bool, StoreError> {
    let tail = "WHERE identity = $1 AND kind = 'login' LIMIT 1";
    Ok(tx.lookup_where::<CredentialRow>(tail, params![identity]).await?.is_some())
}

/// Finds the login certificate in force that lasts longest, of those of one revocation epoch.
pub async fn lasting_login(
    tx: &mut Tx,
    identity: IdentityId,
    epoch: i64,
) -> Result<Option<Versioned<CredentialRow>>, StoreError> {
    let tail = "WHERE identity = $1 AND kind = 'login' AND state = 'active' \
                AND revocation_epoch = $2 ORDER BY expires_at DESC LIMIT 1";
    tx.lookup_where(tail, params![identity, epoch]).await
}
