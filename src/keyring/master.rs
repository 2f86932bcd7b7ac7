//! Keys that are derived from an identity key, each for one purpose, and fresh keys.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

use super::{KeyUse, Result};
use crate::crypto::{CryptoError, MacKey, hkdf_sha256, stretch};
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

/// Bytes of the HSM's share that are made at once: for a nonce, HKDF costs more than encrypting a
/// kilobyte under it.
const POOL_BYTES: usize = 4_096;

/// Randomness for keys, salts and nonces: the system's, drawn anew each time, so that a machine whose
/// memory is put back does not repeat itself, and over it what HKDF made of both generators a while ago,
/// so that one of the two may be bad.
pub(super) struct Mixer {
    system: Arc<dyn Entropy>,
    seed: SecretBytes,
    /// Counts what was mixed: a generator that says the same twice does not make the same twice.
    mixed: AtomicU64,
    /// What was mixed and not used yet.
    pool: Mutex<Zeroizing<Vec<u8>>>,
}

impl Mixer {
    pub(super) fn new(system: Arc<dyn Entropy>, seed: SecretBytes) -> Self {
        let pool = Mutex::new(Zeroizing::new(Vec::new()));
        Self { system, seed, mixed: AtomicU64::new(0), pool }
    }

    /// Makes a key.
    pub(super) fn key(&self) -> error::Result<SecretBytes> {
        fresh_key(self)
    }

    fn mix(&self, buffer: &mut [u8]) -> error::Result<()> {
        let fresh = fresh_key(self.system.as_ref())?;
        let mixed = self.mixed.fetch_add(1, Ordering::Relaxed);
        let info = [INFO_FRESH.as_bytes(), &mixed.to_be_bytes()].concat();
        let key = hkdf_sha256(fresh.expose(), self.seed.expose(), &info, KEY_BYTES)?;
        Ok(stretch(&key, buffer)?)
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
        self.system.fill(buffer)?;
        if buffer.len() > POOL_BYTES {
            let mut mixed = Zeroizing::new(vec![0; buffer.len()]);
            self.mix(&mut mixed)?;
            lay_over(buffer, &mixed);
            return Ok(());
        }
        let mut pool = self.pool.lock();
        if pool.len() < buffer.len() {
            let mut more = Zeroizing::new(vec![0; POOL_BYTES]);
            self.mix(&mut more)?;
            *pool = more;
        }
        let rest = pool.len().saturating_sub(buffer.len());
        let taken = pool.get_mut(rest..).ok_or(error::Error::Internal)?;
        lay_over(buffer, taken);
        // What is still there was used by nobody.
        taken.zeroize();
        pool.truncate(rest);
        Ok(())
    }
}

fn lay_over(buffer: &mut [u8], mixed: &[u8]) {
    for (byte, mixed) in buffer.iter_mut().zip(mixed) {
        *byte ^= mixed;
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

    #[test]
    fn nothing_is_handed_out_twice_however_much_is_asked_for() {
        let mixer = Mixer::new(Arc::new(Stuck), SecretBytes::new(vec![1; 32]));
        let mut seen = std::collections::HashSet::new();
        for len_bytes in [8, 24, 1_000, POOL_BYTES, 3 * POOL_BYTES, 16].repeat(40) {
            let mut drawn = vec![0; len_bytes];
            mixer.fill(&mut drawn).unwrap();
            assert!(drawn.as_chunks::<8>().0.iter().all(|word| seen.insert(*word)));
        }
        assert!(!seen.contains(&[0; 8]));
    }

    #[test]
    fn a_generator_that_fails_leaves_nothing_to_hand_out() {
        #[derive(Debug)]
        struct Broken;

        impl Entropy for Broken {
            fn fill(&self, _: &mut [u8]) -> error::Result<()> {
                Err(error::Error::Internal)
            }
        }

        let mixer = Mixer::new(Arc::new(Broken), SecretBytes::new(vec![1; 32]));
        let mut drawn = [0; 12];
        assert_eq!(
            [mixer.fill(&mut drawn), mixer.fill(&mut drawn)],
            [(); 2].map(|()| Err(error::Error::Internal))
        );
        assert_eq!(drawn, [0; 12]);
    }
}
