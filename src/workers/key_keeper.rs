//! Rotates named keys whose time has come or that have encrypted enough, and destroys in the HSM what
//! was left of making one there, or is not used any more.
//!
//! Each is claimed by a compare-and-set, so that nodes do not fight. What fails waits longer each
//! time, and what comes behind it is looked at meanwhile.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::Worker;
use crate::engines::keys::{ROTATE_AT, RotateKey, SettleVersion};
use crate::error::{Error, Result};
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Reader, Tx, Versioned};
use crate::types::{Caller, Id, ObjectId, UnixMillis};
use crate::vault::Vault;

/// Keys of one round, of either kind: what is left is due in the next.
const ROUND: usize = 64;
/// Rows that are read at once.
const PAGE: i64 = 64;
/// How long making a key in the HSM may take, in milliseconds: far beyond any call's deadline.
const MAKING_MS: i64 = 300_000;
/// How long what failed waits at first, and at most, in milliseconds.
const FIRST_MS: i64 = 60_000;
const LONGEST_MS: i64 = 6 * 3_600_000;
/// What waits at most; beyond, what waits the shortest is tried again at once.
const WAITING: usize = 4_096;
/// Before every row of a walk.
const BEGIN: (UnixMillis, ObjectId) = (UnixMillis(i64::MIN), ObjectId(Id::from_bytes([0; 16])));

/// The worker.
#[derive(Debug)]
pub struct KeyKeeper {
    vault: Vault,
    reader: Reader,
    waits: Mutex<Waits>,
}

/// What failed on this node, and when it is tried again.
#[derive(Debug, Default)]
struct Waits(HashMap<ObjectId, Wait>);

#[derive(Debug, Clone, Copy)]
struct Wait {
    delay_ms: i64,
    until: UnixMillis,
}

impl Waits {
    /// What is not tried yet.
    fn waiting(&mut self, now: UnixMillis) -> HashSet<ObjectId> {
        // What was mended by hand is not asked for again, and not remembered for ever.
        self.0.retain(|_, wait| wait.until.0.saturating_add(LONGEST_MS) > now.0);
        let waiting = self.0.iter().filter(|(_, wait)| wait.until > now);
        waiting.map(|(id, _)| *id).collect()
    }

    fn failed(&mut self, id: ObjectId, now: UnixMillis) {
        let before = self.0.get(&id).map(|wait| wait.delay_ms);
        let delay_ms = before.map_or(FIRST_MS, |ms| ms.saturating_mul(2).min(LONGEST_MS));
        if before.is_none() && self.0.len() >= WAITING {
            let soonest = self.0.iter().min_by_key(|(_, wait)| wait.until).map(|(id, _)| *id);
            if let Some(soonest) = soonest {
                self.0.remove(&soonest);
            }
        }
        let until = UnixMillis(now.0.saturating_add(delay_ms));
        self.0.insert(id, Wait { delay_ms, until });
    }

    fn done(&mut self, id: ObjectId) {
        self.0.remove(&id);
    }
}

