//! Data keys wrapped again: for another owner, or for the owner's newest key. The messages stay as they
//! are.

use super::cache::Find;
use super::data::{Aads, KeyRef, LAYOUT, PART_BYTES, Place};
use super::{KeyUse, Keyring, KeyringError, Result};
use crate::crypto;
use crate::error;
use crate::store::keys::KeyOwner;
use crate::store::{Reader, RowRef, Tx};
use crate::types::{Id, UnixMillis};

/// A wrapped data key, as [`super::Stored::parts`] gave it.
#[derive(Debug, Clone)]
pub struct Wrapped {
    /// Where its message belongs.
    pub place: Place,
    /// The owner's key that it is wrapped with.
    pub key_id: Id,
    /// The wrap.
    pub wrap: Vec<u8>,
}

/// Data keys that are wrapped for another owner, in the order in which they came. The wraps come out
/// by [`Rewrapped::store`] alone.
#[derive(Debug, Clone)]
#[must_use]
pub struct Rewrapped {
    wraps: Vec<Vec<u8>>,
    key: KeyRef,
    used: Vec<KeyUse>,
    keyring: Keyring,
}

impl Rewrapped {
    /// Inserts the new owner's key if it is new, or makes sure that it is still active, and gives
    /// its id and the wraps.
    ///
    /// # Errors
    /// [`error::Error::Conflict`] when the owner's keys were changed meanwhile.
    pub async fn store(&self, tx: &mut Tx) -> error::Result<(Id, &[Vec<u8>])> {
        Ok((self.key.store(&self.keyring, tx).await?, &self.wraps))
    }

    /// Points at the key that they are wrapped with now, where it was there already.
    #[must_use]
    pub const fn fence(&self) -> Option<&RowRef> {
        self.key.fence()
    }

    /// Lists the keys that were used, for the record.
    #[must_use]
    pub fn used(&self) -> &[KeyUse] {
        &self.used
    }
}

impl Keyring {
    /// Wraps data keys of one owner for another.
    ///
    /// # Errors
    /// As [`Keyring::open`] and [`Keyring::seal_for`].
    pub async fn rewrap(
        &self,
        reader: &Reader,
        (from, to): (KeyOwner, KeyOwner),
        wrapped: &[Wrapped],
        now: UnixMillis,
    ) -> Result<Rewrapped> {
        let open = self.open_state()?;
        let target = self.target(&open, reader, to, now).await?;
        let (mut wraps, mut used) = (Vec::with_capacity(wrapped.len()), target.used);
        for Wrapped { place, key_id, wrap } in wrapped {
            let what = || {
                let Place { table, column, row, .. } = place;
                format!("{column} of row {row} of {table}")
            };
            let found = self.find_key(&open, reader, Find::Id(*key_id)).await?;
            let (key, unwrapped) = found.ok_or(KeyringError::NoKey)?;
            let whole = wrap.len() == PART_BYTES && key.row.row.owner == from;
            let Some((&LAYOUT, sealed)) = wrap.split_first().filter(|_| whole) else {
                return Err(KeyringError::Misplaced(what()));
            };
            let was = Aads::of(open.vault, &key.row.row, place);
            let data_key = crypto::open(&key.key, &was.wrap, sealed)
                .map_err(|error| KeyringError::opening(error, what))?;
            let is = Aads::of(open.vault, &target.wrap_key.row.row, place);
            let again =
                crypto::seal(&target.wrap_key.key, &is.wrap, data_key.expose(), &open.mixer)?;
            wraps.push([[LAYOUT].as_slice(), &again].concat());
            for one in unwrapped.into_iter().chain([key.used_for("decrypt")]) {
                if !used.contains(&one) {
                    used.push(one);
                }
            }
        }
        Ok(Rewrapped { wraps, key: target.key, used, keyring: self.clone() })
    }
}
