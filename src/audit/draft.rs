//! An entry before its ending: what may have to be erased is added to it, then it is joined.

use std::borrow::Cow;

use minicbor::Encoder;

use super::entry::{Ending, Field, SALT_BYTES, Written, commitment, count, write_side_value};
use crate::error::{Error, Result};
use crate::store::Entry;
use crate::types::Entropy;

/// Largest entry, in bytes (C2SP tlog-tiles entry bundles have 16-bit lengths).
const ENTRY_BYTES: usize = 65_535;
/// Room for an ending without changes, in bytes.
const ENDING_BYTES: usize = 96;
/// Room for the head of an array, in bytes.
const HEAD_BYTES: usize = 9;

/// An entry of which all is encoded but its ending: hashed and encoded where the caller waits, so
/// that the one thread that commits only joins bytes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What stands before the ending.
    head: Vec<u8>,
    /// Commitments, and what they commit to: how many, each without the head of its array.
    private: u64,
    committed: Vec<u8>,
    side: Vec<u8>,
    /// What follows the commitments.
    tail: Vec<u8>,
}

impl Draft {
    /// Begins one with what stands before the ending, and what follows the commitments.
    pub(super) fn new(head: Vec<u8>, tail: Vec<u8>) -> Self {
        let (committed, side) = (Vec::with_capacity(192), Vec::with_capacity(128));
        Self { head, private: 0, committed, side, tail }
    }

    /// Adds what may have to be erased, also what is known only once the operation ran.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is larger than an entry may be, or randomness fails.
    pub fn add(&mut self, private: &[(Field, Cow<'_, str>)], entropy: &dyn Entropy) -> Result<()> {
        let mut salts = vec![0; SALT_BYTES.saturating_mul(private.len())];
        entropy.fill_public(&mut salts)?;
        let mut committed = Encoder::new(&mut self.committed);
        let mut side = Encoder::new(&mut self.side);
        for ((field, value), salt) in private.iter().zip(salts.as_chunks::<SALT_BYTES>().0) {
            let hash = commitment(salt, *field, value);
            write_commitment(&mut committed, *field, &hash)
                .and_then(|()| write_side_value(&mut side, *field, salt, value))
                .map_err(Error::internal)?;
        }
        self.private = self.private.saturating_add(count(private));
        let known = self.head.len().saturating_add(self.committed.len());
        if known.saturating_add(self.tail.len()) > ENTRY_BYTES {
            return Err(too_large());
        }
        Ok(())
    }

    /// Completes the entry.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is larger than an entry may be.
    pub fn end(&self, ending: &Ending<'_>) -> Result<Entry> {
        let known = [self.head.len(), self.committed.len(), self.tail.len(), ENDING_BYTES];
        let mut leaf = Vec::with_capacity(known.into_iter().fold(0, usize::saturating_add));
        leaf.extend_from_slice(&self.head);
        let mut leaf = Encoder::new(leaf);
        ending.write(&mut leaf).map_err(Error::internal)?;
        let private = leaf.u8(12).and_then(|leaf| leaf.array(self.private));
        private.map_err(Error::internal)?;
        let mut leaf = leaf.into_writer();
        leaf.extend_from_slice(&self.committed);
        leaf.extend_from_slice(&self.tail);
        if leaf.len() > ENTRY_BYTES {
            return Err(too_large());
        }
        let side = Vec::with_capacity(self.side.len().saturating_add(HEAD_BYTES));
        let mut side = Encoder::new(side);
        side.array(self.private).map_err(Error::internal)?;
        let mut side = side.into_writer();
        side.extend_from_slice(&self.side);
        Ok(Entry { leaf, side })
    }
}

fn write_commitment(e: &mut Encoder<&mut Vec<u8>>, field: Field, hash: &[u8; 32]) -> Written {
    e.array(2)?.str(field.as_str())?.bytes(hash)?;
    Ok(())
}

fn too_large() -> Error {
    Error::internal("an entry of the record is too large")
}
