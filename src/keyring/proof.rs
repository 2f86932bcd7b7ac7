//! That somebody has the PIN, proven by the HSM: whoever logs in with it has the HSM compute what
//! nobody else can have computed, over a challenge that is used once.

use super::{HsmKey, KeyUse, Keyring, KeyringError, Result, label};
use crate::crypto::Encoder;
use crate::hsm::{Hsm, HsmError};
use crate::store::keys::HsmPurpose;
use crate::types::{Entropy as _, SecretBytes, VaultId};

/// Bytes of a challenge's nonce.
pub const NONCE_BYTES: usize = 32;

/// What is to be answered by whoever has the PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The vault.
    pub vault: VaultId,
    /// The version of the root key that answers.
    pub root_version: i64,
    /// Random bytes, used once.
    pub nonce: [u8; NONCE_BYTES],
}

impl Challenge {
    /// Has the HSM answer, by the root key, for a statement and nothing else. The wrapping keys that
    /// the same key derives have another domain.
    ///
    /// # Errors
    /// What the HSM answers; it computes this only for who is logged in.
    pub async fn answer(&self, hsm: &dyn Hsm, statement: &[u8]) -> Result<SecretBytes, HsmError> {
        let input = Encoder::new("strongroom/pin-proof/v1")
            .text(&self.vault.to_string())
            .integer(self.root_version)
            .bytes(&self.nonce)
            .bytes(statement)
            .finish();
        hsm.hmac(&label(self.vault, HsmPurpose::Root, self.root_version), &input).await
    }
}

impl Keyring {
    /// Makes a challenge.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or that randomness failed.
    pub fn challenge(&self) -> Result<Challenge> {
        let open = self.open_state()?;
        let mut nonce = [0; NONCE_BYTES];
        open.mixer.fill(&mut nonce)?;
        let root_version = open.active(HsmPurpose::Root)?.version;
        Ok(Challenge { vault: open.vault, root_version, nonce })
    }

    /// Tells whether a challenge of this keyring was answered for this statement, and by which key.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what the HSM answers.
    pub async fn proves(
        &self,
        challenge: &Challenge,
        statement: &[u8],
        proof: &SecretBytes,
    ) -> Result<Option<KeyUse>> {
        let open = self.open_state()?;
        // The one that answers, whether or not another took its place since.
        let keys = open.hsm_keys();
        let answers = |key: &&HsmKey| {
            key.purpose == HsmPurpose::Root && key.version == challenge.root_version
        };
        let root = keys.iter().find(answers).ok_or(KeyringError::NoKey)?;
        let answer = challenge.answer(self.0.hsm.as_ref(), statement).await;
        let fits = answer.map_err(KeyringError::from)? == *proof;
        Ok(fits.then(|| root.used_for("prove PIN")))
    }
}
