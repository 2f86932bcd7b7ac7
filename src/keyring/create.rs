//! Founding a vault: its keys in the HSM, the key of `system`, and the rows of the first commit.
//!
//! Keys in the token cannot be made together with rows in the store. So the token first notes
//! which vault is being founded; a crash leaves the note, and founding the same vault again with
//! [`OnFound::Resume`] takes over what is there. [`Keyring::founded`] and every unsealing remove
//! the note. A token without data objects keeps no note: there a new vault id is begun, and the
//! half-made keys stay behind unused.

use std::fmt;
use std::sync::Arc;

use super::names::{self, PENDING_LABEL, kinds, label};
use super::unseal::FinalTry;
use super::{HsmKey, KeyUse, Keyring, KeyringError, MasterKeys, NewKey, Open, Result, identity};
use crate::error;
use crate::hsm::{HsmError, KeyInfo};
use crate::store::keys::{
    HsmKeyRow, HsmPurpose, IdentityKeyRow, KeyOwner, KeyState, SEAL_ID, SealRow, VaultRow,
};
use crate::store::{StoreError, Tx};
use crate::types::{Id, SecretBytes, UnixMillis, VaultId};

/// What founding does with keys that are in the token already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFound {
    /// It refuses.
    Refuse,
    /// It takes them over where the token's note says that founding this vault was interrupted.
    Resume,
}

/// What the first commit has to insert.
#[derive(Clone)]
pub struct Genesis {
    vault: VaultRow,
    hsm_keys: Vec<HsmKeyRow>,
    system: NewKey,
    /// The vault's own keys, in force from now on.
    pub keys: MasterKeys,
    /// The keys that were used, for the record.
    pub used: Vec<KeyUse>,
}

impl Genesis {
    /// Keeps the certificate of a CA with its key.
    pub fn set_certificate(&mut self, purpose: HsmPurpose, der: &[u8]) {
        for key in self.hsm_keys.iter_mut().filter(|key| key.purpose == purpose) {
            key.certificate = Some(der.to_vec());
        }
    }

