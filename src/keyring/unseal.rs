//! Unsealing: the chain from the HSM to the rows, checked link by link before it is in force.

use std::sync::Arc;

use parking_lot::RwLock;

use super::master::Mixer;
use super::{Keyring, KeyringError, MasterKeys, Open, Result, identity, names};
use crate::hsm::HsmError;
use crate::store::keys::{self, Check, Foundation, HsmPurpose, KeyOwner, KeyState, WrapRow};
use crate::store::{Reader, RowSealer};
use crate::types::SecretBytes;

/// Whether the PIN is tried when the token warns that one more wrong one locks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalTry {
    /// No.
    Refuse,
    /// Yes: an operator asked for it by name.
    Force,
}

/// Takes the row key back unless the unsealing came to its end.
struct Trial<'a> {
    sealer: &'a RowSealer,
    stays: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.sealer.set_key(None);
        }
    }
}

/// Why rows that were believed are not.
const CHANGED: &str = "they changed meanwhile";

/// Tells whether an unsealing may have come between two steps of another node, and is tried again. What
/// was replaced by hand is replaced still.
fn may_have_changed(error: &KeyringError) -> bool {
    match error {
        KeyringError::Unfit(what) => what == CHANGED,
        KeyringError::Replaced(_)
        | KeyringError::NoKey
        | KeyringError::Hsm(HsmError::KeyMissing(_)) => true,
        KeyringError::Sealed
        | KeyringError::Unsealed
        | KeyringError::NotFounded
        | KeyringError::Exists(_)
        | KeyringError::Misplaced(_)
        | KeyringError::Shredded
        | KeyringError::UnknownSuite(_)
        | KeyringError::Hsm(_)
        | KeyringError::Store(_)
        | KeyringError::Crypto(_)
        | KeyringError::Other(_) => false,
    }
}

/// Random bytes that the HSM gives at unsealing.
const SEED_BYTES: usize = 32;

impl Keyring {
    /// Unseals: logs in, compares every key's pin, unwraps the key of `system`, derives the
    /// vault's own keys, verifies with them the rows that all of this stood on, and only then puts
    /// them in force. On any error the HSM is logged out and the keyring stays sealed.
    ///
    /// An unsealed keyring answers its keys again and tries no PIN. Whether a `seal` is on record
    /// is the caller's to ask first ([`keys::seal_on_record`]).
    ///
    /// # Errors
    /// [`KeyringError::Hsm`] with the HSM's refusal of the PIN, which must not be tried again;
    /// [`KeyringError::Replaced`], [`KeyringError::Unfit`], [`KeyringError::Misplaced`] and
    /// `Store(Tampered)` when something is not what it was, all of them alarms;
    /// [`KeyringError::NotFounded`].
    pub async fn unseal(
        &self,
        reader: &Reader,
        pin: SecretBytes,
        final_try: FinalTry,
    ) -> Result<MasterKeys> {
        let _gate = self.0.gate.lock().await;
        if let Ok(open) = self.open_state() {
            return Ok(open.keys.clone());
        }
        self.log_in(pin, final_try).await?;
        let mut unsealed = self.check_chain(reader).await;
        // Another node may have rotated a key at this moment, or destroyed one that was retired.
        if unsealed.as_ref().is_err_and(may_have_changed) {
            unsealed = self.check_chain(reader).await;
        }
        if unsealed.is_err() {
            self.log_out().await;
        }
        unsealed
    }

    /// Seals: forgets every key, takes the row key back and logs the HSM out. Calls that hold a
    /// key already end with it, and then it is wiped.
    ///
    /// # Errors
    /// [`KeyringError::Hsm`] when the HSM could not be logged out; the keys are gone all the same.
    pub async fn seal(&self) -> Result<()> {
        let _gate = self.0.gate.lock().await;
        self.0.sealer.set_key(None);
        drop(self.0.open.write().take());
        Ok(self.0.hsm.logout().await?)
    }

    /// Logs in. Out first, so that a PIN is never taken for right because an unsealing that was
    /// given up half way had logged in before.
    pub(super) async fn log_in(&self, pin: SecretBytes, final_try: FinalTry) -> Result<()> {
        self.log_out().await;
        match final_try {
            FinalTry::Refuse => self.0.hsm.login(pin).await?,
            FinalTry::Force => self.0.hsm.login_forced(pin).await?,
        }
        Ok(())
    }

    /// Logs out where an error is on its way already.
    pub(super) async fn log_out(&self) {
        if let Err(error) = self.0.hsm.logout().await {
            tracing::warn!(%error, "the HSM could not be logged out");
        }
    }

    pub(super) async fn mixer(&self) -> Result<Mixer> {
        let seed = self.0.hsm.random(SEED_BYTES).await?;
        Ok(Mixer::new(Arc::clone(&self.0.entropy), seed))
    }

