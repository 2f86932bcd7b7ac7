//! Keeps the write-ahead log short without the writer waiting for it.
//!
//! Moving the log into the file writes thousands of pages and syncs them: tens of milliseconds, for which
//! everybody waits who waits for the writer. So a thread moves what there is while the writer goes on.
//! What came meanwhile is little; the writer moves that itself, and the log begins anew.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::config::DbConfig;

use super::{Mode, drive, fault, open};
use crate::store::{StoreError, Tx};

/// Pages of the log from which on it is moved.
const PAGES: i32 = 4_000;
/// Pages from which on its thread is waited for: where all processors are busy, it gets little of their time.
const LONG: i32 = 2 * PAGES;
/// Pages after which it is moved again where it did not begin anew, because somebody read from it.
const MORE: i32 = PAGES / 4;
/// Commits whose rest is moved at once, until the log begins anew: it does with the first that comes when
/// nobody reads what was in it.
const TRIES: u32 = 16;
/// Times that it is moved on end while more comes.
const TIMES: usize = 16;
/// How often whoever waits for it looks whether it is there.
const LOOK: Duration = Duration::from_millis(100);
/// The nice value of the thread that moves it.
const YIELDING: i32 = 5;

thread_local! {
    /// Pages of the log after this thread's last commit.
    static LOGGED: Cell<i32> = const { Cell::new(0) };
}

/// Keeps the log of one connection short; its thread ends with it.
pub(super) struct LogKeeper {
    mover: Arc<Mover>,
    thread: Option<thread::JoinHandle<()>>,
    /// Pages from which on the log is moved next, and those that it had last.
    next: i32,
    last: i32,
    /// Commits after which the rest is moved again, while the log does not begin anew.
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waits,
    Asked,
    Moved,
    /// The file may not hold what was moved, and nothing is moved any more.
    Failed,
    Ends,
}

impl Step {
    fn after(done: Result<(), StoreError>, well: Self) -> Self {
        if has_failed(done) { Self::Failed } else { well }
    }
}

/// Tells whether the file may miss what was to be moved into it.
///
/// What was moved is synced by a later try than the one that moved it. Where that fails, the next one
/// may say that all is well although the file misses pages: the log, which holds them, is kept as it
/// is. Whoever opens the store next, when nobody has it open, moves all of it anew.
pub(super) fn has_failed(moved: Result<(), StoreError>) -> bool {
    match moved {
        // What there is no room for was not written, and is said before anything is synced.
        Ok(()) | Err(StoreError::Full) => false,
        Err(error) => {
            tracing::error!(
                alarm = true,
                %error,
                "the store's log cannot be moved into its file: until a restart it grows, and keeps \
                 what is deleted"
            );
            true
        }
    }
}

struct Mover {
    step: Mutex<Step>,
    changed: Condvar,
}

impl Mover {
    fn run(&self, connection: &rusqlite::Connection) {
        if let Err(error) = rustix::process::setpriority_process(None, YIELDING) {
            tracing::debug!(%error, "the store's log is moved before its turn");
        }
        let mut step = self.step.lock();
        while *step != Step::Ends {
            if *step != Step::Asked {
                self.changed.wait(&mut step);
                continue;
            }
            drop(step);
            let moved = move_all(connection).map_err(|error| fault(&error).0);
            step = self.step.lock();
            if *step == Step::Asked {
                *step = Step::after(moved, Step::Moved);
                self.changed.notify_all();
            }
        }
    }

    fn tell(&self, step: Step) {
        *self.step.lock() = step;
        self.changed.notify_all();
    }
}

/// Moves the log, and what comes meanwhile, until nothing does.
///
/// SQLite syncs the file only where nothing came while it moved: once is enough for the most of it, and
/// what comes while that is synced is little.
fn move_all(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    let mut before = -1;
    for _ in 0..TIMES {
        let pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
        if pages == before {
            break;
        }
        before = pages;
    }
    Ok(())
}

impl LogKeeper {
    /// Takes the log of the writer's connection over from it.
    pub(super) fn start(path: &Path, writes: &rusqlite::Connection) -> Result<Self, StoreError> {
        let connection = open(path, Mode::Write)?;
        // It moves what it is asked to, and nothing at its end.
        connection
            .pragma_update(None, "wal_autocheckpoint", 0)
            .and_then(|()| {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            })
            .map_err(|error| fault(&error).0)?;
        let mover = Arc::new(Mover { step: Mutex::new(Step::Waits), changed: Condvar::new() });
        let shared = Arc::clone(&mover);
        let thread = thread::Builder::new()
            .name("store-log".into())
            .spawn(move || shared.run(&connection))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        // In the place of SQLite's own, which would move the log with the commit that makes it long.
        writes.wal_hook(Some(|_, pages| {
            LOGGED.set(pages);
            Ok(())
        }));
        Ok(Self { mover, thread: Some(thread), next: PAGES, last: 0, tries: 0 })
    }

    /// Waits until the log is not being moved; tells whether it may be.
    pub(super) fn settle(&self) -> bool {
        matches!(self.settled(), Step::Waits | Step::Moved)
    }

    fn settled(&self) -> Step {
        let mut step = self.mover.step.lock();
        let is_over = || self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished);
        while *step == Step::Asked && !is_over() {
            self.mover.changed.wait_for(&mut step, LOOK);
        }
        *step
    }

    /// Tells whether the file may miss what was moved: the log has to stay.
    pub(super) fn has_failed(&self) -> bool {
        *self.mover.step.lock() == Step::Failed
    }

    /// Looks at the log after a commit.
    pub(super) fn keep_short(&mut self, tx: &mut Tx) {
        let pages = LOGGED.get();
        if pages < self.last {
            (self.next, self.tries) = (PAGES, 0);
        }
        self.last = pages;
        let step = *self.mover.step.lock();
        let step = if step == Step::Asked && pages >= LONG { self.settled() } else { step };
        match step {
            Step::Moved => self.tries = TRIES,
            Step::Waits if self.tries > 0 => {}
            Step::Waits if pages >= self.next => return self.mover.tell(Step::Asked),
            Step::Waits | Step::Asked | Step::Failed | Step::Ends => return,
        }
        self.tries = self.tries.saturating_sub(1);
        self.next = pages.saturating_add(MORE).max(PAGES);
        let step = Step::after(drive(tx.move_log()), Step::Waits);
        self.mover.tell(step);
    }
}

impl Drop for LogKeeper {
    fn drop(&mut self) {
        self.mover.tell(Step::Ends);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that moves the store's log panicked");
        }
    }
}
