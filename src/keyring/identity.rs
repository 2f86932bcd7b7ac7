//! Identity keys: made, wrapped for a root key in the HSM, unwrapped, cached.

use std::sync::Arc;

use super::cache::Find;
use super::master::{INFO_DATA_WRAP, Mixer, derive};
use super::{HsmKey, KeyUse, Keyring, KeyringError, Open, Recipient, Result};
use crate::crypto::{
    AssociatedData, Format, SALT_BYTES, SUITE_HMAC_KDF, Subject, kdf_input, unwrap_key, wrap_key,
    wrap_salt,
};
use crate::error;
use crate::hsm::{Hsm, HsmError};
use crate::store::keys::{
    self, HsmKeyRow, HsmPurpose, IdentityKeyRow, KeyOwner, KeyState, WrapRow,
};
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::shreds::ShredRow;
use crate::store::{Reader, StoreError, Tx, Versioned};
use crate::types::{Entropy, Id, SecretBytes, UnixMillis, VaultId};

/// The key that wraps the data keys of an owner, derived from the identity key.
#[derive(Debug)]
pub(super) struct DataWrapKey {
    /// The identity key as the store knows it.
    pub(super) row: Versioned<IdentityKeyRow>,
    pub(super) key: SecretBytes,
}

impl DataWrapKey {
    pub(super) fn used_for(&self, purpose: &'static str) -> KeyUse {
        let IdentityKeyRow { id, version, .. } = &self.row.row;
        KeyUse { key: id.to_string(), version: *version, purpose }
    }
}

/// An identity key that is not in the store yet, with its wraps for the root key and for every
/// recovery set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    pub(super) row: IdentityKeyRow,
    pub(super) wraps: Vec<WrapRow>,
    /// The root key that wrapped it.
    pub used: KeyUse,
}

impl NewKey {
    /// Shows its row.
    #[must_use]
    pub const fn row(&self) -> &IdentityKeyRow {
        &self.row
    }

    /// Inserts it, in the commit of the operation that first needs it.
    ///
    /// # Errors
    /// [`error::Error::Conflict`] when somebody else made this version first, or its root key is gone.
    pub async fn store(&self, tx: &mut Tx) -> error::Result<()> {
        // Who never had a key and was shredded meanwhile gets none.
        if let KeyOwner::Identity(id) = self.row.owner
            && tx.lookup::<ShredRow>(&id).await?.is_some()
        {
            return Err(KeyringError::Shredded.into());
        }
        // Whoever retires a root key looks at its wraps beside nobody: what is written before is seen,
        // what comes after sees the row.
        let root = tx.lookup::<HsmKeyRow>(&self.used.key).await?;
        if root.is_none_or(|root| root.row.state == KeyState::Destroyed) {
            return Err(moved());
        }
        match tx.insert(&self.row).await {
            Ok(_) => {}
            Err(StoreError::Taken) => return Err(moved()),
            Err(other) => return Err(other.into()),
        }
        // A set may have been destroyed since: nothing is wrapped for it any more.
        let sets = if self.wraps.len() > 1 { recovery_sets::active(tx).await? } else { Vec::new() };
        for wrap in &self.wraps {
            let is_there = |id| sets.iter().any(|set: &Versioned<RecoverySetRow>| set.row.id == id);
            if Recipient::set_of(&wrap.recipient).is_none_or(is_there) {
                keys::insert_wrap(tx, wrap).await?;
            }
        }
        Ok(())
    }
}

/// Says that an owner's keys are not what they were: read again.
pub(super) fn moved() -> error::Error {
    error::Error::Conflict("the owner's key was changed by another request".into())
}

/// Says whose key it is, in associated data.
pub(super) fn subject(owner: KeyOwner) -> Subject<'static> {
    match owner {
        KeyOwner::System => Subject::Label("system"),
        KeyOwner::Identity(id) => Subject::Id(id.0),
    }
}

/// Encodes the place of a wrap.
pub(super) fn wrap_aad(vault: VaultId, row: &IdentityKeyRow, root: &HsmKey) -> Vec<u8> {
    wrap_aad_of(vault, row, (&root.label, root.version))
}

/// The same, for any recipient.
pub(super) fn wrap_aad_of(
    vault: VaultId,
    row: &IdentityKeyRow,
    (recipient, version): (&str, i64),
) -> Vec<u8> {
    AssociatedData {
        format: Format::Xaes256Gcm,
        vault,
        table: "key_wraps",
        column: "blob",
        row: row.id.as_bytes(),
        key_owner: subject(row.owner),
        object: Subject::Id(row.id),
        object_version: row.version,
        key: Subject::Label(recipient),
        key_version: version,
    }
    .encode()
}