    async fn check_chain(&self, reader: &Reader) -> Result<MasterKeys> {
        let (read, wraps) = read_unchecked(reader).await?;
        let vault = read.vault.id;
        let mut hsm_keys = Vec::with_capacity(read.hsm_keys.len());
        for row in read.hsm_keys.iter().filter(|row| row.state != KeyState::Destroyed) {
            hsm_keys.push(self.verified(vault, row).await?);
        }
        for purpose in HsmPurpose::ALL {
            names::newest_active(&hsm_keys, *purpose)?;
        }
        if read.system.owner != KeyOwner::System {
            return Err(KeyringError::Unfit("the key of `system`".into()));
        }
        let hsm = self.0.hsm.as_ref();
        let (key, used) = identity::unwrap(hsm, vault, &hsm_keys, &read.system, &wraps).await?;
        let keys = MasterKeys::derive(vault, &key, used)?;

        // What was believed so far must be what was sealed, before the key is in force.
        if checked(reader, Check::Trial(keys.row.clone())).await? != read {
            return Err(KeyringError::Unfit(CHANGED.into()));
        }
        let mixer = self.mixer().await?;
        let mut trial = Trial { sealer: &self.0.sealer, stays: false };
        self.0.sealer.set_key(Some(keys.row.clone()));
        // And no older than what this process saw before it was sealed.
        if checked(reader, Check::InForce).await? != read {
            return Err(KeyringError::Unfit(CHANGED.into()));
        }
        self.forget_pending(vault).await?;
        let sets = RwLock::new(super::sets::read(reader, &keys.recovery).await?.into());
        let (cache, materials) = Default::default();
        let hsm_keys = RwLock::new(hsm_keys.into());
        let open = Open { vault, hsm_keys, keys: keys.clone(), mixer, sets, cache, materials };
        *self.0.open.write() = Some(Arc::new(open));
        trial.stays = true;
        Ok(keys)
    }
}

pub(super) async fn read_unchecked(reader: &Reader) -> Result<(Foundation, Vec<WrapRow>)> {
    let view = reader.view(|tx| {
        Box::pin(async move {
            let Some(found) = keys::foundation(tx, &Check::Nothing).await? else {
                return Ok(None);
            };
            let wraps = keys::wraps_of(tx, found.system.id).await?;
            Ok(Some((found, wraps)))
        })
    });
    view.await?.ok_or(KeyringError::NotFounded)
}

pub(super) async fn checked(reader: &Reader, check: Check) -> Result<Foundation> {
    let view =
        reader.view(move |tx| Box::pin(async move { Ok(keys::foundation(tx, &check).await) }));
    view.await??.ok_or(KeyringError::NotFounded)
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::super::KeyUse;
    use super::super::cache::Find;
    use super::super::identity::DataWrapKey;
    use super::*;
    use crate::hsm::{Hsm, MemoryHsm};
    use crate::store::Versioned;
    use crate::store::keys::IdentityKeyRow;
    use crate::types::{Id, SystemEntropy, UnixMillis, VaultId};

    #[tokio::test]
    async fn sealing_leaves_no_key_in_memory_but_with_calls_that_hold_one() {
        let hsm = Arc::new(MemoryHsm::unsealed());
        let keyring = Keyring::new(hsm.clone(), Arc::new(SystemEntropy), Arc::default());
        let secret = SecretBytes::new(vec![7; 32]);
        let vault = VaultId(Id::from_bytes([1; 16]));
        let root = KeyUse { key: "root".into(), version: 1, purpose: "unwrap" };
        let open = Arc::new(Open {
            vault,
            hsm_keys: RwLock::new(Arc::new([])),
            keys: MasterKeys::derive(vault, &secret, root).unwrap(),
            mixer: keyring.mixer().await.unwrap(),
            sets: RwLock::default(),
            cache: parking_lot::Mutex::default(),
            materials: parking_lot::Mutex::default(),
        });
        let row = IdentityKeyRow {
            id: Id::from_bytes([2; 16]),
            owner: KeyOwner::System,
            version: 1,
            state: KeyState::Active,
            created_at: UnixMillis(0),
        };
        let key = Arc::new(DataWrapKey { row: Versioned { row, version: 1 }, key: secret });
        open.cache.lock().remember((0, 0), Find::Current(KeyOwner::System), &key);
        let (cached, all): (Weak<_>, Weak<_>) = (Arc::downgrade(&key), Arc::downgrade(&open));
        drop(key);
        *keyring.0.open.write() = Some(open);

        let call = keyring.open_state().unwrap();
        keyring.seal().await.unwrap();
        assert!(keyring.is_sealed());
        assert!(all.upgrade().is_some(), "a call holds it");
        drop(call);
        assert!(all.upgrade().is_none() && cached.upgrade().is_none());
        assert_eq!(hsm.random(1).await, Err(HsmError::LoggedOut));
    }
}
