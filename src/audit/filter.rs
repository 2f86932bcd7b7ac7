//! One small Bloom filter a bundle of 256 entries: which bundles a question has to open.
//!
//! An index row per entry would cost more than the entry. Seven keys an entry in 16,384 bits with
//! four probes let through about one wrong bundle in thirty.

use super::entry::ReadEntry;
use crate::crypto::sha256;

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
    /// Takes a stored filter; one of another size holds everything.
    pub(super) fn from_stored(bytes: Vec<u8>) -> Self {
        Self(if bytes.len() == BYTES { bytes } else { vec![0xff; BYTES] })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
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
