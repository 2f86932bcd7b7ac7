//! One small Bloom filter a bundle of 256 entries: which bundles a question has to open.
//!
//! An index row per entry would cost more than the entry. Seven keys an entry in 16,384 bits with
//! four probes let through about one wrong bundle in thirty. Each carries a MAC, so that nobody who
//! can write to the store alone hides an entry from questions.

use super::RecordCodec;
use super::entry::ReadEntry;
use crate::crypto::{TILE_WIDTH, sha256};
use crate::store::StoreError;
use crate::store::records::FilterRow;

/// Bytes of a filter.
const BYTES: usize = 2_048;

/// What a question asks for, as a key of the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// An identity's id.
    Identity(&'a [u8]),
    /// An action.
    Action(&'a str),
    /// An outcome other than `OK`.
    Outcome(&'a str),
    /// The id of a resource or a credential.
    Object(&'a [u8]),
}

/// The filter of one bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bloom(Vec<u8>);

impl Default for Bloom {
    fn default() -> Self {
        Self(vec![0; BYTES])
    }
}

impl Bloom {
    /// Takes the stored filter of so many entries of a bundle. One that no vault made for them, or
    /// that was removed, holds everything: it must hide nothing.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub(super) fn open(
        codec: &RecordCodec,
        bundle: i64,
        entries: i64,
        stored: Option<FilterRow>,
    ) -> Result<Self, StoreError> {
        if let Some(FilterRow { filter, mac, .. }) = stored
            && filter.len() == BYTES
            && codec.vouches_for(&covered(bundle, entries, &filter), &mac)?
        {
            return Ok(Self(filter));
        }
        tracing::error!(alarm = true, bundle, "the filter of a bundle is none that a vault made");
        Ok(Self(vec![0xff; BYTES]))
    }

    /// Makes its row, for so many entries of the bundle.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub(super) fn to_row(
        &self,
        codec: &RecordCodec,
        bundle: i64,
        entries: i64,
    ) -> Result<FilterRow, StoreError> {
        let mac = codec.vouch_for(&covered(bundle, entries, &self.0))?.to_vec();
        Ok(FilterRow { bundle, filter: self.0.clone(), mac })
    }

    /// Adds everything that an entry can be asked for by.
    pub(super) fn add_entry(&mut self, entry: &ReadEntry) {
        if let Some(identity) = entry.identity {
            self.add(Key::Identity(identity.0.as_bytes()));
        }
        self.add(Key::Action(&entry.action));
        if entry.outcome != "OK" {
            self.add(Key::Outcome(&entry.outcome));
        }
        let objects = entry.resources.iter().filter_map(|resource| resource.id.as_ref());
        for id in objects.chain(entry.credential.as_ref().map(|credential| &credential.0)) {
            self.add(Key::Object(id.as_bytes()));
        }
    }

    fn add(&mut self, key: Key<'_>) {
        for (byte, bit) in probes(key) {
            if let Some(byte) = self.0.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// Tells whether the bundle may hold an entry with the key.
    pub(super) fn may_hold(&self, key: Key<'_>) -> bool {
        probes(key).all(|(byte, bit)| self.0.get(byte).is_some_and(|byte| byte & bit != 0))
    }
}

/// How many entries of a bundle are in a log of so many.
pub(super) fn entries_in(bundle: i64, size: i64) -> i64 {
    let width = i64::from(TILE_WIDTH);
    size.saturating_sub(bundle.saturating_mul(width)).clamp(0, width)
}

/// What a filter's MAC covers: every part has a fixed length but the last.
fn covered(bundle: i64, entries: i64, filter: &[u8]) -> Vec<u8> {
    let mut input = b"strongroom filter 1\0".to_vec();
    input.extend_from_slice(&bundle.to_be_bytes());
    input.extend_from_slice(&entries.to_be_bytes());
    input.extend_from_slice(filter);
    input
}

fn probes(key: Key<'_>) -> impl Iterator<Item = (usize, u8)> {
    let (tag, bytes) = match key {
        Key::Identity(bytes) => (b'i', bytes),
        Key::Action(text) => (b'a', text.as_bytes()),
        Key::Outcome(text) => (b'o', text.as_bytes()),
        Key::Object(bytes) => (b'r', bytes),
    };
    let mut input = Vec::with_capacity(bytes.len().saturating_add(1));
    input.push(tag);
    input.extend_from_slice(bytes);
    let hash = sha256(&input);
    (0..4).map(move |probe| {
        let pair =
            [hash.get(probe * 2), hash.get(probe * 2 + 1)].map(|byte| byte.map_or(0, |b| *b));
        let bit = usize::from(u16::from_be_bytes(pair)) % (BYTES * 8);
        (bit / 8, 1 << (bit % 8))
    })
}