/// Finds keys to rotate: those whose time has come, and those that have encrypted enough.
async fn due(
    tx: &mut Tx,
    now: UnixMillis,
    waiting: &HashSet<ObjectId>,
) -> Result<Vec<Versioned<NamedKeyRow>>> {
    let ready = |found: &Versioned<NamedKeyRow>| !waiting.contains(&found.row.id);
    let (mut due, mut after) = (Vec::new(), BEGIN);
    while due.len() < ROUND {
        let rows = named_keys::keys_due(tx, now, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = (last.row.rotate_at.unwrap_or(now), last.row.id);
        due.extend(rows.into_iter().filter(ready));
    }
    let (mut spent, mut after) = (Vec::new(), BEGIN.1);
    while spent.len() < ROUND {
        let rows = named_keys::keys_spent(tx, ROTATE_AT, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.row.id;
        spent.extend(rows.into_iter().filter(ready));
    }
    due.append(&mut spent);
    Ok(due)
}

/// Finds versions of which something is to be destroyed in the HSM.
async fn left(
    tx: &mut Tx,
    before: UnixMillis,
    waiting: &HashSet<ObjectId>,
) -> Result<Vec<Versioned<NamedKeyVersionRow>>> {
    let (mut left, mut after) = (Vec::new(), BEGIN);
    while left.len() < ROUND {
        let rows = named_keys::versions_left(tx, before, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = (last.row.changed_at, last.row.id);
        left.extend(rows.into_iter().filter(|found| !waiting.contains(&found.row.id)));
    }
    Ok(left)
}

impl KeyKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader, waits: Mutex::default() }
    }

    async fn rotate(&self, now: UnixMillis) -> Result<()> {
        let waiting = self.waits.lock().waiting(now);
        let found = self.reader.view(move |tx| async move { due(tx, now, &waiting).await }.boxed());
        for found in found.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let NamedKeyRow { id, name, newest: expected, .. } = found.row;
            let op = RotateKey { name: name.clone(), expected };
            match self.vault.run_effect(&ctx, op).await {
                Ok(_) | Err(Error::Conflict(_)) => self.waits.lock().done(id),
                Err(Error::Sealed) => return Ok(()),
                // It holds up itself alone.
                Err(error) => {
                    tracing::warn!(%name, %error, "a key is not rotated");
                    self.waits.lock().failed(id, now);
                }
            }
        }
        Ok(())
    }

    async fn settle(&self, now: UnixMillis) -> Result<()> {
        let before = UnixMillis(now.0.saturating_sub(MAKING_MS));
        let waiting = self.waits.lock().waiting(now);
        let found =
            self.reader.view(move |tx| async move { left(tx, before, &waiting).await }.boxed());
        for found in found.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let (key, id) = (found.row.named_key, found.row.id);
            match self.vault.run_effect(&ctx, SettleVersion { key, id }).await {
                Ok(()) | Err(Error::Conflict(_)) => self.waits.lock().done(id),
                Err(Error::Sealed) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%key, %error, "a version stays in the HSM");
                    self.waits.lock().failed(id, now);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for KeyKeeper {
    const NAME: &'static str = "key_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        self.rotate(now).await?;
        self.settle(now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ObjectId {
        ObjectId(Id::from_bytes(u128::try_from(n).unwrap().to_be_bytes()))
    }

    #[test]
    fn what_fails_waits_twice_as_long_each_time_up_to_a_bound() {
        let (mut waits, mut now) = (Waits::default(), UnixMillis(0));
        let minutes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360];
        for ms in minutes.map(|minutes| minutes * 60_000) {
            waits.failed(id(1), now);
            now = UnixMillis(now.0 + ms - 1);
            assert!(waits.waiting(now).contains(&id(1)), "{ms}");
            assert!(!waits.waiting(now).contains(&id(2)), "others do not wait");
            now = UnixMillis(now.0 + 1);
            assert!(!waits.waiting(now).contains(&id(1)), "{ms}");
        }
        waits.done(id(1));
        waits.failed(id(1), now);
        let minute = UnixMillis(now.0 + FIRST_MS);
        assert!(!waits.waiting(minute).contains(&id(1)), "what was done begins anew");
    }

    #[test]
    fn what_waits_is_bounded_and_forgotten_in_the_end() {
        let mut waits = Waits::default();
        for n in 0..=WAITING {
            waits.failed(id(n), UnixMillis(i64::try_from(n).unwrap()));
        }
        let waiting = waits.waiting(UnixMillis(0));
        assert_eq!(waiting.len(), WAITING);
        assert!(!waiting.contains(&id(0)), "the one that would have been the first");
        let late = UnixMillis(FIRST_MS + LONGEST_MS + i64::try_from(WAITING).unwrap());
        assert!(waits.waiting(late).is_empty());
        assert!(waits.0.is_empty());
    }
}
