//! The hierarchy of keys: root key (HSM) → identity key → data key → data; seal and unseal.
//!
//! Knows whose key something is under; must not know who asks, or what is encrypted. Everything
//! that uses a key tells which one ([`KeyUse`]), so that the record can name it. The formats are
//! written down, with test vectors, in `docs/formats.md`.

mod backup;
mod cache;
mod create;
mod data;
mod head;
mod identity;
mod master;
mod material;
mod moves;
mod names;
mod opener;
mod proof;
mod recover;
mod refresh;
mod rewrap;
mod sets;
mod shredded;
mod unseal;
#[cfg(test)]
mod vectors;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::crypto::{CryptoError, MacKey};
use crate::error::Error;
use crate::hsm::{Hsm, HsmError};
use crate::store::keys::{HsmPurpose, KeyOwner};
use crate::store::{RowSealer, StoreError};
use crate::types::{Entropy, SecretBytes, VaultId};

pub use backup::BackupWrap;
pub use create::{Genesis, OnFound};
pub use data::{Opened, Place, SealedValue, Stored};
pub use head::{Head, HeadKept};
pub use identity::NewKey;
pub use master::MasterKeys;
pub use material::Material;
pub use moves::MovedWrap;
pub use names::{HsmKey, label};
pub use opener::{SetKey, SetOpener, accept_share, make_token_key};
pub use proof::{Challenge, NONCE_BYTES};
pub use recover::Recovered;
pub use rewrap::{Rewrapped, Wrapped};
pub use sets::{Recipient, Share};
pub use shredded::Shredded;
pub use unseal::FinalTry;

/// The result of this room.
pub type Result<T, E = KeyringError> = std::result::Result<T, E>;

/// What went wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The keys are out of memory.
    #[error("the vault is sealed")]
    Sealed,
    /// A vault is to be founded on an unsealed keyring.
    #[error("the keyring is in use by a vault")]
    Unsealed,
    /// The store holds no vault.
    #[error("the store holds no vault: run `strongroom init` first")]
    NotFounded,
    /// Keys with this vault's labels are in the token already.
    #[error("key `{0}` is in the token already")]
    Exists(String),
    /// The token holds another key than the one that was pinned: an alarm.
    #[error("key `{0}` in the token is not the one that was pinned")]
    Replaced(String),
    /// The rows that the hierarchy hangs on do not agree with each other: an alarm.
    #[error("the rows of the keys do not fit together: {0}")]
    Unfit(String),
    /// A ciphertext or wrap does not open at its place: an alarm.
    #[error("{0} does not open at its place")]
    Misplaced(String),
    /// The owner has no key with that id.
    #[error("the key is not there any more")]
    NoKey,
    /// The owner's key was destroyed.
    #[error("its owner was shredded: nothing that was under their key opens any more")]
    Shredded,
    /// A wrap has a suite that this binary does not know.
    #[error("a wrap has the unknown suite {0}")]
    UnknownSuite(i64),
    /// The HSM failed.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The store failed, or refuses a row that is not what was sealed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cryptography failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Another room failed.
    #[error(transparent)]
    Other(#[from] Error),
}

impl KeyringError {
    /// Tells what does not open, where that is the fault.
    fn opening(error: CryptoError, what: impl FnOnce() -> String) -> Self {
        if error == CryptoError::Open { Self::Misplaced(what()) } else { Self::Crypto(error) }
    }
}

impl From<KeyringError> for Error {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Sealed => Self::Sealed,
            KeyringError::Unsealed
            | KeyringError::NotFounded
            | KeyringError::NoKey
            | KeyringError::Shredded => Self::precondition(error.to_string()),
            KeyringError::Exists(_) => Self::AlreadyExists(error.to_string().into()),
            KeyringError::Replaced(_) | KeyringError::Unfit(_) => {
                tracing::error!(%error, alarm = true, "the keys are not what was stored");
                Self::precondition(error.to_string())
            }
            KeyringError::Misplaced(_) => {
                tracing::error!(%error, alarm = true, "a ciphertext is not what was sealed");
                Self::Denied("what is stored is not what was sealed".into())
            }
            KeyringError::UnknownSuite(_) => Self::internal(error),
            KeyringError::Hsm(error) => error.into(),
            KeyringError::Store(error) => error.into(),
            KeyringError::Crypto(error) => error.into(),
            KeyringError::Other(error) => error,
        }
    }
}

