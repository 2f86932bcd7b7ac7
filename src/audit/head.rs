//! The log's head: how far the one tree reaches, and which batches it stands on.
//!
//! Its row carries a MAC, so that nobody who can write to the store alone has a head signed.

use super::RecordCodec;
use crate::crypto::{EMPTY_ROOT, Frontier, Hash, sha256};
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

/// Reads the head's row, and whether a vault wrote it and the lanes that it stands on.
///
/// # Errors
/// [`StoreError::Sealed`] without the key; what the store answers.
pub async fn seen_head(tx: &mut Tx, codec: &RecordCodec) -> Result<(HeadRow, bool), StoreError> {
    let row = records::head(tx).await?;
    let vouched = codec.vouches(&row)? && digest(&records::lanes(tx).await?) == row.lanes;
    Ok((row, vouched))
}

/// Holds the head fast as it was accepted, in the transaction that records who did, and answers
/// its row. One that no vault wrote is vouched for anew, with the lanes as they stand.
///
/// # Errors
/// [`StoreError::Stale`] when the head is not the accepted one, or `altered` is not what it is;
/// [`StoreError::Tampered`] where the root is not the frontier's: there is no tree to go on with.
pub async fn accept_head(
    tx: &mut Tx,
    codec: &RecordCodec,
    found: Head,
    altered: bool,
) -> Result<HeadRow, StoreError> {
    let (from, vouched) = seen_head(tx, codec).await?;
    if Head::read(&from) != found || vouched == altered {
        return Err(StoreError::Stale);
    }
    let mut to = from.clone();
    if altered {
        let size = u64::try_from(from.size).map_err(|_negative| tampered(&from))?;
        let frontier = Frontier::from_parts(size, from.edge.as_chunks::<32>().0.to_vec())
            .map_err(|_unfit| tampered(&from))?;
        if frontier.root() != found.root {
            return Err(tampered(&from));
        }
        to.lanes = digest(&records::lanes(tx).await?);
        to.mac = codec.vouch(&to)?.to_vec();
    }
    records::advance_head(tx, &from, &to).await?;
    Ok(to)
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