    /// Inserts the rows: vault, seal, keys in the HSM, key of `system`.
    ///
    /// # Errors
    /// [`error::Error::AlreadyExists`] when the store holds a vault.
    pub async fn store(&self, tx: &mut Tx, by: &str) -> error::Result<()> {
        let seal = SealRow { id: SEAL_ID.into(), sealed_at: None, sealed_by: by.to_owned() };
        // First, because every vault has the same key here: a second one finds it taken.
        match tx.insert(&seal).await {
            Err(StoreError::Taken) => {
                return Err(error::Error::AlreadyExists("the store holds a vault already".into()));
            }
            done => drop(done?),
        }
        tx.insert(&self.vault).await?;
        for key in &self.hsm_keys {
            tx.insert(key).await?;
        }
        self.system.store(tx).await
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Genesis").field("vault", &self.vault).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Tells which vault's founding was begun in this token and not finished; logs in for it.
    ///
    /// # Errors
    /// What the HSM answers.
    pub async fn pending(&self, pin: SecretBytes) -> Result<Option<VaultId>> {
        let _gate = self.0.gate.lock().await;
        if !self.is_sealed() {
            return self.pending_vault().await;
        }
        self.log_in(pin, FinalTry::Refuse).await?;
        let pending = self.pending_vault().await;
        self.log_out().await;
        pending
    }

    /// Makes the keys of a vault and unseals the keyring with them; seal it if the commit of
    /// [`Genesis::store`] fails.
    ///
    /// # Errors
    /// [`KeyringError::Unsealed`]; [`KeyringError::Exists`] when the token holds keys of this
    /// vault that are not to be, or may not be, taken over; what the HSM answers.
    pub async fn create(
        &self,
        vault: VaultRow,
        pin: SecretBytes,
        on_found: OnFound,
    ) -> Result<Genesis> {
        let _gate = self.0.gate.lock().await;
        if !self.is_sealed() {
            return Err(KeyringError::Unsealed);
        }
        self.log_in(pin, FinalTry::Refuse).await?;
        let made = self.make_keys(vault, on_found).await;
        match made {
            Ok((genesis, open)) => {
                self.0.sealer.set_key(Some(genesis.keys.row.clone()));
                *self.0.open.write() = Some(Arc::new(open));
                Ok(genesis)
            }
            Err(error) => {
                self.log_out().await;
                Err(error)
            }
        }
    }

    /// Removes the token's note once the first commit is durable.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what the HSM answers.
    pub async fn founded(&self) -> Result<()> {
        let vault = self.open_state()?.vault;
        self.forget_pending(vault).await
    }

    pub(super) async fn forget_pending(&self, vault: VaultId) -> Result<()> {
        if self.pending_vault().await? == Some(vault) {
            self.0.hsm.write_data(PENDING_LABEL, b"").await?;
        }
        Ok(())
    }

    async fn pending_vault(&self) -> Result<Option<VaultId>> {
        let note = match self.0.hsm.read_data(PENDING_LABEL).await {
            Ok(note) => note.unwrap_or_default(),
            Err(HsmError::Unsupported(_)) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        let id = <[u8; 16]>::try_from(note.as_slice()).ok();
        Ok(id.map(|bytes| VaultId(Id::from_bytes(bytes))))
    }

    async fn make_keys(&self, vault: VaultRow, on_found: OnFound) -> Result<(Genesis, Open)> {
        let (id, now) = (vault.id, vault.created_at);
        let resumes = on_found == OnFound::Resume && self.pending_vault().await? == Some(id);
        let mut found = Vec::new();
        for purpose in HsmPurpose::ALL {
            let label = label(id, *purpose, 1);
            let there = self.0.hsm.lookup_key(&label).await?;
            if there.is_some() && !resumes {
                return Err(KeyringError::Exists(label));
            }
            found.push((*purpose, label, there));
        }
        match self.0.hsm.write_data(PENDING_LABEL, id.0.as_bytes()).await {
            Ok(()) | Err(HsmError::Unsupported(_)) => {}
            Err(other) => return Err(other.into()),
        }
        let (mut rows, mut hsm_keys) = (Vec::new(), Vec::new());
        for (purpose, label, there) in found {
            let info = match there {
                Some(info) => info,
                None => self.create_key(purpose, &label).await?,
            };
            let row = row_of(purpose, 1, &info, now);
            hsm_keys.push(HsmKey::verified(id, &row, info)?);
            rows.push(row);
        }
        self.make_system(vault, rows, hsm_keys).await
    }

    /// Makes a key of the best kind that the token has.
    pub(super) async fn create_key(&self, purpose: HsmPurpose, label: &str) -> Result<KeyInfo> {
        let mut lacks = HsmError::Unsupported(format!("a key for `{purpose}`"));
        for kind in kinds(purpose) {
            match self.0.hsm.create_key(label, *kind).await {
                Err(HsmError::Unsupported(what)) => lacks = HsmError::Unsupported(what),
                done => return Ok(done?),
            }
        }
        Err(lacks.into())
    }

    async fn make_system(
        &self,
        vault: VaultRow,
        rows: Vec<HsmKeyRow>,
        hsm_keys: Vec<HsmKey>,
    ) -> Result<(Genesis, Open)> {
        let mixer = self.mixer().await?;
        let row = IdentityKeyRow {
            id: Id::ordered(vault.created_at, &mixer)?,
            owner: KeyOwner::System,
            version: 1,
            state: KeyState::Active,
            created_at: vault.created_at,
        };
        let root = names::newest_active(&hsm_keys, HsmPurpose::Root)?;
        let (key, system) =
            identity::make(self.0.hsm.as_ref(), &mixer, vault.id, (root, &[]), row).await?;
        let keys = MasterKeys::derive(vault.id, &key, system.used.clone())?;
        let used = hsm_keys.iter().map(|key| key.used_for("create")).chain([system.used.clone()]);
        let used = used.collect();
        let open = Open {
            vault: vault.id,
            hsm_keys: parking_lot::RwLock::new(hsm_keys.into()),
            keys: keys.clone(),
            mixer,
            sets: parking_lot::RwLock::default(),
            cache: parking_lot::Mutex::default(),
            materials: parking_lot::Mutex::default(),
        };
        Ok((Genesis { vault, hsm_keys: rows, system, keys, used }, open))
    }
}

pub(super) fn row_of(
    purpose: HsmPurpose,
    version: i64,
    info: &KeyInfo,
    now: UnixMillis,
) -> HsmKeyRow {
    HsmKeyRow {
        id: info.label.clone(),
        purpose,
        version,
        state: KeyState::Active,
        pinned: info.check.clone(),
        certificate: None,
        link: None,
        created_at: now,
    }
}
