//! What is committed together: jobs in, one durable transaction, their outcomes out.
//!
//! The same code runs a group on SQLite, where the writer's thread drives it, and on a PostgreSQL
//! lane. A group is one *batch* of the record; a job's entry stands in the batch of the
//! transaction that made it true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::params;
use crate::store::{Change, RowRef, StoreError, Tx};
use crate::types::Id;

/// What a decision stood on: the commit holds only while it stands.
#[derive(Debug, Clone)]
pub struct Fence {
    /// The authority epoch at which everything below was last known to be true.
    pub epoch: i64,
    /// The sealed rows that were read.
    pub rows: Arc<[RowRef]>,
}

/// How many statements a job's commit may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// None: it reads, or was refused.
    Nothing,
    /// One statement, which is atomic by itself.
    One,
    /// Several, kept together by a savepoint.
    Many,
}

/// How a job is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// How many statements it runs.
    pub writes: Writes,
    /// Whether it changes what decisions stand on.
    pub bumps: bool,
    /// Whether it may use the room that is kept for suspending, revoking and sealing.
    pub urgent: bool,
}

/// An entry of the record, encoded; what it commits to but does not hold is beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The bytes of the leaf.
    pub leaf: Vec<u8>,
    /// Values and salts that may have to be erased, encoded for the batch's side.
    pub side: Vec<u8>,
}

/// One batch of the record, as it is stored.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The entries.
    pub body: Vec<u8>,
    /// Their side values.
    pub side: Vec<u8>,
    /// Hash that the lane's next batch names.
    pub hash: [u8; 32],
    /// MAC over lane, sequence, previous hash and body.
    pub mac: [u8; 32],
}

/// Makes batches; `audit/` knows how.
pub trait BatchCodec: Send + Sync + std::fmt::Debug {
    /// Seals the entries of one group.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] when the key is out of memory.
    fn batch(
        &self,
        lane: i64,
        seq: i64,
        previous: &[u8; 32],
        entries: &[Entry],
    ) -> Result<Batch, StoreError>;
}

/// What a job does in the transaction, and what becomes of it.
#[async_trait]
pub trait Work: Send {
    /// Runs its statements; again from the start when the transaction had to be given up.
    async fn run(&mut self, tx: &mut Tx) -> Result<()>;

    /// Encodes its entry, if it leaves one.
    fn entry(&mut self, outcome: Result<&[Change], &Error>) -> Option<Entry>;

    /// What it holds: groups that hold the same run one after the other, on whatever node.
    fn holds(&self) -> Option<Id> {
        None
    }

    /// Learns what became of it; called once.
    fn settle(self: Box<Self>, settled: Settled);
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Durable: what it did, or its refusal.
    Durable {
        /// What the job itself answered.
        outcome: Result<()>,
        /// The authority epoch at which its fence stood. What a later job of the same group, or
        /// this one, changed has a higher one.
        epoch: i64,
    },
    /// What its decision stood on has moved: decide again.
    Moved,
    /// Nothing of it is in the store, or nobody knows.
    Lost(StoreError),
}

/// A job on its way to the store.
pub struct Job {
    /// What its decision stood on; none for upkeep.
    pub fence: Option<Fence>,
    /// How it is to be run.
    pub needs: Needs,
    /// What it does.
    pub work: Box<dyn Work>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// A lane: the batches of one write connection, chained.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: i64,
    pub(super) next: i64,
    pub(super) previous: [u8; 32],
    /// Whether its row is in the store.
    pub(super) registered: bool,
    /// Gone with the lane.
    alive: Arc<()>,
}

/// What every lane of a process shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) codec: Arc<dyn BatchCodec>,
    pub(super) node: String,
    /// The highest authority epoch seen: one that goes back is an alarm.
    pub(super) epoch: AtomicI64,
    /// What each lane of this process committed, so that nothing of it goes missing.
    pub(super) lanes: Mutex<BTreeMap<i64, OwnLane>>,
    pub(super) counted: Counted,
}

/// What this process committed on one of its lanes and did not yet see in its place, and the last
/// batch that it did.
#[derive(Debug, Clone)]
pub struct OwnLane {
    /// Hashes of batches by sequence number.
    pub batches: BTreeMap<i64, [u8; 32]>,
    alive: Weak<()>,
}

