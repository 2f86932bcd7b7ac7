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
use crate::store::keys::VaultRow;
use crate::store::named_keys::NamedKeyCountRow;
use crate::store::{StoreError, Tx};
use crate::types::{Id, ObjectId, VaultId};

/// Messages of a block.
const BLOCK: i64 = 1 << 16;
/// From so many reserved messages on a key is rotated: early enough that what nodes hold, and use
/// until it is, stays below 2^30.
pub const ROTATE_AT: i64 = (1 << 30) - (1 << 24);
/// So many are never exceeded: below 2^32.
pub(super) const STOP: i64 = (1 << 32) - BLOCK;
/// So many are counted where a store was put back, for those that were reserved since it was copied and
/// that it knows nothing of: a version is rotated before it has more.
const FORGOTTEN: i64 = 1 << 30;
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
    vault: VaultId,
    version: ObjectId,
    messages: i64,
    block: Arc<Block>,
    _gate: OwnedMutexGuard<()>,
}

impl Counts {
    /// Takes message numbers; where too few are left, what the commit is to reserve.
    pub(super) async fn take(
        &self,
        (vault, version): (VaultId, ObjectId),
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
        Ok(Some(Reservation { vault, version, messages, block, _gate: gate }))
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
        let restore_epoch = restore_epoch(tx, self.vault).await?;
        let forgotten = if found.row.restore_epoch == restore_epoch { 0 } else { FORGOTTEN };
        let reserved = found.row.reserved.saturating_add(forgotten).saturating_add(BLOCK);
        if reserved > STOP {
            return Err(Error::Exhausted(
                "this version has encrypted as much as it ever may; rotate it".into(),
            ));
        }
        let row = NamedKeyCountRow { id: self.version, reserved, restore_epoch };
        tx.change(&found, &row).await?;
        Ok(())
    }

    /// Takes notice that it is reserved.
    pub(super) fn durable(&self) {
        let rest = BLOCK.saturating_sub(self.messages);
        let mut left = self.block.left.lock();
        *left = left.saturating_add(rest);
    }
}

/// Counts the restores that were accepted.
pub(super) async fn restore_epoch(tx: &mut Tx, vault: VaultId) -> Result<i64> {
    let found = tx.lookup::<VaultRow>(&vault).await?;
    Ok(found.ok_or(StoreError::Malformed)?.row.restore_epoch)
}