/// A use of a key, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The key's label in the HSM, or its id.
    pub key: String,
    /// Its version.
    pub version: i64,
    /// What it was used for.
    pub purpose: &'static str,
}

/// The keys of one vault; clones share them.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    hsm: Arc<dyn Hsm>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<RowSealer>,
    /// Seals, unseals and foundings go one after the other.
    gate: tokio::sync::Mutex<()>,
    /// Looks at the keys in the HSM go one after the other, so that none undoes a newer one.
    looks: tokio::sync::Mutex<()>,
    open: RwLock<Option<Arc<Open>>>,
}

/// What is in memory while the vault is unsealed; wiped when the last user lets go of it.
struct Open {
    vault: VaultId,
    /// Replaced as a whole where a key in the HSM was made, retired or destroyed.
    hsm_keys: RwLock<Arc<[HsmKey]>>,
    keys: MasterKeys,
    mixer: master::Mixer,
    /// The recovery sets that every identity key is wrapped for.
    sets: RwLock<Arc<[Recipient]>>,
    cache: Mutex<cache::Cache>,
    materials: Mutex<material::Materials>,
}

impl Keyring {
    /// Makes a sealed keyring; it hands the row key to `sealer` at unsealing and takes it back.
    #[must_use]
    pub fn new(hsm: Arc<dyn Hsm>, entropy: Arc<dyn Entropy>, sealer: Arc<RowSealer>) -> Self {
        let (gate, looks) = Default::default();
        let open = RwLock::new(None);
        Self(Arc::new(Inner { hsm, entropy, sealer, gate, looks, open }))
    }

    /// Tells whether the keys are out of memory.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.0.open.read().is_none()
    }

    /// Finds the newest active key of a purpose in the HSM: its label, for signing with it.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn hsm_key(&self, purpose: HsmPurpose) -> Result<HsmKey> {
        self.open_state()?.active(purpose)
    }

    /// Lists every key in the HSM that the vault knows, retired ones included.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn hsm_keys(&self) -> Result<Vec<HsmKey>> {
        Ok(self.open_state()?.hsm_keys().to_vec())
    }

    /// Lends the key that idempotency keys get their MAC from.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn idempotency_key(&self) -> Result<MacKey> {
        Ok(self.open_state()?.keys.idempotency.clone())
    }

    /// Lends the key that page tokens are sealed with.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn page_key(&self) -> Result<SecretBytes> {
        Ok(self.open_state()?.keys.page.clone())
    }

    /// Lends the key that tokens get their MAC from.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn token_key(&self) -> Result<MacKey> {
        Ok(self.open_state()?.keys.token.clone())
    }

    /// Lends the key that hashes of masked fields are made with.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn mask_key(&self) -> Result<MacKey> {
        Ok(self.open_state()?.keys.mask.clone())
    }

    /// Forgets the cached keys of an owner: another node changed them.
    pub fn forget(&self, owner: KeyOwner) {
        if let Ok(open) = self.open_state() {
            open.cache.lock().forget(Some(owner));
            open.materials.lock().forget(Some(owner));
        }
    }

    /// Forgets every cached key: this node has not heard from the store for too long.
    pub fn forget_all(&self) {
        if let Ok(open) = self.open_state() {
            open.cache.lock().forget(None);
            open.materials.lock().forget(None);
        }
    }

    fn open_state(&self) -> Result<Arc<Open>> {
        self.0.open.read().clone().ok_or(KeyringError::Sealed)
    }
}

impl Open {
    fn hsm_keys(&self) -> Arc<[HsmKey]> {
        Arc::clone(&self.hsm_keys.read())
    }

    fn active(&self, purpose: HsmPurpose) -> Result<HsmKey> {
        names::newest_active(&self.hsm_keys(), purpose).cloned()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("sealed", &self.is_sealed()).finish_non_exhaustive()
    }
}
