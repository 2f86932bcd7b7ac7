//! How the keys in the HSM are named, and what is known of each once it was verified.

use super::{KeyUse, KeyringError, Result};
use crate::hsm::{KeyInfo, KeyKind};
use crate::store::keys::{HsmKeyRow, HsmPurpose, KeyState};
use crate::types::VaultId;

/// Names a key in the token. The vault's id is in it, so that two vaults can share a token.
#[must_use]
pub fn label(vault: VaultId, purpose: HsmPurpose, version: i64) -> String {
    format!("strongroom/{vault}/{purpose}/{version}")
}

/// Names the data object that keeps the newest head of the log.
pub(super) fn head_label(vault: VaultId) -> String {
    format!("strongroom/{vault}/head")
}

/// Names the data object that tells who was shredded.
pub(super) fn shredded_label(vault: VaultId) -> String {
    format!("strongroom/{vault}/shredded")
}

/// Data object that names the vault whose founding has begun and is not yet in a store.
pub(super) const PENDING_LABEL: &str = "strongroom/pending";

/// Kinds of key that serve a purpose, the best first.
pub(super) const fn kinds(purpose: HsmPurpose) -> &'static [KeyKind] {
    match purpose {
        HsmPurpose::Root => &[KeyKind::HmacSha256],
        HsmPurpose::CaRoot => &[KeyKind::EcdsaP384],
        HsmPurpose::CaIssuing | HsmPurpose::CaLogin => &[KeyKind::EcdsaP256],
        HsmPurpose::Checkpoint => &[KeyKind::Ed25519, KeyKind::EcdsaP256],
    }
}

/// A key in the HSM whose attributes and pin were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HsmKey {
    /// Its label in the token.
    pub label: String,
    /// What it is for.
    pub purpose: HsmPurpose,
    /// Its version.
    pub version: i64,
    /// Where it is in its life.
    pub state: KeyState,
    /// What it is.
    pub kind: KeyKind,
    /// DER of its `SubjectPublicKeyInfo`; none for a root key.
    pub public_key_spki: Option<Vec<u8>>,
    /// The CA's certificate as it was at unsealing, DER.
    pub certificate: Option<Vec<u8>>,
    /// Of a root CA: the certificate by which the one before vouches for it, DER.
    pub link: Option<Vec<u8>>,
}

impl HsmKey {
    /// Joins what is stored of a key with what the token says of it.
    ///
    /// # Errors
    /// [`KeyringError::Replaced`] when the token holds another key, [`KeyringError::Unfit`] when
    /// the row names one that is not of its purpose.
    pub(super) fn verified(vault: VaultId, row: &HsmKeyRow, info: KeyInfo) -> Result<Self> {
        if info.check != row.pinned || info.check.is_empty() {
            return Err(KeyringError::Replaced(row.id.clone()));
        }
        if row.id != label(vault, row.purpose, row.version)
            || info.label != row.id
            || !kinds(row.purpose).contains(&info.kind)
        {
            return Err(KeyringError::Unfit(row.id.clone()));
        }
        Ok(Self {
            label: info.label,
            purpose: row.purpose,
            version: row.version,
            state: row.state,
            kind: info.kind,
            public_key_spki: info.public_key_spki,
            certificate: row.certificate.clone(),
            link: row.link.clone(),
        })
    }

    /// Tells the record that the key was used.
    #[must_use]
    pub fn used_for(&self, purpose: &'static str) -> KeyUse {
        KeyUse { key: self.label.clone(), version: self.version, purpose }
    }
}

/// Finds the newest active key of a purpose.
pub(super) fn newest_active(keys: &[HsmKey], purpose: HsmPurpose) -> Result<&HsmKey> {
    let active = |key: &&HsmKey| key.purpose == purpose && key.state == KeyState::Active;
    keys.iter()
        .filter(active)
        .max_by_key(|key| key.version)
        .ok_or_else(|| KeyringError::Unfit(format!("no active key for `{purpose}`")))
}
