//! Upkeep: a closed list, undecided, without entries, unable to write a sealed row. A round that
//! finds nothing to do writes nothing.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::{READS, Vault, WRITES};
use crate::audit::{self, CallerFact, DecisionFact, Ending, EntryFacts, Field, Head};
use crate::crypto::{VerifierKey, note_body, sign_note};
use crate::error::{Error, Result};
use crate::store::{
    Change, Entry, Job, Needs, Settled, StoreError, Tx, Work, clock, idempotency, identities,
    key_usage, records, shreds,
};
use crate::types::{Id, RequestId, UnixMillis};

/// Purges of idempotency keys in one round, a thousand each.
const PURGES: usize = 100;
/// Rows of the usage of keys that one purge takes, and how many days they are kept.
const PURGED: i64 = 1_000;
const USAGE_DAYS: i64 = 400;
/// Notes of use in one job: many at once would hold up the group that they share.
const USES: usize = 500;
/// Steps of the log in one round: bounds a round, not the log.
const STEPS: usize = 64;

impl Vault {
    /// Gives every committed batch its place in the log, and signs the head if it moved.
    ///
    /// # Errors
    /// [`Error::Tampered`], with an alarm, when a batch was removed or altered.
    pub async fn integrate(&self) -> Result<()> {
        for _ in 0..STEPS {
            let Some(step) = audit::plan(&self.core.reader, &self.core.codec).await? else { break };
            let (step, settled) = step.watched();
            self.upkeep(Box::new(step)).await?;
            match settled.await.map_err(|_dropped| Error::OutcomeUnknown)? {
                // Another node was first: what is left is planned from its head.
                Settled::Durable { outcome: Ok(()) | Err(Error::Conflict(_)), .. } => {}
                Settled::Durable { outcome: Err(error), .. } => return Err(error),
                Settled::Moved => return Err(Error::internal("upkeep without a fence moved")),
                Settled::Lost(error) => return Err(error.into()),
            }
        }
        self.checkpoint().await
    }

    /// Lets lanes pass out of the log's sight that nobody writes to any more.
    ///
    /// # Errors
    /// [`Error::Tampered`], with an alarm, for a head that no vault wrote; what the store answers.
    pub async fn retire_lanes(&self) -> Result<()> {
        let Some(step) = audit::retire(&self.core.reader, &self.core.codec).await? else {
            return Ok(());
        };
        match self.write(|tx| async move { Ok(step.commit(tx).await?) }.boxed()).await {
            // The log moved on meanwhile: the next round looks again.
            Err(Error::Conflict(_)) => Ok(()),
            done => done,
        }
    }

    /// Signs the newest head, if its checkpoint is older. The head is stored before it is signed.
    async fn checkpoint(&self) -> Result<()> {
        let row = self.head_row().await?;
        if row.size == 0 {
            return Ok(());
        }
        let stored = self.stored_checkpoint(&row)?;
        let head = Head::read(&row);
        let known = *self.core.signed.lock() == Some(head);
        if stored == Some(head) && known {
            return Ok(());
        }
        // One that is signed already may still be older than another that was.
        if !self.extend_signed(head, stored).await? || stored == Some(head) {
            return Ok(());
        }
        let size = u64::try_from(head.size).map_err(Error::internal)?;
        let body = note_body(&self.core.identity.origin, size, &head.root)?;
        let key = self.log_key()?;
        let (signature, _) = self.core.keyring.sign_checkpoint(&body).await?;
        let note = sign_note(&body, &key, &signature)?;
        let at = self.core.clock.now()?;
        self.store_checkpoint(row.checkpoint, note, at).await
    }

    pub(super) async fn store_checkpoint(
        &self,
        before: String,
        note: String,
        at: UnixMillis,
    ) -> Result<()> {
        self.write(move |tx| {
            async move { Ok(records::store_checkpoint(tx, before, note, at.0).await?) }.boxed()
        })
        .await
    }

