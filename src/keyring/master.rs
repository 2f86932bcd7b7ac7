//! Keys that are derived from an identity key, each for one purpose, and fresh keys.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use super::{KeyUse, Result};
use crate::crypto::{CryptoError, MacKey, hkdf_sha256};
use crate::error;
use crate::types::{Entropy, SecretBytes, VaultId};

/// Length of every key, in bytes.
pub(super) const KEY_BYTES: usize = 32;
/// Wraps data keys; derived from each identity key.
pub(super) const INFO_DATA_WRAP: &str = "strongroom/keys/data-wrap/v1";
pub(super) const INFO_ROW: &str = "strongroom/keys/row/v1";
pub(super) const INFO_BATCH: &str = "strongroom/keys/batch/v1";
pub(super) const INFO_IDEMPOTENCY: &str = "strongroom/keys/idempotency/v1";
pub(super) const INFO_PAGE: &str = "strongroom/keys/page/v1";
pub(super) const INFO_TOKEN: &str = "strongroom/keys/token/v1";
pub(super) const INFO_MASK: &str = "strongroom/keys/mask/v1";
pub(super) const INFO_RECOVERY: &str = "strongroom/keys/recovery/v1";
const INFO_FRESH: &str = "strongroom/keys/fresh/v1";

/// The vault's own MAC keys, all derived from version 1 of the key of `system`.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    /// Seals rows that carry authority; the keyring hands it to the store's sealer itself.
    pub row: MacKey,
    /// MACs batches of the record.
    pub batch: MacKey,
    /// MACs idempotency keys.
    pub idempotency: MacKey,
    /// Seals page tokens.
    pub page: SecretBytes,
    /// MACs tokens: what is stored of them, and what handles of leases are made of.
    pub token: MacKey,
    /// MACs fields of secrets that are shown as hashes.
    pub mask: MacKey,
    /// Makes the key that the vault shares with the holders of each recovery set.
    pub recovery: MacKey,
    /// The root key that their origin was wrapped or unwrapped with, for the record.
    pub root: KeyUse,
}

impl MasterKeys {
    pub(super) fn derive(
        vault: VaultId,
        system: &SecretBytes,
        root: KeyUse,
    ) -> Result<Self, CryptoError> {
        let key = |info| Ok(MacKey::new(derive(vault, system, info)?.expose()));
        Ok(Self {
            row: key(INFO_ROW)?,
            batch: key(INFO_BATCH)?,
            idempotency: key(INFO_IDEMPOTENCY)?,
            page: derive(vault, system, INFO_PAGE)?,
            token: key(INFO_TOKEN)?,
            mask: key(INFO_MASK)?,
            recovery: key(INFO_RECOVERY)?,
            root,
        })
    }
}

/// Derives a key of one purpose; an identity key is used for nothing else.
pub(super) fn derive(
    vault: VaultId,
    identity_key: &SecretBytes,
    info: &str,
) -> Result<SecretBytes, CryptoError> {
    hkdf_sha256(identity_key.expose(), vault.0.as_bytes(), info.as_bytes(), KEY_BYTES)
}

/// Randomness for keys, salts and nonces: the system's, mixed with the HSM's through HKDF, so
/// that one of the two generators may be bad.
pub(super) struct Mixer {
    system: Arc<dyn Entropy>,
    seed: SecretBytes,
    /// Counts what was made: a generator that says the same twice does not make the same twice.
    made: AtomicU64,
}

impl Mixer {
    pub(super) const fn new(system: Arc<dyn Entropy>, seed: SecretBytes) -> Self {
        Self { system, seed, made: AtomicU64::new(0) }
    }

    /// Makes a key.
    pub(super) fn key(&self) -> error::Result<SecretBytes> {
        fresh_key(self)
    }
}

/// Makes a key of plain randomness.
pub(super) fn fresh_key(entropy: &dyn Entropy) -> error::Result<SecretBytes> {
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    entropy.fill(&mut key)?;
    Ok(key.into())
}

impl Entropy for Mixer {
    fn fill(&self, buffer: &mut [u8]) -> error::Result<()> {
        let fresh = fresh_key(self.system.as_ref())?;
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let info = [INFO_FRESH.as_bytes(), &made.to_be_bytes()].concat();
        let mixed = hkdf_sha256(fresh.expose(), self.seed.expose(), &info, buffer.len())?;
        buffer.copy_from_slice(mixed.expose());
        Ok(())
    }
}

impl fmt::Debug for Mixer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mixer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Id, SystemEntropy};

    #[derive(Debug)]
    struct Stuck;

    impl Entropy for Stuck {
        fn fill(&self, buffer: &mut [u8]) -> error::Result<()> {
            buffer.fill(0);
            Ok(())
        }
    }

    #[test]
    fn keys_differ_by_purpose_vault_and_origin() {
        let vault = |byte| VaultId(Id::from_bytes([byte; 16]));
        let key = |byte| SecretBytes::new(vec![byte; 32]);
        let mut all = Vec::new();
        for info in [
            INFO_DATA_WRAP,
            INFO_ROW,
            INFO_BATCH,
            INFO_IDEMPOTENCY,
            INFO_PAGE,
            INFO_TOKEN,
            INFO_MASK,
            INFO_RECOVERY,
        ] {
            for (v, k) in [(1, 1), (1, 2), (2, 1)] {
                all.push(derive(vault(v), &key(k), info).unwrap().expose().to_vec());
            }
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 24);
    }

    #[test]
    fn randomness_is_good_when_either_source_is() {
        let seed = |byte| SecretBytes::new(vec![byte; 32]);
        let a = Mixer::new(Arc::new(Stuck), seed(1)).key().unwrap();
        let b = Mixer::new(Arc::new(Stuck), seed(2)).key().unwrap();
        assert_ne!(a, b, "the HSM's alone");
        let stuck = Mixer::new(Arc::new(Stuck), seed(1));
        assert_ne!(stuck.key().unwrap(), stuck.key().unwrap(), "the HSM's alone, twice");
        let mixer = Mixer::new(Arc::new(SystemEntropy), seed(0));
        assert_ne!(mixer.key().unwrap(), mixer.key().unwrap(), "the system's alone");
    }
}
