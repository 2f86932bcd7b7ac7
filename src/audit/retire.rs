//! Lets lanes pass out of sight whose connection is gone and whose batches all have their place, so
//! that a step of the log looks at those alone that may still grow.
//!
//! The head vouches for the lanes in sight: one that is taken out, or put back, by hand is seen.

use futures_util::FutureExt as _;

use super::RecordCodec;
use super::head::{digest, tampered};
use crate::error::Result;
use crate::store::records::{self, HeadRow, LaneState};
use crate::store::{Reader, StoreError, Tx};

/// Lanes that pass out of sight in one step.
const LANES: usize = 256;

/// Lanes that pass out of sight, ready to be committed.
#[derive(Debug)]
pub struct Retirement {
    reader: Reader,
    from: HeadRow,
    to: HeadRow,
    lanes: Vec<LaneState>,
}

/// Finds lanes that nobody writes to any more; nothing when there is none.
///
/// # Errors
/// [`crate::Error::Tampered`], with an alarm, for a head that no vault wrote; what the store answers.
pub async fn retire(reader: &Reader, codec: &RecordCodec) -> Result<Option<Retirement>> {
    let own = reader.clone();
    let (from, lanes, left) = reader.view(move |tx| look(tx, own).boxed()).await?;
    if !codec.vouches(&from)? || digest(&lanes) != from.lanes {
        return Err(tampered(&from).into());
    }
    if left.is_empty() {
        return Ok(None);
    }
    let (left, stay): (Vec<_>, Vec<_>) =
        lanes.into_iter().partition(|lane| left.contains(&lane.lane));
    let mut to = HeadRow { lanes: digest(&stay), ..from.clone() };
    to.mac = codec.vouch(&to)?.to_vec();
    Ok(Some(Retirement { reader: reader.clone(), from, to, lanes: left }))
}

async fn look(tx: &mut Tx, own: Reader) -> Result<(HeadRow, Vec<LaneState>, Vec<i64>)> {
    let head = records::head(tx).await?;
    let lanes = records::lanes(tx).await?;
    let mut left = Vec::new();
    for lane in lanes.iter().filter(|lane| lane.seq > 0 && lane.last == lane.seq) {
        if left.len() < LANES
            && !own.owns_lane(lane.lane)
            && records::is_left(tx, lane.lane).await?
        {
            left.push(lane.lane);
        }
    }
    Ok((head, lanes, left))
}

impl Retirement {
    /// Commits it, unless the log moved or a lane is in use after all.
    ///
    /// # Errors
    /// [`StoreError::Stale`] then; what the store answers.
    pub async fn commit(self, tx: &mut Tx) -> Result<(), StoreError> {
        records::advance_head(tx, &self.from, &self.to).await?;
        for lane in &self.lanes {
            // Asked first, so that what its last connection committed is seen by what follows.
            if self.reader.owns_lane(lane.lane) || !records::is_left(tx, lane.lane).await? {
                return Err(StoreError::Stale);
            }
            records::end_lane(tx, lane).await?;
        }
        Ok(())
    }
}
