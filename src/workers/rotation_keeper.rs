//! Rotates what rotates by itself, moves what is under old keys to new ones, and ends what was left of
//! making or destroying a root key in the HSM.
//!
//! Every node does, at once: a wrap is replaced by a compare-and-set, and a row by its version. What is
//! under an old key says by itself what is left, so that a crash loses nothing of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::Worker;
use crate::engines::authorities::{AuthorityName, RotateAuthority};
use crate::engines::identities::{FinishIdentityKey, MoveIdentityData, RotateIdentityKey, Step};
use crate::engines::pki::AuthoritySlot;
use crate::engines::root::{FinishRoot, RotateRoot};
use crate::engines::rotations::SettleKey;
use crate::error::{Error, Result};
use crate::keyring::label;
use crate::store::identities::IdentityRow;
use crate::store::keys::{self, HsmPurpose, KeyOwner};
use crate::store::rotations::{self, RotationRow, ScheduleRow};
use crate::store::{Reader, Versioned};
use crate::types::{
    Caller, IdentityId, IdentityName, RequestContext, Rotates, RotationState, UnixMillis,
};
use crate::vault::Vault;

/// Rotations that are read at once; of what is due, what is begun in one round.
const ROUND: i64 = 64;
/// Parts of an identity's data that are moved before others have their turn.
const PARTS: usize = 64;
/// Wraps that are moved in one commit: what they cost the writer and the runtime's threads is about two
/// milliseconds. Where others commit as well, who wait for it, fewer.
const PART: i64 = 128;
const SMALL_PART: i64 = 16;
/// Where others commit as well, so many times as long as it works a root's rotation rests.
const REST: u32 = 8;
/// How often it looks who else commits, and how many jobs those of the node itself, and of whoever looks
/// how far it is, are at most in that time.
const LOOK: Duration = Duration::from_millis(50);
const FEW: u64 = 10;
/// Before everything that is due.
const BEGIN: (UnixMillis, String) = (UnixMillis(i64::MIN), String::new());
/// How long making or destroying a key in the HSM may take, in milliseconds: far beyond any call's
/// deadline.
const MAKING_MS: i64 = 30_000;
/// How long what failed, or went no further, waits, in milliseconds.
const WAIT_MS: i64 = 60_000;
/// What waits at most; beyond, what waits is forgotten and tried again.
const WAITING: usize = 4_096;

/// The worker.
#[derive(Debug)]
pub struct RotationKeeper {
    vault: Vault,
    reader: Reader,
    authorities: AuthoritySlot,
    /// Until when something is not tried again on this node.
    waits: Mutex<HashMap<String, UnixMillis>>,
    /// What was due and looked at last: what stays due, because it fails, keeps nothing behind it waiting.
    last: Mutex<(UnixMillis, String)>,
    /// When the node was started: what it began before, it began before it was started again. Where it
    /// could not tell the time, nothing; and never later than now, should its clock have been ahead.
    began: AtomicI64,
}

