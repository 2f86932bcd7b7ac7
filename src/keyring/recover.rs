//! Recovering a vault whose HSM is lost: new keys in a new HSM, and the identity keys opened with the
//! private half of a recovery set in place of the root key that is gone.
//!
//! What is wrapped for the new root before the last commit counts for nothing until then, so that a
//! recovery that was interrupted is begun again.

use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::RwLock;

use super::create::row_of;
use super::identity::wrap_for_root;
use super::sets::{open_wrap, shared_key};
use super::unseal::{FinalTry, checked, read_unchecked};
use super::{
    HsmKey, KeyUse, Keyring, KeyringError, MasterKeys, Open, Recipient, Result, SetKey, SetOpener,
    label,
};
use crate::error;
use crate::store::keys::{
    self, Check, Foundation, HsmKeyRow, HsmPurpose, IdentityKeyRow, KeyState, VaultRow, WrapRow,
};
use crate::store::{Reader, StoreError, Tx, recovery_sets, rotations};
use crate::types::{Rotates, SecretBytes, UnixMillis, VaultId};

/// What a recovery has to commit.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The vault, as it is stored.
    pub vault: VaultRow,
    /// The vault's own keys, in force from now on.
    pub keys: MasterKeys,
    /// What opens the wraps of its keys.
    pub key: SetKey,
    /// Keys of the HSM that is lost.
    retired: Vec<HsmKeyRow>,
    /// Keys of the new one.
    made: Vec<HsmKeyRow>,
    /// The keys that were made, for the record.
    pub used: Vec<KeyUse>,
}

impl Recovered {
    /// Keeps the certificate of a CA with its key.
    pub fn set_certificate(&mut self, purpose: HsmPurpose, der: &[u8]) {
        for key in self.made.iter_mut().filter(|key| key.purpose == purpose) {
            key.certificate = Some(der.to_vec());
        }
    }

    /// Puts the new keys in the place of the old ones; the wraps of the old root go.
    ///
    /// # Errors
    /// [`error::Error::Conflict`] where somebody changed them meanwhile.
    pub async fn store(&self, tx: &mut Tx) -> error::Result<()> {
        for row in &self.retired {
            let found = tx.lookup::<HsmKeyRow>(&row.id).await?.ok_or(StoreError::Stale)?;
            tx.update(found.version, &HsmKeyRow { state: KeyState::Destroyed, ..found.row })
                .await?;
            if row.purpose == HsmPurpose::Root {
                recovery_sets::delete_wraps(tx, &row.id).await?;
            }
        }
        for row in &self.made {
            tx.insert(row).await?;
        }
        Ok(())
    }
}

impl Keyring {
    /// Makes the vault's keys in an HSM that has none of them, and unseals the keyring with them; seal
    /// it if the commit of [`Recovered::store`] fails. Keys that a recovery left there which did not
    /// come to its end are taken over.
    ///
    /// # Errors
    /// [`KeyringError::Exists`] where the HSM holds the root key: nothing is lost;
    /// [`KeyringError::Unfit`] for shares that are not those of the set, and for a token that is not
    /// the set's; [`KeyringError::NoKey`] where the store was not wrapped for it; what store and HSM
    /// answer.
    pub async fn recover(
        &self,
        reader: &Reader,
        opener: &SetOpener,
        pin: SecretBytes,
        now: UnixMillis,
    ) -> Result<Recovered> {
        let _gate = self.0.gate.lock().await;
        if !self.is_sealed() {
            return Err(KeyringError::Unsealed);
        }
        self.log_in(pin, FinalTry::Refuse).await?;
        let recovered = self.recover_keys(reader, opener, now).await;
        if recovered.is_err() {
            self.0.sealer.set_key(None);
            self.log_out().await;
        }
        recovered
    }