    /// The public key of checkpoints, named as the log.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub fn log_key(&self) -> Result<VerifierKey> {
        self.core.log_key()
    }

    /// The log's newest head.
    ///
    /// # Errors
    /// [`Error::Tampered`], with an alarm, for one that no vault wrote; what the store answers.
    pub async fn head(&self) -> Result<Head> {
        Ok(Head::read(&self.head_row().await?))
    }

    /// Reads the clocks' mark, and moves it on where this node has something to show for it.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn mark_clock(&self) -> Result<()> {
        let next = self.read_clock().await?;
        self.advance_clock(next).await
    }

    /// Reads the clocks' mark, and answers what this node should move it to, if at all.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn read_clock(&self) -> Result<Option<UnixMillis>> {
        let stored =
            self.core.reader.urgent_view(|tx| async { Ok(clock::mark(tx).await?) }.boxed()).await?;
        let active = self.core.clock.was_active();
        Ok(self.core.clock.notice(stored).filter(|_| active))
    }

    /// Moves the clocks' mark on, if it has to move.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn advance_clock(&self, next: Option<UnixMillis>) -> Result<()> {
        let Some(at) = next else { return Ok(()) };
        let node = self.core.clock.node().to_owned();
        self.write(move |tx| async move { Ok(clock::advance(tx, &node, at).await?) }.boxed()).await
    }

    /// Looks whether another node moved the authority epoch, and empties the caches if so; those of
    /// keys too, where somebody was shredded.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn watch_authority(&self) -> Result<()> {
        let looked = self.core.reader.urgent_view(move |tx| {
            async move { Ok((tx.epoch().await?, shreds::newest(tx).await?)) }.boxed()
        });
        let (epoch, shredded) = looked.await?;
        self.core.reader.saw_epoch(epoch);
        // Whatever the epoch says, which is a plain row: what is shredded stays in no memory.
        if self.core.shredded.swap(shredded, Ordering::AcqRel) != shredded {
            self.core.keyring.forget_all();
        }
        if self.core.watched.swap(epoch, Ordering::AcqRel) != epoch {
            self.forget();
            // Of a key in the HSM that another node made or destroyed it is told like that as well. One
            // that cannot be looked at now is looked at when it is met.
            if let Err(error) = self.core.keyring.refresh(&self.core.reader).await {
                tracing::warn!(%error, "the keys in the HSM could not be looked at anew");
            }
        }
        Ok(())
    }

    /// Writes when identities and grants were last used.
    ///
    /// # Errors
    /// What the store answers; what was not written is kept for the next round.
    pub async fn flush_usage(&self) -> Result<()> {
        let mut left = std::mem::take(&mut *self.core.uses.lock());
        while let Some(some) = left.split_off(USES) {
            let noted = some.clone();
            let written = self.write(move |tx| {
                async move {
                    for (identity, at) in noted.identities {
                        identities::note_identity_use(tx, identity, at).await?;
                    }
                    for (grant, at) in noted.grants {
                        identities::note_grant_use(tx, grant, at).await?;
                    }
                    Ok(())
                }
                .boxed()
            });
            if let Err(error) = written.await {
                let mut uses = self.core.uses.lock();
                uses.put_back(some);
                uses.put_back(left);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Forgets idempotency keys that are over.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn purge_retries(&self) -> Result<()> {
        let now = self.core.clock.now()?;
        for _ in 0..PURGES {
            let due = self
                .core
                .reader
                .view(move |tx| async move { Ok(idempotency::has_over(tx, now).await?) }.boxed())
                .await?;
            if !due {
                break;
            }
            self.write(move |tx| async move { Ok(idempotency::purge(tx, now).await?) }.boxed())
                .await?;
        }
        Ok(())
    }

    /// Forgets who used which named key longer ago than it is kept; the record keeps it.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn purge_key_usage(&self) -> Result<()> {
        let today = self.core.clock.now()?.0.div_euclid(audit::DAY_MS);
        let before = today.saturating_sub(USAGE_DAYS);
        for _ in 0..PURGES {
            let due = self
                .core
                .reader
                .view(move |tx| async move { Ok(key_usage::has_older(tx, before).await?) }.boxed());
            if !due.await? {
                break;
            }
            self.write(move |tx| {
                async move { Ok(key_usage::purge(tx, before, PURGED).await.map(drop)?) }.boxed()
            })
            .await?;
        }
        Ok(())
    }

    /// Records what was refused too often, or to nobody we know, for an entry each: one entry of
    /// either kind, with what was counted most by name and the rest together.
    ///
    /// # Errors
    /// What the store answers; what was counted is kept for the next round, and may be told twice
    /// where nobody knows whether the entry is in the store.
    pub async fn summarise_refusals(&self) -> Result<()> {
        let strangers = self.core.refusals.take_strangers();
        let lines = strangers.iter().map(|(reason, source, n)| (*n, format!("{source} {reason}")));
        let told = self.summary("system.strangers", "strangers", tell(lines.collect())).await;
        if let Err(error) = told {
            self.core.refusals.put_back_strangers(strangers);
            return Err(error);
        }
        let known = self.core.refusals.take_known();
        let lines = known.iter().map(|(identity, action, n)| (*n, format!("{identity} {action}")));
        let told = self.summary("system.refusals", "denied", tell(lines.collect())).await;
        if told.is_err() {
            self.core.refusals.put_back_known(known, self.core.clock.monotonic());
        }
        told
    }

    async fn summary(
        &self,
        action: &'static str,
        reason: &'static str,
        detail: Option<String>,
    ) -> Result<()> {
        let Some(detail) = detail else { return Ok(()) };
        let private = vec![(Field::Detail, detail)];
        let decision = DecisionFact { allowed: false, reason, by: "summary".into() };
        self.own_entry(action, decision, "DENIED", private).await
    }

    /// Records what the vault itself did or noticed.
    pub(super) async fn own_entry(
        &self,
        action: &'static str,
        decision: DecisionFact<'static>,
        outcome: &'static str,
        private: Vec<(Field, String)>,
    ) -> Result<()> {
        self.enter(CallerFact::System("upkeep"), action, decision, outcome, private).await
    }

    /// Records what was done through no request.
    pub(super) async fn enter(
        &self,
        caller: CallerFact,
        action: &'static str,
        decision: DecisionFact<'static>,
        outcome: &'static str,
        private: Vec<(Field, String)>,
    ) -> Result<()> {
        let at = self.core.clock.now()?;
        let facts = EntryFacts {
            at,
            request: RequestId(Id::ordered(at, self.core.entropy.as_ref())?),
            caller,
            action,
            resources: Vec::new(),
            decision,
            factors: Vec::new(),
            private: private.into_iter().map(|(field, value)| (field, value.into())).collect(),
        };
        let entry = facts.encode(&Ending::plain(outcome), self.core.entropy.as_ref())?;
        self.settle(READS, Some(entry), Box::new(|_| async { Ok(()) }.boxed())).await
    }

    /// Runs statements of upkeep.
    pub(super) async fn write<F>(&self, run: F) -> Result<()>
    where
        F: for<'a> FnOnce(&'a mut Tx) -> Running<'a> + Send + 'static,
    {
        self.settle(WRITES, None, Box::new(run)).await
    }

    async fn settle(&self, needs: Needs, entry: Option<Entry>, run: Statements) -> Result<()> {
        let (reply, settled) = oneshot::channel();
        let work = Upkeep { run: Some(run), entry, reply };
        self.core.writer.submit(Job { fence: None, needs, work: Box::new(work) }).await?;
        match settled.await.map_err(|_dropped| Error::OutcomeUnknown)? {
            Settled::Durable { outcome, .. } => outcome,
            Settled::Moved => Err(Error::internal("upkeep without a fence moved")),
            Settled::Lost(error) => Err(error.into()),
        }
    }

    async fn upkeep(&self, work: Box<dyn Work>) -> Result<(), StoreError> {
        self.core.writer.submit(Job { fence: None, needs: WRITES, work }).await
    }
}

