//! The log's head: how far the one tree reaches, and which batches it stands on.
//!
//! Its row carries a MAC, so that nobody who can write to the store alone has a head signed.

use super::RecordCodec;
use crate::crypto::{EMPTY_ROOT, Hash, sha256};
use crate::store::records::{self, HeadRow, LaneState};
use crate::store::{StoreError, Tx};

/// The log's head: how many entries, and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Entries in the tree.
    pub size: i64,
    /// Root hash.
    pub root: Hash,
}

impl Head {
    /// Takes it from its row; a root that is none is the empty tree's.
    #[must_use]
    pub fn read(row: &HeadRow) -> Self {
        Self { size: row.size, root: row.root.as_slice().try_into().unwrap_or(EMPTY_ROOT) }
    }
}

/// Reads the head's row, as a vault wrote it.
///
/// # Errors
/// [`StoreError::Tampered`] when none did; [`StoreError::Sealed`] without the key.
pub async fn head(tx: &mut Tx, codec: &RecordCodec) -> Result<HeadRow, StoreError> {
    let row = records::head(tx).await?;
    if codec.vouches(&row)? { Ok(row) } else { Err(tampered(&row)) }
}

/// That the head's row is none that a vault wrote, or stands on other lanes.
pub(super) fn tampered(row: &HeadRow) -> StoreError {
    StoreError::Tampered { table: "log_head", id: row.size.to_string() }
}

/// What the head's MAC covers: every part has a fixed length but the last.
pub(super) fn covered(row: &HeadRow) -> Vec<u8> {
    let mut input = b"strongroom head 1\0".to_vec();
    input.extend_from_slice(&row.size.to_be_bytes());
    input.extend_from_slice(&sha256(&row.root));
    input.extend_from_slice(&sha256(&row.lanes));
    input.extend_from_slice(&row.edge);
    input
}

/// Digest over how far each lane has its place, lanes in order; empty while none has.
pub(super) fn digest(lanes: &[LaneState]) -> Vec<u8> {
    let mut input = Vec::new();
    for lane in lanes.iter().filter(|lane| lane.seq != 0) {
        input.extend_from_slice(&lane.lane.to_be_bytes());
        input.extend_from_slice(&lane.seq.to_be_bytes());
        input.extend_from_slice(&sha256(&lane.hash));
    }
    if input.is_empty() { input } else { sha256(&input).to_vec() }
}
