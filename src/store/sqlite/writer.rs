//! The writer's thread: groups what waits into one durable transaction.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tokio::sync::mpsc;

use super::log::{self, LogKeeper};
use super::room::Room;
use super::{Mode, drive, idle, open};
use crate::store::commit::{self, Lane, Shared, Told};
use crate::store::tx::Connection;
use crate::store::{Job, RowSealer, StoreError, Tx, Writes};

/// Jobs in one group: enough for every stream of a few connections, few enough to fit a batch.
const GROUP: usize = 256;

/// Jobs in a group after which the next one is waited for: whoever calls alone waits for nobody.
const BUSY: usize = 2;
/// Jobs that need not wait for others: half as many where they write rows, so that as many are prepared
/// while these are committed.
const ENOUGH: usize = 64;
/// How long others are waited for at a time, and how often, while they come.
const SLICE: Duration = Duration::from_micros(250);
const SLICES: usize = 8;

/// The nice value that the thread asks for.
const PRIORITY: i32 = -10;

/// How the file may grow.
#[derive(Debug, Clone)]
pub(in crate::store) struct Settings {
    pub(in crate::store) path: PathBuf,
    /// Size that the file may reach, in MiB; 0 for no bound.
    pub(in crate::store) max_mib: u64,
    /// Room within it, and on the disk beside it, that only suspending, revoking and sealing may
    /// use, in MiB.
    pub(in crate::store) reserve_mib: u64,
}

/// Starts the thread; it ends when every sender is gone.
pub(in crate::store) fn start(
    settings: Settings,
    shared: Arc<Shared>,
    sealer: Arc<RowSealer>,
    jobs: mpsc::Receiver<Job>,
    told: mpsc::UnboundedSender<Told>,
) -> Result<thread::JoinHandle<()>, StoreError> {
    thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || {
            let room = Room::beside(&settings.path, settings.reserve_mib);
            let (open, keeps_log) = (None, false);
            Writer { settings, shared, sealer, told, open, room, keeps_log }.run(jobs);
        })
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}

struct Writer {
    settings: Settings,
    shared: Arc<Shared>,
    sealer: Arc<RowSealer>,
    /// Where the jobs are told, a group at a time: waking each caller from here would cost this
    /// thread, which is the only one that commits, more than the commit.
    told: mpsc::UnboundedSender<Told>,
    open: Option<Open>,
    room: Room,
    /// The log is not moved any more: the file may miss what was.
    keeps_log: bool,
}

/// A connection with its lane, and the files that it writes.
struct Open {
    /// None where the log is not to be moved, nor emptied. It ends before the connection.
    log: Option<LogKeeper>,
    tx: Tx,
    lane: Lane,
    file: FileId,
}

