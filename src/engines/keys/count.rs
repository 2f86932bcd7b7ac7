//! Counts messages, in blocks that nodes reserve before use.
//!
//! A block is reserved by the commit of the very call that needs it: no ciphertext leaves before
//! that is durable. What a node has left of a block is forfeited when it stops.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::find::gone;
use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::named_keys::NamedKeyCountRow;
use crate::types::{Id, ObjectId};

/// Messages of a block.
const BLOCK: i64 = 1 << 16;
/// From so many reserved messages on a key is rotated: early enough that what nodes hold, and use
/// until it is, stays below 2^30.
pub const ROTATE_AT: i64 = (1 << 30) - (1 << 24);
/// So many are never exceeded: below 2^32.
pub(super) const STOP: i64 = (1 << 32) - BLOCK;
/// Versions that this node holds blocks of, at most.
const KEPT: usize = 10_000;

/// What this node has left of its blocks, by version.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<HashMap<ObjectId, Arc<Block>>>>);

#[derive(Debug, Default)]
struct Block {
    left: Mutex<i64>,
    /// Held by the one call that reserves the next.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Block {
    fn take(&self, messages: i64) -> bool {
        let mut left = self.left.lock();
        let enough = *left >= messages;
        if enough {
            *left = left.saturating_sub(messages);
        }
        enough
    }
}

/// A block that a commit is to reserve; others wait for it.
#[derive(Debug)]
pub(super) struct Reservation {
    version: ObjectId,
    messages: i64,
    block: Arc<Block>,
    _gate: OwnedMutexGuard<()>,
}

impl Counts {
    /// Takes message numbers; where too few are left, what the commit is to reserve.
    pub(super) async fn take(
        &self,
        version: ObjectId,
        messages: usize,
    ) -> Result<Option<Reservation>> {
        let messages = i64::try_from(messages).map_err(Error::internal)?;
        let block = self.of(version);
        if block.take(messages) {
            return Ok(None);
        }
        let gate = Arc::clone(&block.gate).lock_owned().await;
        if block.take(messages) {
            return Ok(None);
        }
        Ok(Some(Reservation { version, messages, block, _gate: gate }))
    }

    fn of(&self, version: ObjectId) -> Arc<Block> {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT && !kept.contains_key(&version) {
            kept.clear();
        }
        Arc::clone(kept.entry(version).or_default())
    }
}

impl Reservation {
    /// Whose other reservations wait for this one, on every node.
    pub(super) const fn holds(&self) -> Id {
        self.version.0
    }

    /// Reserves the block.
    pub(super) async fn reserve(&self, tx: &mut Tx) -> Result<()> {
        let found = tx.lookup::<NamedKeyCountRow>(&self.version).await?;
        let found = found.ok_or_else(|| gone("named_key_counts", self.version))?;
        let reserved = found.row.reserved.checked_add(BLOCK).filter(|sum| *sum <= STOP);
        let reserved = reserved.ok_or_else(|| {
            Error::Exhausted("this version has encrypted as much as it ever may; rotate it".into())
        })?;
        tx.change(&found, &NamedKeyCountRow { id: self.version, reserved }).await?;
        Ok(())
    }

    /// Takes notice that it is reserved.
    pub(super) fn durable(&self) {
        let rest = BLOCK.saturating_sub(self.messages);
        let mut left = self.block.left.lock();
        *left = left.saturating_add(rest);
    }
}