    async fn recover_keys(
        &self,
        reader: &Reader,
        opener: &SetOpener,
        now: UnixMillis,
    ) -> Result<Recovered> {
        let (found, wraps) = read_unchecked(reader).await?;
        let vault = found.vault.id;
        // Nothing of it is believed before the key of `system` opens, and with it the rows.
        let sets = wraps.iter().filter_map(|wrap| Recipient::set_of(&wrap.recipient));
        let key = opener.key(vault, &sets.collect::<Vec<_>>()).await?;
        let tried = open_wrap(&key, &found.system, &wraps).await;
        let misplaced = |error: &_| matches!(error, KeyringError::Misplaced(_));
        let told = |error| if misplaced(&error) { unfit() } else { error };
        let system = tried.map_err(told)?;
        let set = Recipient::label(vault, key.set);
        let used = KeyUse { key: set, version: 1, purpose: "unwrap" };
        let keys = MasterKeys::derive(vault, &system, used.clone())?;
        if checked(reader, Check::Trial(keys.row.clone())).await? != found {
            return Err(KeyringError::Unfit("they changed meanwhile".into()));
        }
        self.0.sealer.set_key(Some(keys.row.clone()));
        let sets = super::sets::read(reader, &keys.recovery).await?;
        let public = key.public()?;
        let psk = shared_key(&keys.recovery, key.set);
        if psk != *key.psk() || !sets.contains(&Recipient { set: key.set, public, psk }) {
            return Err(unfit());
        }
        let (made, hsm_keys) = self.new_keys(reader, vault, &found, now).await?;
        let created = hsm_keys.iter().map(|key| key.used_for("create")).chain([used]).collect();
        let open = Open {
            vault,
            hsm_keys: RwLock::new(hsm_keys.into()),
            keys: keys.clone(),
            mixer: self.mixer().await?,
            sets: RwLock::new(Arc::from(sets.as_slice())),
            cache: parking_lot::Mutex::default(),
            materials: parking_lot::Mutex::default(),
        };
        *self.0.open.write() = Some(Arc::new(open));
        let retired = found.hsm_keys.into_iter().filter(is_there).collect();
        Ok(Recovered { vault: found.vault, keys, key, retired, made, used: created })
    }

    async fn new_keys(
        &self,
        reader: &Reader,
        vault: VaultId,
        found: &Foundation,
        now: UnixMillis,
    ) -> Result<(Vec<HsmKeyRow>, Vec<HsmKey>)> {
        for row in found.hsm_keys.iter().filter(|row| is_there(row)) {
            let root = row.purpose == HsmPurpose::Root;
            if root && self.0.hsm.lookup_key(&row.id).await?.is_some() {
                return Err(KeyringError::Exists(row.id.clone()));
            }
        }
        let (mut rows, mut made) = (Vec::new(), Vec::new());
        for purpose in HsmPurpose::ALL {
            let version = next_version(reader, *purpose).await?;
            let label = label(vault, *purpose, version);
            let info = match self.0.hsm.lookup_key(&label).await? {
                Some(info) => info,
                None => self.create_key(*purpose, &label).await?,
            };
            let row = row_of(*purpose, version, &info, now);
            made.push(HsmKey::verified(vault, &row, info)?);
            rows.push(row);
        }
        Ok((rows, made))
    }

    /// Opens keys with the private half of a set and wraps them for the new root key; leaves out what
    /// has no wrap for the set, and counts it.
    ///
    /// # Errors
    /// [`KeyringError::Misplaced`] for a wrap that is not what was made; what store and HSM answer.
    pub async fn wrap_again(
        &self,
        reader: &Reader,
        key: &SetKey,
        rows: &[IdentityKeyRow],
    ) -> Result<(Vec<WrapRow>, u64)> {
        let open = self.open_state()?;
        let root = open.active(HsmPurpose::Root)?;
        let (mut wraps, mut lost) = (Vec::with_capacity(rows.len()), 0_u64);
        for row in rows {
            let id = row.id;
            let view =
                reader.view(move |tx| async move { Ok(keys::wraps_of(tx, id).await?) }.boxed());
            let opened = open_wrap(key, row, &view.await?).await;
            let secret = match opened {
                Ok(secret) => secret,
                Err(KeyringError::NoKey) => {
                    lost = lost.saturating_add(1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let hsm = self.0.hsm.as_ref();
            let wrap = wrap_for_root(hsm, &open.mixer, open.vault, &root, (row, &secret));
            wraps.push(wrap.await?);
        }
        Ok((wraps, lost))
    }
}

/// The number of a purpose's next key: above each that was made, and each that a rotation began to make,
/// because what came to nothing is destroyed by its number.
async fn next_version(reader: &Reader, purpose: HsmPurpose) -> Result<i64> {
    let view = reader.view(move |tx| {
        async move {
            let made = keys::keys_for(tx, purpose).await?;
            let begun = match purpose.as_str().parse::<Rotates>() {
                Ok(subject) => rotations::of_subject(tx, subject, 1).await?,
                Err(_not_rotated) => Vec::new(),
            };
            let made = made.first().map_or(0, |key| key.row.version);
            Ok(begun.first().map_or(made, |rotation| rotation.row.to_version.max(made)))
        }
        .boxed()
    });
    view.await?.checked_add(1).ok_or(KeyringError::NoKey)
}

fn is_there(row: &HsmKeyRow) -> bool {
    row.state != KeyState::Destroyed
}

fn unfit() -> KeyringError {
    KeyringError::Unfit("what was given is not the key of a recovery set of this vault".into())
}