/// Makes a key and wraps it for a root key and the recovery sets.
pub(super) async fn make(
    hsm: &dyn Hsm,
    mixer: &Mixer,
    vault: VaultId,
    (root, sets): (&HsmKey, &[Recipient]),
    row: IdentityKeyRow,
) -> Result<(SecretBytes, NewKey)> {
    let key = mixer.key()?;
    let mut wraps = vec![wrap_for_root(hsm, mixer, vault, root, (&row, &key)).await?];
    for set in sets {
        wraps.push(set.wrap(vault, &row, &key, mixer)?);
    }
    Ok((key, NewKey { row, wraps, used: root.used_for("wrap") }))
}

/// Wraps a key for a root key in the HSM.
pub(super) async fn wrap_for_root(
    hsm: &dyn Hsm,
    mixer: &Mixer,
    vault: VaultId,
    root: &HsmKey,
    (row, key): (&IdentityKeyRow, &SecretBytes),
) -> Result<WrapRow> {
    let mut salt = [0; SALT_BYTES];
    mixer.fill(&mut salt)?;
    let aad = wrap_aad(vault, row, root);
    let wrapping_key = hsm.hmac(&root.label, &kdf_input(&aad, &salt)).await?;
    let blob = wrap_key(&wrapping_key, &salt, &aad, key, mixer)?;
    let recipient = root.label.clone();
    Ok(WrapRow { key_id: row.id, recipient, suite: SUITE_HMAC_KDF, blob })
}

/// Unwraps a key with the first wrap that one of our root keys can open.
///
/// # Errors
/// [`KeyringError::NoKey`] when no wrap is for us, [`KeyringError::UnknownSuite`],
/// [`KeyringError::Misplaced`] when it belongs to another key, owner or root.
pub(super) async fn unwrap(
    hsm: &dyn Hsm,
    vault: VaultId,
    hsm_keys: &[HsmKey],
    row: &IdentityKeyRow,
    wraps: &[WrapRow],
) -> Result<(SecretBytes, KeyUse)> {
    let ours = wraps.iter().find_map(|wrap| {
        let root = |key: &&HsmKey| key.purpose == HsmPurpose::Root && key.label == wrap.recipient;
        hsm_keys.iter().find(root).map(|root| (wrap, root))
    });
    let (wrap, root) = ours.ok_or(KeyringError::NoKey)?;
    if wrap.suite != SUITE_HMAC_KDF {
        return Err(KeyringError::UnknownSuite(wrap.suite));
    }
    let misplaced = |error| KeyringError::opening(error, || format!("the wrap of key {}", row.id));
    let aad = wrap_aad(vault, row, root);
    let salt = wrap_salt(&wrap.blob).map_err(misplaced)?;
    let wrapping_key = hsm.hmac(&root.label, &kdf_input(&aad, salt)).await?;
    let key = unwrap_key(&wrapping_key, &aad, &wrap.blob).map_err(misplaced)?;
    Ok((key, root.used_for("unwrap")))
}

impl Keyring {
    /// Makes the next version of an owner's key. It becomes true when a commit stores it.
    ///
    /// [`Keyring::seal_for`] does this by itself for an owner that has no key yet.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what store and HSM answer.
    pub async fn new_identity_key(
        &self,
        reader: &Reader,
        owner: KeyOwner,
        now: UnixMillis,
    ) -> Result<NewKey> {
        let open = self.open_state()?;
        let newest = reader.view(move |tx| Box::pin(async move { newest(tx, owner).await }));
        let version = newest.await?.checked_add(1).ok_or(KeyringError::NoKey)?;
        Ok(self.make_key(&open, reader, (owner, version), now).await?.1)
    }

    pub(super) async fn make_key(
        &self,
        open: &Open,
        reader: &Reader,
        (owner, version): (KeyOwner, i64),
        now: UnixMillis,
    ) -> Result<(DataWrapKey, NewKey)> {
        let id = Id::ordered(now, &open.mixer)?;
        let row = IdentityKeyRow { id, owner, version, state: KeyState::Active, created_at: now };
        let root = self.current_root(open, reader).await?;
        let sets = Arc::clone(&*open.sets.read());
        let hsm = self.0.hsm.as_ref();
        let made = make(hsm, &open.mixer, open.vault, (&root, &*sets), row.clone()).await?;
        let key = derive(open.vault, &made.0, INFO_DATA_WRAP)?;
        Ok((DataWrapKey { row: Versioned { row, version: 1 }, key }, made.1))
    }

