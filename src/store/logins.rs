//! Keys that identities log in with: each has a row from the first login that was issued for it, so
//! that its age is known whatever certificates it had since.

use crate::crypto::hex;
use crate::sealed_row;
use crate::store::{StoreError, Tx};
use crate::types::{IdentityId, UnixMillis};

sealed_row! {
    /// That an identity logs in with a key.
    pub struct LoginKeyRow in "login_keys", seal 1 {
        /// The identity and SHA-256 of the key (DER of its `SubjectPublicKeyInfo`).
        pub id: String,
        /// When the first login with it was issued.
        pub since: UnixMillis,
    }
}

fn id(identity: IdentityId, key_hash: &[u8; 32]) -> String {
    format!("{identity}/{}", hex(key_hash))
}

/// Tells since when an identity has logins for a key, if it has.
pub async fn key_since(
    tx: &mut Tx,
    identity: IdentityId,
    key_hash: &[u8; 32],
) -> Result<Option<UnixMillis>, StoreError> {
    let found = tx.lookup::<LoginKeyRow>(&id(identity, key_hash)).await?;
    Ok(found.map(|found| found.row.since))
}

/// Notes that a login is issued for a key, where none was before. Whoever does holds the identity:
/// two first ones wait for each other.
pub async fn note_key(
    tx: &mut Tx,
    identity: IdentityId,
    key_hash: &[u8; 32],
    now: UnixMillis,
) -> Result<(), StoreError> {
    if key_since(tx, identity, key_hash).await?.is_none() {
        tx.insert(&LoginKeyRow { id: id(identity, key_hash), since: now }).await?;
    }
    Ok(())
}