/// Lines of a summary; what is beyond is counted together.
const LINES: usize = 32;

/// Tells what was counted, the most first; none when nothing was.
fn tell(mut counted: Vec<(u64, String)>) -> Option<String> {
    if counted.is_empty() {
        return None;
    }
    counted.sort_unstable_by(|one, other| other.cmp(one));
    let rest = counted.split_off(counted.len().min(LINES));
    let mut lines: Vec<_> = counted.into_iter().map(|(n, what)| format!("{what}: {n}")).collect();
    if !rest.is_empty() {
        let calls = rest.iter().fold(0_u64, |sum, (n, _)| sum.saturating_add(*n));
        lines.push(format!("{} others: {calls}", rest.len()));
    }
    Some(lines.join("; "))
}

type Running<'a> = futures_util::future::BoxFuture<'a, Result<()>>;
type Statements = Box<dyn for<'a> FnOnce(&'a mut Tx) -> Running<'a> + Send>;

/// Statements of upkeep: run once, because what is lost is done again in the next round.
struct Upkeep {
    run: Option<Statements>,
    entry: Option<Entry>,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Upkeep {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        match self.run.take() {
            Some(run) => run(tx).await,
            None => Err(StoreError::Again.into()),
        }
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        self.entry.clone()
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // A stopping worker wants no answer.
        let _gone = self.reply.send(settled);
    }
}