impl OwnLane {
    /// Forgets what is before a batch that has its place; false when nothing more can come.
    pub(super) fn placed(&mut self, seq: i64) -> bool {
        self.batches = self.batches.split_off(&seq);
        let last = self.batches.last_key_value();
        self.alive.strong_count() > 0 || last.is_some_and(|(last, _)| *last > seq)
    }
}

/// What was committed by this process.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) commits: AtomicU64,
    pub(super) jobs: AtomicU64,
    pub(super) entries: AtomicU64,
}

impl Counted {
    fn note(&self, jobs: usize, entries: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.jobs.fetch_add(u64::try_from(jobs).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
    }
}

impl Shared {
    /// Takes notice of an epoch.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when it went back.
    pub(super) fn notice(&self, epoch: i64) -> Result<(), StoreError> {
        if self.epoch.fetch_max(epoch, Ordering::AcqRel) > epoch {
            return Err(StoreError::Tampered { table: "authority", id: epoch.to_string() });
        }
        Ok(())
    }
}

impl Lane {
    /// Begins a lane under a random number.
    pub(super) fn new() -> Result<Self, StoreError> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_unspecified| StoreError::Failed("the random generator failed".into()))?;
        let id = i64::from_be_bytes(random) & i64::MAX;
        Ok(Self { id, next: 1, previous: [0; 32], registered: false, alive: Arc::new(()) })
    }
}

/// What a group came to, before it is told to its jobs.
pub(super) struct Grouped {
    /// Of each job: what it answered, and the epoch at which its fence stood.
    outcomes: Vec<Option<(Result<()>, i64)>>,
    /// The epoch after all of them.
    epoch: i64,
    batch: Option<[u8; 32]>,
    changes: Vec<Change>,
    entries: u64,
}

impl Grouped {
    fn new(jobs: usize, epoch: i64) -> Self {
        let outcomes = Vec::with_capacity(jobs);
        Self { outcomes, epoch, batch: None, changes: vec![], entries: 0 }
    }

    pub(super) const fn has_batch(&self) -> bool {
        self.batch.is_some()
    }
}

/// Runs a group up to, and not including, its COMMIT. An outcome of `None` means moved.
pub(super) async fn run_group(
    tx: &mut Tx,
    lane: &mut Lane,
    shared: &Shared,
    jobs: &mut [Job],
) -> Result<Grouped, StoreError> {
    let exclusive = jobs.iter().any(|job| job.needs.bumps);
    tx.renew();
    tx.begin(exclusive).await?;
    // Whoever has the lock for itself runs beside nobody, and neither does the one writer of SQLite.
    if tx.is_postgres() && !exclusive {
        // In one order, and before any row is locked, so that nobody waits in a circle.
        let held: BTreeSet<i32> = jobs.iter().filter_map(|job| job.work.holds()).map(key).collect();
        for key in held {
            tx.hold(key).await?;
        }
    }
    let mut epoch = tx.epoch().await?;
    let began = epoch;
    shared.notice(epoch)?;
    let mut grouped = Grouped::new(jobs.len(), epoch);
    let mut entries = Vec::with_capacity(jobs.len());
    for job in jobs.iter_mut() {
        tx.set_bumped(false);
        let outcome = run_job(tx, epoch, job).await?;
        let stood_at = epoch;
        if tx.bumped() {
            // One step each, so that an epoch between two changes of a group covers the first only.
            epoch = epoch.checked_add(1).ok_or(StoreError::Malformed)?;
        }
        let changes = tx.take_changes();
        if let Some(outcome) = &outcome {
            let seen = outcome.as_ref().map(|()| changes.as_slice());
            entries.extend(job.work.entry(seen));
        }
        grouped.changes.extend(changes);
        grouped.outcomes.push(outcome.map(|outcome| (outcome, stood_at)));
    }
    if epoch != began {
        let sql = "UPDATE authority SET epoch = $1 WHERE id = 1";
        if tx.execute(sql, params![epoch]).await? != 1 {
            return Err(StoreError::Tampered { table: "authority", id: epoch.to_string() });
        }
        grouped.epoch = epoch;
    }
    if !entries.is_empty() {
        grouped.batch = Some(append(tx, lane, shared, &entries).await?);
        grouped.entries = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    }
    Ok(grouped)
}

