//! The recovery of an administrator: one row, in which the newest one takes the place of the last.
//! What became of each stands in the record.

use crate::sealed_row;
use crate::store::{SealedRow as _, StoreError, Tx, Versioned};
use crate::types::{CredentialId, Id, IdentityName, RecoveryState, UnixMillis};

/// Key of the one row.
pub const RECOVERY_ID: &str = "administrator";

sealed_row! {
    /// The recovery that was asked for last.
    pub struct RecoveryRow in "recovery", seal 1 {
        /// Always [`RECOVERY_ID`].
        pub id: String,
        /// Where it is.
        pub state: RecoveryState,
        /// Which one it is; none before the first.
        pub recovery: Option<Id>,
        /// Whose it is; none before the first.
        pub name: Option<IdentityName>,
        /// SHA-256 of the new login's public key (DER of its `SubjectPublicKeyInfo`).
        pub key_hash: Vec<u8>,
        /// When it was asked for.
        pub requested_at: UnixMillis,
        /// The identity's revocation epoch then: who is contained meanwhile is not recovered.
        pub revocation_epoch: i64,
        /// The vault's restore epoch then: a backup may hold one that was cancelled.
        pub restore_epoch: i64,
        /// The login that it yielded.
        pub credential: Option<CredentialId>,
        /// When the row was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

impl RecoveryRow {
    /// Makes the row of a vault in which none was asked for yet.
    #[must_use]
    pub fn never(now: UnixMillis, by: String) -> Self {
        Self {
            id: RECOVERY_ID.to_owned(),
            state: RecoveryState::Never,
            recovery: None,
            name: None,
            key_hash: Vec::new(),
            requested_at: now,
            revocation_epoch: 0,
            restore_epoch: 0,
            credential: None,
            changed_at: now,
            changed_by: by,
        }
    }
}

/// Finds the row; where it is gone somebody took it away.
pub async fn recovery(tx: &mut Tx) -> Result<Versioned<RecoveryRow>, StoreError> {
    let missing =
        || StoreError::Tampered { table: RecoveryRow::TABLE.name, id: RECOVERY_ID.to_owned() };
    tx.lookup::<RecoveryRow>(&RECOVERY_ID).await?.ok_or_else(missing)
}
