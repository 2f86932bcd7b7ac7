//! Data under its owner's key: a fresh data key for each message, wrapped by the owner's key.
//!
//! The data key's wrap is bound to owner and key; the message to its place only, so that a
//! transfer to another owner wraps the data key again and leaves the message alone.

use std::sync::Arc;

use super::cache::Find;
use super::identity::{DataWrapKey, NewKey, moved, subject};
use super::master::{KEY_BYTES, fresh_key};
use super::{KeyUse, Keyring, KeyringError, Open, Result};
use crate::crypto::{self, AssociatedData, CryptoError, Format, OVERHEAD_BYTES, Subject};
use crate::error;
use crate::store::keys::{self, IdentityKeyRow, KeyOwner, KeyState};
use crate::store::{Reader, RowRef, Tx};
use crate::types::{Entropy, Id, SecretBytes, UnixMillis, VaultId};

/// First byte of a blob: the layout that follows.
pub(super) const LAYOUT: u8 = 1;
/// Length of a wrapped data key, in bytes.
const WRAP_BYTES: usize = KEY_BYTES + OVERHEAD_BYTES;
/// Length of what stands before the message: layout and wrap.
pub(super) const PART_BYTES: usize = 1 + WRAP_BYTES;
/// Stands for owner and key in the message's associated data.
const DATA_KEY: Subject<'static> = Subject::Label("data");

/// Where a ciphertext belongs. Names never enter: they may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The row's id.
    pub row: Id,
    /// The object that the value is part of.
    pub object: Id,
    /// The object's version.
    pub object_version: i64,
}

/// A sealed value on its way to the store. The blob comes out by [`SealedValue::store`] alone,
/// so that no blob is kept whose key is not.
#[derive(Debug, Clone)]
#[must_use]
pub struct SealedValue {
    blob: Vec<u8>,
    key: KeyRef,
    used: Vec<KeyUse>,
    keyring: Keyring,
}

/// The owner's key that something was sealed under.
#[derive(Debug, Clone)]
pub(super) enum KeyRef {
    New(Box<NewKey>),
    Known(RowRef, Id, KeyOwner),
}

impl KeyRef {
    /// Points at the key, where it is not new.
    pub(super) const fn fence(&self) -> Option<&RowRef> {
        match self {
            Self::New(_) => None,
            Self::Known(fence, ..) => Some(fence),
        }
    }

    /// Inserts the key if it is new, or makes sure that it is still active.
    pub(super) async fn store(&self, keyring: &Keyring, tx: &mut Tx) -> error::Result<Id> {
        match self {
            Self::New(new) => {
                new.store(tx).await?;
                Ok(new.row.id)
            }
            Self::Known(fence, id, owner) => {
                let row = tx.lookup::<IdentityKeyRow>(id).await?;
                let stands = row.is_some_and(|row| {
                    row.version == fence.version && row.row.state == KeyState::Active
                });
                if !stands {
                    keyring.forget(*owner);
                    return Err(moved());
                }
                Ok(*id)
            }
        }
    }
}

/// What is to be written of a sealed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The blob.
    pub blob: &'a [u8],
    /// The owner's key that it is under; opening asks for it.
    pub key_id: Id,
}

impl<'a> Stored<'a> {
    /// Parts the blob into the wrap of its data key and the message, for who keeps them apart.
    /// Joined again they are the blob.
    ///
    /// # Errors
    /// [`error::Error::Internal`] for a blob that was cut off, which sealing excludes.
    pub fn parts(&self) -> error::Result<(&'a [u8], &'a [u8])> {
        let parted = self.blob.split_at_checked(PART_BYTES);
        parted.ok_or_else(|| error::Error::internal("a blob without its message"))
    }
}

impl SealedValue {
    /// Inserts the owner's key if it is new, or makes sure that it is still active, and gives the
    /// blob.
    ///
    /// # Errors
    /// [`error::Error::Conflict`] when the owner's keys were changed meanwhile.
    pub async fn store(&self, tx: &mut Tx) -> error::Result<Stored<'_>> {
        let key_id = self.key.store(&self.keyring, tx).await?;
        Ok(Stored { blob: &self.blob, key_id })
    }

    /// Lists the keys that were used, for the record.
    #[must_use]
    pub fn used(&self) -> &[KeyUse] {
        &self.used
    }

    /// Points at the owner's key, where it was there already.
    #[must_use]
    pub const fn fence(&self) -> Option<&RowRef> {
        self.key.fence()
    }
}

/// The key that new data of an owner goes under.
pub(super) struct Target {
    pub(super) wrap_key: Arc<DataWrapKey>,
    pub(super) key: KeyRef,
    pub(super) used: Vec<KeyUse>,
}

/// An opened value.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The plaintext.
    pub plaintext: SecretBytes,
    /// The keys that were used, for the record.
    pub used: Vec<KeyUse>,
}