/// The key of what is held: its last bits, which are random. Two with the same wait for each other.
fn key(held: Id) -> i32 {
    let [.., a, b, c, d] = *held.as_bytes();
    i32::from_be_bytes([a, b, c, d])
}

async fn run_job(tx: &mut Tx, epoch: i64, job: &mut Job) -> Result<Option<Result<()>>, StoreError> {
    if let Some(fence) = &job.fence
        && fence.epoch != epoch
        && !tx.stands(&fence.rows).await?
    {
        return Ok(None);
    }
    tx.begin_job(job.needs.bumps);
    // On PostgreSQL any error ends the transaction, so a single statement needs one there too.
    let savepoint = match job.needs.writes {
        Writes::Nothing => false,
        Writes::One => tx.is_postgres(),
        Writes::Many => true,
    };
    if savepoint {
        tx.execute("SAVEPOINT job", vec![]).await?;
    }
    let mut outcome = job.work.run(tx).await;
    if let Some(poison) = tx.poison() {
        return Err(poison.clone());
    }
    if outcome.is_ok() && tx.failed() {
        // PostgreSQL would go on with nothing, SQLite with a half: both refuse.
        outcome = Err(Error::internal("a job went on after a statement that failed"));
    }
    if !savepoint && outcome.is_err() && tx.wrote() {
        return Err(StoreError::Failed("a job of one statement failed after it wrote".into()));
    }
    if savepoint {
        if outcome.is_err() {
            tx.take_changes();
            tx.set_bumped(false);
            tx.execute("ROLLBACK TO job", vec![]).await?;
        }
        tx.execute("RELEASE job", vec![]).await?;
    }
    Ok(Some(outcome))
}

async fn append(
    tx: &mut Tx,
    lane: &mut Lane,
    shared: &Shared,
    entries: &[Entry],
) -> Result<[u8; 32], StoreError> {
    if !lane.registered {
        tx.execute(
            "INSERT INTO record_lanes (lane, node, integrated_seq, integrated_hash) \
             VALUES ($1, $2, 0, $3)",
            params![lane.id, shared.node, [0_u8; 32]],
        )
        .await?;
    }
    let batch = shared.codec.batch(lane.id, lane.next, &lane.previous, entries)?;
    let count = i64::try_from(entries.len()).map_err(|_large| StoreError::Malformed)?;
    // In the batch's own row, not in one beside it, which would cost each commit two pages more.
    let side = Some(batch.side).filter(|side| !side.is_empty());
    tx.execute(
        "INSERT INTO record_batches (lane, seq, entries, previous, mac, body, side) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![lane.id, lane.next, count, lane.previous, batch.mac, batch.body, side],
    )
    .await?;
    Ok(batch.hash)
}

/// What became of each job of a group.
pub(super) type Told = Vec<(Job, Settled)>;

/// Takes notice that a group is durable, and says what became of its jobs.
#[must_use]
pub(super) fn durable(
    tx: &Tx,
    lane: &mut Lane,
    shared: &Shared,
    grouped: Grouped,
    jobs: Vec<Job>,
) -> Told {
    if let Some(hash) = grouped.batch {
        lane.registered = true;
        lane.previous = hash;
        let alive = Arc::downgrade(&lane.alive);
        let own = || OwnLane { batches: BTreeMap::new(), alive };
        let mut lanes = shared.lanes.lock();
        lanes.entry(lane.id).or_insert_with(own).batches.insert(lane.next, hash);
        drop(lanes);
        lane.next = lane.next.saturating_add(1);
    }
    shared.counted.note(jobs.len(), grouped.entries);
    shared.epoch.fetch_max(grouped.epoch, Ordering::AcqRel);
    for change in &grouped.changes {
        tx.sealer().saw(change.table, &change.key, change.version);
    }
    let settled = |outcome| match outcome {
        Some((outcome, epoch)) => Settled::Durable { outcome, epoch },
        None => Settled::Moved,
    };
    jobs.into_iter().zip(grouped.outcomes.into_iter().map(settled)).collect()
}

/// Says of every job of a group that it is lost.
#[must_use]
pub(super) fn lost(jobs: Vec<Job>, error: &StoreError) -> Told {
    jobs.into_iter().map(|job| (job, Settled::Lost(error.clone()))).collect()
}

/// Tells the jobs.
pub(super) fn settle(told: Told) {
    for (job, settled) in told {
        job.work.settle(settled);
    }
}
