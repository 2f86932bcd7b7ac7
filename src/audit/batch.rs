//! A batch: the entries that were committed together, chained within their lane.
//!
//! The body is an entry bundle (C2SP tlog-tiles: big-endian 16-bit length, then the entry, each),
//! so that bundles of the log are cut from batches without encoding anything again.

use minicbor::{Decoder, Encoder};
use parking_lot::RwLock;

use super::entry::{SideValue, read_side};
use super::head::covered;
use crate::crypto::{MacKey, sha256};
use crate::store::records::HeadRow;
use crate::store::{Batch, BatchCodec, Entry, StoreError};

/// Makes and checks batches; holds the key while the vault is unsealed.
#[derive(Debug, Default)]
pub struct RecordCodec {
    key: RwLock<Option<MacKey>>,
}

impl RecordCodec {
    /// Takes the key at unsealing, or drops it at sealing.
    pub fn set_key(&self, key: Option<MacKey>) {
        *self.key.write() = key;
    }

    /// Tells whether a batch is the one that was committed after `previous`, and its hash.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub fn check(
        &self,
        place: (i64, i64),
        previous: &[u8],
        body: &[u8],
        mac: &[u8],
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let hash = chain_hash(place.0, place.1, previous, body);
        let key = self.key.read();
        let key = key.as_ref().ok_or(StoreError::Sealed)?;
        Ok(key.verify(&[&hash], mac).then_some(hash))
    }

    /// Makes a MAC of what stands beside the batches; the input begins with what it is.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub(super) fn vouch_for(&self, input: &[u8]) -> Result<[u8; 32], StoreError> {
        let key = self.key.read();
        Ok(key.as_ref().ok_or(StoreError::Sealed)?.tag(&[input]))
    }

    /// Tells whether a vault made the MAC.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub(super) fn vouches_for(&self, input: &[u8], mac: &[u8]) -> Result<bool, StoreError> {
        let key = self.key.read();
        Ok(key.as_ref().ok_or(StoreError::Sealed)?.verify(&[input], mac))
    }

    /// Makes the MAC of the log's head.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub(super) fn vouch(&self, head: &HeadRow) -> Result<[u8; 32], StoreError> {
        self.vouch_for(&covered(head))
    }

    /// Tells whether the log's head is one that a vault wrote, or that of an empty log.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] without the key.
    pub(super) fn vouches(&self, head: &HeadRow) -> Result<bool, StoreError> {
        let HeadRow { size, root, edge, lanes, mac, checkpoint: _, signed_at: _ } = head;
        if *size == 0 && [root, edge, lanes, mac].iter().all(|part| part.is_empty()) {
            return Ok(true);
        }
        self.vouches_for(&covered(head), mac)
    }
}

impl BatchCodec for RecordCodec {
    fn batch(
        &self,
        lane: i64,
        seq: i64,
        previous: &[u8; 32],
        entries: &[Entry],
    ) -> Result<Batch, StoreError> {
        let size = entries.iter().map(|entry| entry.leaf.len().saturating_add(2)).sum();
        let mut body = Vec::with_capacity(size);
        for entry in entries {
            // An entry that could not be encoded: its operation must not happen off the record.
            if entry.leaf.is_empty() {
                return Err(StoreError::Malformed);
            }
            let len = u16::try_from(entry.leaf.len()).map_err(|_long| StoreError::Malformed)?;
            body.extend_from_slice(&len.to_be_bytes());
            body.extend_from_slice(&entry.leaf);
        }
        let hash = chain_hash(lane, seq, previous, &body);
        let mac = {
            let key = self.key.read();
            key.as_ref().ok_or(StoreError::Sealed)?.tag(&[&hash])
        };
        Ok(Batch { body, side: side(entries)?, hash, mac })
    }
}

/// An empty array in CBOR: an entry that nothing stands beside.
const NONE: u8 = 0x80;

/// Every part has a fixed length but the last, so that no two batches hash the same bytes.
fn chain_hash(lane: i64, seq: i64, previous: &[u8], body: &[u8]) -> [u8; 32] {
    let mut input = Vec::with_capacity(body.len().saturating_add(80));
    input.extend_from_slice(b"strongroom batch 1\0");
    input.extend_from_slice(&lane.to_be_bytes());
    input.extend_from_slice(&seq.to_be_bytes());
    input.extend_from_slice(&sha256(previous));
    input.extend_from_slice(body);
    sha256(&input)
}

/// Encodes what stands beside the entries; nothing where nothing does.
fn side(entries: &[Entry]) -> Result<Vec<u8>, StoreError> {
    if entries.iter().all(|entry| matches!(*entry.side, [] | [NONE])) {
        return Ok(Vec::new());
    }
    let mut out = Encoder::new(Vec::with_capacity(entries.len().saturating_mul(128)));
    let count = u64::try_from(entries.len()).map_err(|_large| StoreError::Malformed)?;
    out.array(count).map_err(|_memory| StoreError::Malformed)?;
    let mut out = out.into_writer();
    for entry in entries {
        out.extend_from_slice(if entry.side.is_empty() { &[NONE] } else { &entry.side });
    }
    Ok(out)
}

/// Cuts a batch's body into its entries.
pub(super) fn cut(body: &[u8]) -> Result<Vec<&[u8]>, StoreError> {
    let mut rest = body;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk::<2>().ok_or(StoreError::Malformed)?;
        let (entry, after) = after
            .split_at_checked(usize::from(u16::from_be_bytes(*len)))
            .ok_or(StoreError::Malformed)?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

/// Cuts a body that nobody vouches for: up to where it stops making sense.
pub(super) fn cut_readable(body: &[u8]) -> Vec<&[u8]> {
    let mut rest = body;
    let mut entries = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<2>()
        && let Some((entry, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))
    {
        entries.push(entry);
        rest = after;
    }
    entries
}

/// Reads a side: the private values of each entry of the batch.
pub(super) fn read_sides(body: &[u8]) -> Result<Vec<Vec<SideValue>>, StoreError> {
    let mut decoder = Decoder::new(body);
    let mut read = || -> Result<_, minicbor::decode::Error> {
        let entries = decoder.array()?.unwrap_or(0);
        (0..entries).map(|_| read_side(&mut decoder)).collect()
    };
    read().map_err(|_malformed| StoreError::Malformed)
}