impl RotationKeeper {
    /// Makes the worker, before the node serves: what somebody asks of it is newer than that.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader, authorities: AuthoritySlot) -> Self {
        let ctx = vault.context(Caller::System(Self::NAME), None);
        let began = AtomicI64::new(ctx.map_or(BEGIN.0, |ctx| ctx.now).0);
        let (waits, last) = (Mutex::default(), Mutex::new(BEGIN));
        Self { vault, reader, authorities, waits, last, began }
    }

    fn context(&self) -> Result<RequestContext> {
        self.vault.context(Caller::System(Self::NAME), None)
    }

    fn is_waiting(&self, what: &str, now: UnixMillis) -> bool {
        let mut waits = self.waits.lock();
        waits.retain(|_, until| *until > now);
        waits.contains_key(what)
    }

    fn wait(&self, what: &str, now: UnixMillis) {
        let mut waits = self.waits.lock();
        if waits.len() >= WAITING {
            waits.clear();
        }
        waits.insert(what.to_owned(), UnixMillis(now.0.saturating_add(WAIT_MS)));
    }

    /// Takes notice of what became of one thing: it holds up itself alone.
    fn settled<T>(&self, what: &str, done: Result<T>, now: UnixMillis) -> Result<()> {
        match done {
            // Another node was first, or it went on since it was looked at.
            Ok(_) | Err(Error::Conflict(_)) => Ok(()),
            Err(Error::Sealed) => Err(Error::Sealed),
            Err(error) => {
                tracing::warn!(rotation = what, %error, "a rotation does not go on");
                self.wait(what, now);
                Ok(())
            }
        }
    }

    async fn in_state(&self, state: RotationState) -> Result<Vec<RotationRow>> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let from = std::mem::take(&mut after);
            let read = self.reader.view(move |tx| {
                async move { Ok(rotations::in_state(tx, state, &from, ROUND).await?) }.boxed()
            });
            let rows = read.await?;
            // Of a part that is not full something may have been left out.
            let Some(last) = rows.last() else { return Ok(found) };
            after.clone_from(&last.row.id);
            found.extend(rows.into_iter().map(|found| found.row));
        }
    }

    /// Finds the next of what is due; behind the last of it is the first again.
    async fn due(&self, now: UnixMillis) -> Result<Vec<Versioned<ScheduleRow>>> {
        let last = self.last.lock().clone();
        let read = self.reader.view(move |tx| {
            async move {
                let next = rotations::due(tx, now, (last.0, last.1.as_str()), ROUND).await?;
                if !next.is_empty() || last == BEGIN {
                    return Ok(next);
                }
                Ok(rotations::due(tx, now, (BEGIN.0, ""), ROUND).await?)
            }
            .boxed()
        });
        let due = read.await?;
        let last = due.last();
        let last = last.map(|last| (last.row.next_at.unwrap_or(now), last.row.id.to_string()));
        *self.last.lock() = last.unwrap_or(BEGIN);
        Ok(due)
    }

    /// Rotates what is due.
    async fn rotate(&self, now: UnixMillis) -> Result<()> {
        for Versioned { row, .. } in self.due(now).await? {
            let what = row.id.to_string();
            if self.is_waiting(&what, now) {
                continue;
            }
            let ctx = self.context()?;
            let done = match row.id {
                Rotates::Root => {
                    self.vault.run_effect(&ctx, RotateRoot { expected: 0 }).await.map(drop)
                }
                Rotates::RootCa => self.rotate_authority(&ctx, AuthorityName::Root).await,
                Rotates::Issuing => self.rotate_authority(&ctx, AuthorityName::Issuing).await,
                Rotates::Login => self.rotate_authority(&ctx, AuthorityName::Login).await,
                Rotates::Identity(id) => {
                    let Some(name) = self.with_key(id).await? else {
                        // Nothing was encrypted for it yet.
                        self.wait(&what, now);
                        continue;
                    };
                    let op = RotateIdentityKey { name, expected: 0 };
                    self.vault.run(&ctx, op).await.map(drop)
                }
            };
            self.settled(&what, done, now)?;
        }
        Ok(())
    }

    /// Names an identity that has a key.
    async fn with_key(&self, id: IdentityId) -> Result<Option<IdentityName>> {
        let read = self.reader.view(move |tx| {
            async move {
                let key = keys::current_key(tx, KeyOwner::Identity(id)).await?;
                let found = tx.lookup::<IdentityRow>(&id).await?;
                Ok(key.and(found).map(|found| found.row.name))
            }
            .boxed()
        });
        read.await
    }

    async fn rotate_authority(&self, ctx: &RequestContext, name: AuthorityName) -> Result<()> {
        let authorities = self.authorities.clone();
        let op = RotateAuthority { name, expected: 0, authorities };
        self.vault.run_effect(ctx, op).await.map(drop)
    }

    /// Ends what a crash left in the HSM: of this node at once, of another after a while.
    async fn settle(&self, now: UnixMillis) -> Result<()> {
        let began = UnixMillis(self.began.fetch_min(now.0, Ordering::Relaxed).min(now.0));
        for state in [RotationState::Pending, RotationState::Retiring] {
            for row in self.in_state(state).await? {
                let ours = row.node == self.vault.node() && row.changed_at < began;
                let late = ours || row.changed_at.0.saturating_add(MAKING_MS) <= now.0;
                if !late || self.is_waiting(&row.id, now) {
                    continue;
                }
                let op = SettleKey { id: row.id.clone() };
                let done = self.vault.run_effect(&self.context()?, op).await;
                self.settled(&row.id, done, now)?;
            }
        }
        Ok(())
    }

    async fn go_on(&self, now: UnixMillis) -> Result<()> {
        let mut rows = self.in_state(RotationState::Moving).await?;
        // A wrap for an old root key may have been under way when nothing was left; and an identity's old
        // key is ended a while later.
        rows.extend(self.in_state(RotationState::Moved).await?);
        // Identities may be many; the root does not wait for them.
        rows.sort_by_key(|row| row.subject != Rotates::Root);
        for row in rows {
            if self.is_waiting(&row.id, now) {
                continue;
            }
            let done = match row.subject {
                Rotates::Root => self.move_root(&row, now).await,
                // What an authority signed is moved by nobody: it ends.
                Rotates::RootCa | Rotates::Issuing | Rotates::Login => continue,
                Rotates::Identity(_) => self.move_identity(&row, now).await,
            };
            self.settled(&row.id, done, now)?;
        }
        Ok(())
    }

    /// Wraps again all that the old root key wraps. While one part is stored, the next is wrapped and the
    /// one after it read. Between two of them others have their turn, and more of it where somebody
    /// committed meanwhile: nobody waits for this, and what others call is to take hardly longer for it.
    async fn move_root(&self, row: &RotationRow, now: UnixMillis) -> Result<()> {
        let vault = &self.vault;
        let old = label(vault.installation().id, HsmPurpose::Root, row.from_version);
        let first = vault.wraps_of(&old, String::new(), SMALL_PART).await?;
        if !first.wraps.is_empty() || first.next.is_some() {
            vault.learn_root().await?;
        }
        let (mut read, mut made) = (Some(first), Vec::new());
        let mut others = Others { since: Instant::now(), jobs: vault.activity().jobs, many: true };
        while read.is_some() || !made.is_empty() {
            let began = Instant::now();
            let part = if others.many { SMALL_PART } else { PART };
            let after = read.as_ref().and_then(|part| part.next.clone());
            let wrap = async {
                match read {
                    Some(part) => vault.wrap_again(&old, part).await,
                    None => Ok(Vec::new()),
                }
            };
            let look = async {
                match after {
                    Some(after) => vault.wraps_of(&old, after, part).await.map(Some),
                    None => Ok(None),
                }
            };
            let (stored, wrapped, next) = tokio::join!(vault.store_wraps(made), wrap, look);
            if !stored? {
                // To the one that was made since, in the next round.
                return Ok(());
            }
            (made, read) = (wrapped?, next?);
            others.look(vault.activity().jobs);
            if others.many {
                tokio::time::sleep(began.elapsed().saturating_mul(REST)).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        if row.state == RotationState::Moved {
            return Ok(());
        }
        let left =
            self.reader.view(move |tx| async move { Ok(keys::has_wraps(tx, &old).await?) }.boxed());
        if left.await? {
            // It does not open, or came meanwhile.
            self.wait(&row.id, now);
            return Ok(());
        }
        self.vault.run(&self.context()?, FinishRoot { id: row.id.clone() }).await
    }

    /// Moves what is under an identity's old key, and ends it once nothing is; what is left of much goes
    /// on in the next round.
    async fn move_identity(&self, row: &RotationRow, now: UnixMillis) -> Result<()> {
        for _ in 0..PARTS {
            let id = row.id.clone();
            let read =
                self.reader.view(move |tx| async move { Step::find(tx, &id, now).await }.boxed());
            let (ctx, id) = (self.context()?, row.id.clone());
            match read.await? {
                Step::Move => {
                    // What is left is not what was sealed: the alarm is given.
                    if self.vault.run(&ctx, MoveIdentityData { id }).await? == 0 {
                        self.wait(&row.id, now);
                        return Ok(());
                    }
                }
                Step::Finish => {
                    self.vault.run(&ctx, FinishIdentityKey { id }).await?;
                    return Ok(());
                }
                Step::Wait => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Whether others commit as well.
struct Others {
    since: Instant,
    /// Jobs that were committed by then, and are this rotation's own since.
    jobs: u64,
    many: bool,
}

impl Others {
    /// Looks, after one more job of its own.
    fn look(&mut self, jobs: u64) {
        self.jobs = self.jobs.saturating_add(1);
        if self.since.elapsed() >= LOOK {
            self.many = jobs.saturating_sub(self.jobs) > FEW;
            (self.since, self.jobs) = (Instant::now(), jobs);
        }
    }
}

#[async_trait]
impl Worker for RotationKeeper {
    const NAME: &'static str = "rotation_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        self.rotate(now).await?;
        self.settle(now).await?;
        self.go_on(now).await
    }
}
