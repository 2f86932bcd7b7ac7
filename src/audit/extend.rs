//! Whether the log still extends a head that somebody kept.

use std::collections::HashMap;

use super::{Head, RecordCodec, head};
use crate::crypto::{CryptoError, ProofPlan, Result, TileId, TileReader, verify_consistency};
use crate::error::Result as Answer;
use crate::store::{Tx, records};

/// Tells whether the stored log extends a head, and the log's own head.
///
/// A tile that is missing or damaged proves nothing: the answer is no.
///
/// # Errors
/// [`crate::Error::Tampered`], with an alarm, for a head that no vault wrote; what the store answers.
pub async fn extends(tx: &mut Tx, codec: &RecordCodec, kept: &Head) -> Answer<(bool, Head)> {
    let head = Head::read(&head(tx, codec).await?);
    let (Ok(old), Ok(new)) = (u64::try_from(kept.size), u64::try_from(head.size)) else {
        return Ok((false, head));
    };
    let Ok(plan) = ProofPlan::consistency(old, new) else { return Ok((false, head)) };
    let mut tiles = HashMap::new();
    for id in plan.tiles() {
        let Ok(index) = i64::try_from(id.index) else { return Ok((false, head)) };
        if let Some(bytes) = records::tile(tx, i64::from(id.level), index).await? {
            tiles.insert((id.level, id.index), bytes);
        }
    }
    let proof = plan.prove(&Tiles(tiles));
    let extends = proof
        .and_then(|proof| verify_consistency(old, &kept.root, new, &head.root, &proof))
        .is_ok();
    Ok((extends, head))
}

/// Tiles that a view read, by level and index.
pub(super) struct Tiles(pub(super) HashMap<(u8, u64), Vec<u8>>);

impl TileReader for Tiles {
    fn read_tile(&self, id: TileId) -> Result<Vec<u8>> {
        let missing = CryptoError::Tile { level: id.level, index: id.index };
        self.0.get(&(id.level, id.index)).cloned().ok_or(missing)
    }
}
