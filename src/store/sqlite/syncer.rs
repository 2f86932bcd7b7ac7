//! Makes commits durable, beside the writer: while one group is synced, the next is gathered and
//! committed, and one sync may cover several of them.
//!
//! SQLite syncs its log within COMMIT when it is told to (`synchronous=FULL`), and the thread that
//! commits then waits for the disk. Here it appends to the log and does not sync it (`NORMAL`); this
//! thread does, and only then is anybody told. What SQLite needs for a whole file, it syncs itself
//! when it writes the log back (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
//!
//! A commit whose sync failed stands in the log all the same, and others follow it there: a crash
//! could cut them off with it. So a failure ends the connection, everybody who waits hears that the
//! outcome is unknown, and nothing is committed until all of the log is in the file itself.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tokio::sync::mpsc as channel;

use crate::store::StoreError;
use crate::store::commit::{self, Told};

/// The files that one connection writes.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    log: File,
    id: FileId,
    /// Whether a sync of them failed.
    failed: AtomicBool,
}

impl Files {
    /// Opens the log once more, which exists from the first read on. No lock of SQLite's lies on it
    /// that closing it could lose.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let unavailable = |error: std::io::Error| StoreError::Unavailable(error.to_string());
        let log = File::open(log_of(path)).map_err(unavailable)?;
        let (path, id) = (path.to_owned(), FileId::of(path)?);
        Ok(Self { path, log, id, failed: AtomicBool::new(false) })
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::OutcomeUnknown);
        }
        let synced = self.log.sync_data().map_err(|error| {
            tracing::error!(%error, "the store's log could not be synced");
            // A crash may yet bring it back.
            StoreError::OutcomeUnknown
        });
        // What was synced to a file that no name leads to is gone.
        let there = synced.and_then(|()| {
            let gone =
                || StoreError::Unavailable("the store's file was removed or replaced".into());
            (FileId::of(&self.path)? == self.id).then_some(()).ok_or_else(gone)
        });
        if there.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        there
    }
}

/// A group that is committed and not durable yet.
struct Committed {
    files: Arc<Files>,
    told: Told,
}

/// The thread, as the writer knows it.
pub(super) struct Syncer {
    groups: Sender<Committed>,
    told: channel::UnboundedSender<Told>,
    shared: Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Groups that wait for the thread, or that it has.
    waiting: AtomicUsize,
    /// Whether a sync failed since the writer last asked.
    failed: AtomicBool,
}

impl Syncer {
    /// Starts it. Jobs are told through `told`, a group at a time: waking each caller from here or
    /// from the writer would cost more than the commit.
    pub(super) fn start(told: channel::UnboundedSender<Told>) -> Result<Self, StoreError> {
        let (groups, receiver) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let (to, state) = (told.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("store-syncer".into())
            .spawn(move || run(&receiver, &to, &state))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { groups, told, shared, thread })
    }

    /// Makes a group durable and tells it: here where nobody else waits, so that whoever calls alone
    /// does not wait for another thread as well.
    pub(super) fn finish(&self, files: &Arc<Files>, told: Told, alone: bool) {
        let group = Committed { files: Arc::clone(files), told };
        if alone && self.shared.waiting.load(Ordering::Acquire) == 0 {
            tell(&self.told, self.shared.settled(&group.files, group.told));
            return;
        }
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if let Err(mpsc::SendError(group)) = self.groups.send(group) {
            tell(&self.told, lost(group.told, &StoreError::OutcomeUnknown));
        }
    }

    /// Tells whether a sync failed since this was last asked.
    pub(super) fn failed(&self) -> bool {
        self.shared.failed.swap(false, Ordering::AcqRel)
    }

    /// Tells jobs that are lost.
    pub(super) fn tell(&self, told: Told) {
        tell(&self.told, told);
    }

    /// Waits until everything is durable that was handed over.
    pub(super) fn end(self) {
        drop(self.groups);
        if self.thread.join().is_err() {
            tracing::error!("the store's syncing thread panicked");
        }
    }
}

fn run(groups: &Receiver<Committed>, to: &channel::UnboundedSender<Told>, shared: &Shared) {
    super::writer::hurry("store-syncer");
    while let Ok(first) = groups.recv() {
        let mut waiting = vec![first];
        waiting.extend(groups.try_iter());
        let count = waiting.len();
        let mut rest = waiting.into_iter().peekable();
        while let Some(Committed { files, mut told }) = rest.next() {
            while let Some(next) = rest.next_if(|next| Arc::ptr_eq(&next.files, &files)) {
                told.extend(next.told);
            }
            tell(to, shared.settled(&files, told));
        }
        shared.waiting.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Shared {
    /// Syncs, and says what its jobs are told then.
    fn settled(&self, files: &Files, told: Told) -> Told {
        let Err(error) = files.sync() else { return told };
        self.failed.store(true, Ordering::Release);
        lost(told, &error)
    }
}

fn lost(told: Told, error: &StoreError) -> Told {
    commit::lost(told.into_iter().map(|(job, _)| job).collect(), error)
}

fn tell(to: &channel::UnboundedSender<Told>, told: Told) {
    if let Err(unheard) = to.send(told) {
        // The runtime that they waited on has ended.
        commit::settle(unheard.0);
    }
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = OsString::from(path);
    log.push("-wal");
    log.into()
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
        let id = |path: &Path| {
            statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
                .map(|found| (found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
                .map_err(|error| StoreError::Unavailable(format!("the store's file: {error}")))
        };
        Ok(Self([id(path)?, id(&log_of(path))?]))
    }
}