    /// The root key that new wraps are made for, as the store has it now: another node may have made
    /// it a moment ago.
    async fn current_root(&self, open: &Open, reader: &Reader) -> Result<HsmKey> {
        let view = reader
            .view(|tx| Box::pin(async move { Ok(keys::current_of(tx, HsmPurpose::Root).await?) }));
        let current = view.await?.ok_or_else(|| KeyringError::Unfit("no root key".into()))?;
        let root = open.active(HsmPurpose::Root)?;
        if root.label == current.row.id {
            return Ok(root);
        }
        self.refresh(reader).await?;
        open.active(HsmPurpose::Root)
    }

    /// Finds a key, in the cache or in the store; tells the root key where it was unwrapped.
    pub(super) async fn find_key(
        &self,
        open: &Open,
        reader: &Reader,
        find: Find,
    ) -> Result<Option<(Arc<DataWrapKey>, Option<KeyUse>)>> {
        // Before the row is read: what is kept may be newer than its epoch, never older.
        let epoch = reader.epoch_seen();
        let (cached, moment) = {
            let mut cache = open.cache.lock();
            (cache.lookup(find, epoch), cache.moment())
        };
        if let Some(key) = cached {
            return Ok(Some((key, None)));
        }
        let Some((row, wraps)) = read_key(reader, find).await? else {
            return Ok(None);
        };
        if row.row.state == KeyState::Destroyed {
            return Err(destroyed(reader, row.row.owner).await?);
        }
        let id = Find::Id(row.row.id);
        let opened = open.cache.lock().lookup(id, epoch).filter(|key| key.row == row);
        if let Some(key) = opened {
            open.cache.lock().remember((moment, epoch), find, &key);
            return Ok(Some((key, None)));
        }
        let Some((key, used)) = self.unwrap_read(open, reader, (&row.row, wraps)).await? else {
            return Ok(None);
        };
        let key = derive(open.vault, &key, INFO_DATA_WRAP)?;
        let key = Arc::new(DataWrapKey { row, key });
        let mut cache = open.cache.lock();
        cache.remember((moment, epoch), find, &key);
        cache.remember((moment, epoch), id, &key);
        Ok(Some((key, Some(used))))
    }

    /// Unwraps a key that was read. Its wrap may be for a root key that this node has not heard of, or
    /// may have been moved to another since it was read, and the old one destroyed: then both are
    /// looked at once more.
    pub(super) async fn unwrap_read(
        &self,
        open: &Open,
        reader: &Reader,
        (row, wraps): (&IdentityKeyRow, Vec<WrapRow>),
    ) -> Result<Option<(SecretBytes, KeyUse)>> {
        let hsm = self.0.hsm.as_ref();
        match unwrap(hsm, open.vault, &open.hsm_keys(), row, &wraps).await {
            Err(KeyringError::NoKey | KeyringError::Hsm(HsmError::KeyMissing(_))) => {}
            done => return done.map(Some),
        }
        self.refresh(reader).await?;
        let Some((again, wraps)) = read_key(reader, Find::Id(row.id)).await? else {
            return Ok(None);
        };
        if again.row != *row {
            return Err(KeyringError::NoKey);
        }
        unwrap(hsm, open.vault, &open.hsm_keys(), row, &wraps).await.map(Some)
    }
}

/// Why a key is destroyed: its owner was shredded, or all that was under it is under a newer version.
async fn destroyed(reader: &Reader, owner: KeyOwner) -> Result<KeyringError> {
    let KeyOwner::Identity(id) = owner else { return Ok(KeyringError::NoKey) };
    let view =
        reader.view(move |tx| Box::pin(async move { Ok(tx.lookup::<ShredRow>(&id).await?) }));
    let shredded = view.await?.is_some();
    Ok(if shredded { KeyringError::Shredded } else { KeyringError::NoKey })
}

async fn read_key(
    reader: &Reader,
    find: Find,
) -> Result<Option<(Versioned<IdentityKeyRow>, Vec<WrapRow>)>> {
    let view = reader.view(move |tx| Box::pin(async move { Ok(read(tx, find).await?) }));
    Ok(view.await?)
}

async fn read(
    tx: &mut Tx,
    find: Find,
) -> Result<Option<(Versioned<IdentityKeyRow>, Vec<WrapRow>)>, StoreError> {
    let row = match find {
        Find::Current(owner) => keys::current_key(tx, owner).await?,
        Find::Id(id) => tx.lookup::<IdentityKeyRow>(&id).await?,
    };
    let Some(row) = row else {
        return Ok(None);
    };
    let wraps = keys::wraps_of(tx, row.row.id).await?;
    Ok(Some((row, wraps)))
}

/// The newest version of an owner's keys, whatever its state; 0 where there is none.
async fn newest(tx: &mut Tx, owner: KeyOwner) -> error::Result<i64> {
    Ok(keys::newest_key(tx, owner).await?.map_or(0, |key| key.row.version))
}