impl Keyring {
    /// Encrypts for an owner; makes the owner's first key where there is none.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`]; [`KeyringError::NoKey`] when the owner's keys are all retired,
    /// [`KeyringError::Shredded`] when they were destroyed; what store and HSM answer.
    pub async fn seal_for(
        &self,
        reader: &Reader,
        owner: KeyOwner,
        place: &Place,
        plaintext: &SecretBytes,
        now: UnixMillis,
    ) -> Result<SealedValue> {
        let open = self.open_state()?;
        let target = self.target(&open, reader, owner, now).await?;
        let blob = seal_with(&open, &target.wrap_key, place, plaintext)?;
        Ok(SealedValue { blob, key: target.key, used: target.used, keyring: self.clone() })
    }

    /// Finds the key that new data of an owner goes under, or makes the owner's first.
    pub(super) async fn target(
        &self,
        open: &Open,
        reader: &Reader,
        owner: KeyOwner,
        now: UnixMillis,
    ) -> Result<Target> {
        let found = self.find_key(open, reader, Find::Current(owner)).await?;
        if let Some((wrap_key, unwrapped)) = found {
            let used = unwrapped.into_iter().chain([wrap_key.used_for("encrypt")]).collect();
            let key = KeyRef::Known(wrap_key.row.fence(), wrap_key.row.row.id, owner);
            return Ok(Target { wrap_key, key, used });
        }
        let view =
            reader.view(move |tx| Box::pin(async move { Ok(keys::newest_key(tx, owner).await?) }));
        if let Some(newest) = view.await? {
            let destroyed = newest.row.state == KeyState::Destroyed;
            return Err(if destroyed { KeyringError::Shredded } else { KeyringError::NoKey });
        }
        let (wrap_key, new) = self.make_key(open, reader, (owner, 1), now).await?;
        let used = vec![new.used.clone(), wrap_key.used_for("encrypt")];
        Ok(Target { wrap_key: Arc::new(wrap_key), key: KeyRef::New(Box::new(new)), used })
    }

    /// Decrypts what [`Keyring::seal_for`] made.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`]; [`KeyringError::NoKey`] when the key is gone,
    /// [`KeyringError::Shredded`] when it was destroyed; [`KeyringError::Misplaced`] when the blob belongs to another place, owner or key.
    pub async fn open(
        &self,
        reader: &Reader,
        owner: KeyOwner,
        place: &Place,
        key_id: Id,
        blob: &[u8],
    ) -> Result<Opened> {
        let open = self.open_state()?;
        let found = self.find_key(&open, reader, Find::Id(key_id)).await?;
        let (key, unwrapped) = found.ok_or(KeyringError::NoKey)?;
        let what = || {
            let Place { table, column, row, .. } = place;
            format!("{column} of row {row} of {table}")
        };
        if key.row.row.owner != owner {
            return Err(KeyringError::Misplaced(what()));
        }
        let aad = Aads::of(open.vault, &key.row.row, place);
        let plaintext =
            open_value(&key.key, &aad, blob).map_err(|error| KeyringError::opening(error, what))?;
        let used = unwrapped.into_iter().chain([key.used_for("decrypt")]).collect();
        Ok(Opened { plaintext, used })
    }
}

fn seal_with(
    open: &Open,
    key: &DataWrapKey,
    place: &Place,
    plaintext: &SecretBytes,
) -> Result<Vec<u8>> {
    let aad = Aads::of(open.vault, &key.row.row, place);
    seal_value(&key.key, &aad, plaintext, &open.mixer)
}

/// The associated data of both halves of a blob.
pub(super) struct Aads {
    pub(super) wrap: Vec<u8>,
    pub(super) message: Vec<u8>,
}

impl Aads {
    pub(super) fn of(vault: VaultId, key: &IdentityKeyRow, place: &Place) -> Self {
        let wrap = AssociatedData {
            format: Format::Xaes256Gcm,
            vault,
            table: place.table,
            column: place.column,
            row: place.row.as_bytes(),
            key_owner: subject(key.owner),
            object: Subject::Id(place.object),
            object_version: place.object_version,
            key: Subject::Id(key.id),
            key_version: key.version,
        };
        let message = AssociatedData { key_owner: DATA_KEY, key: DATA_KEY, key_version: 1, ..wrap };
        Self { wrap: wrap.encode(), message: message.encode() }
    }
}

/// Seals under a fresh data key: layout ‖ wrap of the data key ‖ message.
pub(super) fn seal_value(
    wrap_key: &SecretBytes,
    aad: &Aads,
    plaintext: &SecretBytes,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let data_key = fresh_key(entropy)?;
    let wrap = crypto::seal(wrap_key, &aad.wrap, data_key.expose(), entropy)?;
    let message = crypto::seal(&data_key, &aad.message, plaintext.expose(), entropy)?;
    Ok([[LAYOUT].as_slice(), &wrap, &message].concat())
}

pub(super) fn open_value(
    wrap_key: &SecretBytes,
    aad: &Aads,
    blob: &[u8],
) -> Result<SecretBytes, CryptoError> {
    let (layout, rest) = blob.split_first().ok_or(CryptoError::Open)?;
    if *layout != LAYOUT {
        return Err(CryptoError::Open);
    }
    let (wrap, message) = rest.split_first_chunk::<WRAP_BYTES>().ok_or(CryptoError::Open)?;
    let data_key = crypto::open(wrap_key, &aad.wrap, wrap)?;
    crypto::open(&data_key, &aad.message, message)
}
