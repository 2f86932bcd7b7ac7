//! Named keys in memory: opened once, kept while the vault is unsealed, wiped when they leave.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::{KeyUse, Keyring, Open, Place, Result};
use crate::crypto::{CryptoError, Header, MessageKey};
use crate::error;
use crate::store::Reader;
use crate::store::keys::KeyOwner;
use crate::types::{Entropy, Id, SecretBytes, VaultId};

/// A key that was opened, and what messages are encrypted with, once that was derived from it: both
/// leave memory together.
pub struct Material {
    key: SecretBytes,
    message: OnceLock<(Header, Arc<MessageKey>)>,
}

impl Material {
    fn new(key: SecretBytes) -> Self {
        Self { key, message: OnceLock::new() }
    }

    /// What messages under it are encrypted with, kept for the one header that a version has.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn message_key(
        &self,
        vault: VaultId,
        header: &Header,
    ) -> Result<Arc<MessageKey>, CryptoError> {
        if let Some((of, ready)) = self.message.get()
            && of == header
        {
            return Ok(Arc::clone(ready));
        }
        let derived = Arc::new(MessageKey::derive(vault, header, &self.key)?);
        let _kept = self.message.get_or_init(|| (*header, Arc::clone(&derived)));
        Ok(derived)
    }
}

impl Deref for Material {
    type Target = SecretBytes;

    fn deref(&self) -> &SecretBytes {
        &self.key
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Opened keys, by the row that holds each: two halves, the older of which is dropped when the
/// younger is full.
#[derive(Debug, Default)]
pub(super) struct Materials {
    young: HashMap<Id, Held>,
    old: HashMap<Id, Held>,
    /// Counts forgettings, so that what was opened before one is not remembered after it.
    forgotten: u64,
    /// Rows whose key in the HSM was found to be the one that was made there.
    vouched: HashSet<Id>,
}

/// A key, and under whose it is.
type Held = (KeyOwner, Arc<Material>);

impl Materials {
    /// Half of what is held at most.
    const HALF: usize = 5_000;

    fn lookup(&mut self, row: Id, owner: KeyOwner) -> Option<Arc<Material>> {
        let of_owner = |held: &Held| (held.0 == owner).then(|| Arc::clone(&held.1));
        if let Some(held) = self.young.get(&row) {
            return of_owner(held);
        }
        let held = self.old.remove(&row)?;
        let found = of_owner(&held);
        self.put(row, held);
        found
    }

    fn put(&mut self, row: Id, held: Held) {
        if self.young.len() >= Self::HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(row, held);
    }

    /// Forgets the keys of an owner, or all.
    pub(super) fn forget(&mut self, owner: Option<KeyOwner>) {
        self.forgotten = self.forgotten.wrapping_add(1);
        self.vouched.clear();
        for half in [&mut self.young, &mut self.old] {
            half.retain(|_, held| owner.is_some_and(|owner| held.0 != owner));
        }
    }
}

impl Keyring {
    /// Opens a key that [`Keyring::seal_for`] sealed at a place, or gives it as it is kept; tells
    /// the keys that were used to open it.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub async fn material(
        &self,
        reader: &Reader,
        owner: KeyOwner,
        place: &Place,
        key_id: Id,
        blob: &[u8],
    ) -> Result<(Arc<Material>, Vec<KeyUse>)> {
        let open = self.open_state()?;
        let (kept, moment) = {
            let mut kept = open.materials.lock();
            (kept.lookup(place.row, owner), kept.forgotten)
        };
        if let Some(key) = kept {
            return Ok((key, Vec::new()));
        }
        let opened = self.open(reader, owner, place, key_id, blob).await?;
        let key = Arc::new(Material::new(opened.plaintext));
        let mut kept = open.materials.lock();
        if kept.forgotten == moment {
            kept.put(place.row, (owner, Arc::clone(&key)));
        }
        drop(kept);
        Ok((key, opened.used))
    }

    /// Tells whether a row's key in the HSM was found to be the one that was made there.
    ///
    /// # Errors
    /// [`super::KeyringError::Sealed`].
    pub fn is_vouched(&self, row: Id) -> Result<bool> {
        Ok(self.open_state()?.materials.lock().vouched.contains(&row))
    }

    /// Remembers that it was, until the vault is sealed.
    ///
    /// # Errors
    /// [`super::KeyringError::Sealed`].
    pub fn vouch(&self, row: Id) -> Result<()> {
        let open = self.open_state()?;
        let mut kept = open.materials.lock();
        if kept.vouched.len() >= Materials::HALF {
            kept.vouched.clear();
        }
        kept.vouched.insert(row);
        Ok(())
    }

    /// Lends the generator of keys and nonces: the system's, mixed with the HSM's.
    ///
    /// # Errors
    /// [`super::KeyringError::Sealed`].
    pub fn entropy(&self) -> Result<impl Entropy + use<>> {
        Ok(Mixed(self.open_state()?))
    }
}

/// The mixer of an unsealed keyring.
struct Mixed(Arc<Open>);

impl Entropy for Mixed {
    fn fill(&self, buffer: &mut [u8]) -> error::Result<()> {
        self.0.mixer.fill(buffer)
    }
}

impl fmt::Debug for Mixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mixed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IdentityId;

    fn id(n: usize) -> Id {
        Id::from_bytes(u128::try_from(n).unwrap().to_be_bytes())
    }

    #[test]
    fn no_more_than_two_halves_are_held_and_a_forgotten_owner_holds_none() {
        let mut kept = Materials::default();
        let (ours, theirs) = (KeyOwner::System, KeyOwner::Identity(IdentityId(id(1))));
        let key = || Arc::new(Material::new(SecretBytes::new(vec![7; 32])));
        kept.put(id(0), (ours, key()));
        for n in 1..=3 * Materials::HALF {
            kept.put(id(n), (theirs, key()));
            assert!(kept.lookup(id(0), ours).is_some(), "{n}");
            assert!(kept.young.len() + kept.old.len() <= 2 * Materials::HALF);
        }
        assert!(kept.lookup(id(0), theirs).is_none(), "it is not theirs");
        assert!(kept.lookup(id(1), theirs).is_none(), "it fell out");
        kept.forget(Some(theirs));
        assert!(kept.lookup(id(3 * Materials::HALF), theirs).is_none());
        assert!(kept.lookup(id(0), ours).is_some());
        kept.forget(None);
        assert!(kept.lookup(id(0), ours).is_none());
    }
}