impl Writer {
    fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        // Everybody waits for this thread, which mostly waits for the disk: where it may, it goes
        // before the others. Where it may not (no `RLIMIT_NICE`), it is as slow as they are.
        if let Err(denied) = rustix::process::setpriority_process(None, PRIORITY) {
            tracing::debug!(%denied, "the store's writer has no priority of its own");
        }
        let mut jobs = Vec::with_capacity(GROUP);
        let mut last = 0;
        while let Some(job) = waiting.blocking_recv() {
            jobs.push(job);
            gather(&mut waiting, &mut jobs, last);
            last = jobs.len();
            self.commit(std::mem::take(&mut jobs), false);
        }
    }

    /// Commits a group; where the store is full, its urgent jobs once more with the reserve.
    fn commit(&mut self, mut jobs: Vec<Job>, reserve: bool) {
        let done = self.attempt(&mut jobs, reserve);
        let Err(error) = done else { return };
        // SQLite may have rolled everything back: nothing more goes through this connection, and
        // its lane ends.
        self.open = None;
        let (urgent, rest): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.needs.urgent && !reserve);
        if error == StoreError::Full && !urgent.is_empty() {
            self.tell(commit::lost(rest, &error));
            self.room.free();
            self.commit(urgent, true);
            // The next group gets the ordinary bound again.
            self.open = None;
        } else {
            self.tell(commit::lost(urgent, &error));
            self.tell(commit::lost(rest, &error));
        }
    }

    fn tell(&self, told: Told) {
        if let Err(unheard) = self.told.send(told) {
            // The runtime that they waited on has ended.
            commit::settle(unheard.0);
        }
    }

    fn attempt(&mut self, jobs: &mut Vec<Job>, reserve: bool) -> Result<(), StoreError> {
        if self.open.is_none() {
            if !reserve {
                self.room.keep();
            }
            self.open = Some(self.connect(reserve)?);
        }
        let Some(Open { log, tx, lane, file }) = &mut self.open else {
            return Err(StoreError::Unavailable("the store did not open".into()));
        };
        let grouped = drive(commit::run_group(tx, lane, &self.shared, jobs))?;
        drive(tx.commit()).map_err(|error| {
            // Where the sync failed, a crash may yet bring the commit back.
            let unknown = matches!(error, StoreError::Unavailable(_));
            if unknown { StoreError::OutcomeUnknown } else { error }
        })?;
        // What was synced to a file that no name leads to is gone.
        if FileId::of(&self.settings.path)? != *file {
            return Err(StoreError::Unavailable("the store's file was removed or replaced".into()));
        }
        if tx.wipes() && log.as_ref().is_some_and(LogKeeper::settle) {
            // Whoever reads at this moment holds it up; it is tried with the next group again.
            self.keeps_log = log::has_failed(drive(tx.empty_log()));
        }
        let told = commit::durable(tx, lane, &self.shared, grouped, std::mem::take(jobs));
        self.tell(told);
        if let Some(Open { log: Some(log), tx, .. }) = &mut self.open {
            if !self.keeps_log {
                log.keep_short(tx);
                self.keeps_log = log.has_failed();
            }
            if self.keeps_log {
                // The next connection moves nothing, not even at its end.
                self.open = None;
            }
        }
        self.room.keep_again();
        Ok(())
    }

    fn connect(&self, reserve: bool) -> Result<Open, StoreError> {
        let connection = open(&self.settings.path, Mode::Write)?;
        if self.settings.max_mib > 0 {
            let kept = if reserve { 0 } else { self.settings.reserve_mib };
            let bytes = self.settings.max_mib.saturating_sub(kept).saturating_mul(1_048_576);
            let page = connection
                .pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
                .map_err(|error| super::fault(&error).0)?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(512);
            connection
                .pragma_update(None, "max_page_count", pages.max(1))
                .map_err(|error| super::fault(&error).0)?;
        }
        let moves = !reserve && !self.keeps_log;
        if !moves {
            // What is kept is for commits: nothing of it goes into moving them to the file.
            connection
                .pragma_update(None, "wal_autocheckpoint", 0)
                .and_then(|()| {
                    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
                })
                .map_err(|error| super::fault(&error).0)?;
        }
        // The log beside the file exists from the first read on.
        let tables: i64 = connection
            .query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|error| super::fault(&error).0)?;
        if tables == 0 {
            return Err(StoreError::Unavailable("the store's file is empty".into()));
        }
        let file = FileId::of(&self.settings.path)?;
        let log = moves.then(|| LogKeeper::start(&self.settings.path, &connection)).transpose()?;
        let mut tx = Tx::new(Connection::Sqlite(connection), Arc::clone(&self.sealer), true);
        if !reserve {
            // The log may hold what was deleted in a commit that a crash came right behind.
            tx.wipe();
        }
        Ok(Open { log, tx, lane: Lane::new()?, file })
    }
}

/// Takes what waits, and under load what comes meanwhile.
///
/// A commit costs the same for one job as for sixty, and so does the packet that carries their
/// answers: without this, the thread that goes before all others takes a few at a time, and a third
/// of the processor goes into syncing. While every worker of the runtime is busy, the next job is on
/// its way; once one parks, waiting longer would only make everybody slower, unless rows are written:
/// jobs of one group share the pages that they change, each of which is written, synced and moved once
/// more with every further group. Wherever workers do not park, it ends when nobody came for a moment.
fn gather(waiting: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>, last: usize) {
    let mut take = |jobs: &mut Vec<Job>| {
        while jobs.len() < GROUP
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        jobs.len()
    };
    let mut found = take(jobs);
    if last < BUSY {
        return;
    }
    for _ in 0..SLICES {
        let writes = jobs.iter().any(|job| job.needs.writes != Writes::Nothing);
        if found >= if writes { ENOUGH / 2 } else { ENOUGH } {
            return;
        }
        let idle = if writes {
            thread::sleep(SLICE);
            false
        } else {
            idle::wait(SLICE)
        };
        let more = take(jobs);
        if idle || more == found {
            return;
        }
        found = more;
    }
}

/// Which file it is, and which write-ahead log: device and inode of each.
///
/// Asked for by `statx` and nothing else with them: a file whose times were asked for gets a new
/// one with its next write (multigrain timestamps), which ext4 without a journal then writes and
/// waits for with each sync, a third of the sync's time.
#[derive(Debug, PartialEq, Eq)]
struct FileId([(u32, u32, u64); 2]);

impl FileId {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let mut log = OsString::from(path);
        log.push("-wal");
        let id = |path: &Path| {
            statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
                .map(|found| (found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
                .map_err(|error| StoreError::Unavailable(format!("the store's file: {error}")))
        };
        Ok(Self([id(path)?, id(Path::new(&log))?]))
    }
}
