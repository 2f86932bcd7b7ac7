//! Unsealing: the chain from the HSM to the rows, checked link by link before it is in force.

use std::sync::Arc;

use super::master::Mixer;
use super::{HsmKey, Keyring, KeyringError, MasterKeys, Open, Result, identity, names};
use crate::store::Reader;
use crate::store::keys::{self, Check, Foundation, HsmPurpose, KeyOwner, KeyState, WrapRow};
use crate::types::SecretBytes;

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
    pub async fn unseal(&self, reader: &Reader, pin: SecretBytes) -> Result<MasterKeys> {
        let _gate = self.0.gate.lock().await;
        if let Ok(open) = self.open_state() {
            return Ok(open.keys.clone());
        }
        self.0.hsm.login(pin).await?;
        let unsealed = self.check_chain(reader).await;
        if let Err(error) = unsealed {
            self.0.sealer.set_key(None);
            self.log_out().await;
            return Err(error);
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
            let info = self.0.hsm.lookup_key(&row.id).await?;
            let info = info.ok_or_else(|| KeyringError::Replaced(row.id.clone()))?;
            hsm_keys.push(HsmKey::verified(vault, row, info)?);
        }
        for purpose in HsmPurpose::ALL {
            names::newest_active(&hsm_keys, *purpose)?;
        }
        if read.system.owner != KeyOwner::System {
            return Err(KeyringError::Unfit("the key of `system`".into()));
        }
        let hsm = self.0.hsm.as_ref();
        let (key, _used) = identity::unwrap(hsm, vault, &hsm_keys, &read.system, &wraps).await?;
        let keys = MasterKeys::derive(vault, &key)?;

        // What was believed so far must be what was sealed, before the key is in force.
        if checked(reader, Check::Trial(keys.row.clone())).await? != read {
            return Err(KeyringError::Unfit("they changed meanwhile".into()));
        }
        let mixer = self.mixer().await?;
        self.0.sealer.set_key(Some(keys.row.clone()));
        // And no older than what this process saw before it was sealed.
        if checked(reader, Check::InForce).await? != read {
            return Err(KeyringError::Unfit("they changed meanwhile".into()));
        }
        self.forget_pending(vault).await?;
        let cache = parking_lot::Mutex::default();
        let open = Open { vault, hsm_keys, keys: keys.clone(), mixer, cache };
        *self.0.open.write() = Some(Arc::new(open));
        Ok(keys)
    }
}

async fn read_unchecked(reader: &Reader) -> Result<(Foundation, Vec<WrapRow>)> {
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

async fn checked(reader: &Reader, check: Check) -> Result<Foundation> {
    let view =
        reader.view(move |tx| Box::pin(async move { Ok(keys::foundation(tx, &check).await) }));
    view.await??.ok_or(KeyringError::NotFounded)
}
