//! Threads that go into the module, so that nobody who is asynchronous ever waits inside it.
//!
//! A call that hangs in the module cannot be cancelled: its thread is left behind and counted. A pool
//! has a few threads, so at most that many are ever stuck; while all of them are, calls are refused at
//! once, and when the module answers they serve again. Must not know what a job does.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use crate::hsm::{CALL_TIMEOUT, HsmError};

/// What a pool's threads are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// What somebody waits for.
    Ordinary,
    /// Long work of the node itself, at less than everybody's priority.
    Yielding,
}

impl Turn {
    /// Most threads, and so the most that can be stuck.
    const fn threads(self) -> usize {
        match self {
            Self::Ordinary => 4,
            Self::Yielding => 2,
        }
    }

    /// What its threads are called.
    const fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "hsm",
            Self::Yielding => "hsm-yielding",
        }
    }

    /// Takes the place of the thread that calls it.
    fn take(self) {
        if self == Self::Yielding
            && let Err(error) = rustix::process::setpriority_process(None, YIELDING)
        {
            tracing::debug!(%error, "an HSM worker goes before its turn");
        }
    }
}

/// The nice value of what yields. Not more: what it holds of a module that is a library, others wait for.
const YIELDING: i32 = 5;

/// Most jobs that wait for a thread; more are refused.
const MAX_QUEUED: usize = 4_096;

/// Longest that dropping a pool waits for its threads: those that are not stuck end at once.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// What a thread owns; made on the thread, dropped with it.
pub(super) trait Seat: 'static {
    /// Runs after each job, before the thread waits again.
    fn after_job(&mut self);
}

/// What a thread is to do.
struct Job<S> {
    run: Box<dyn FnOnce(&mut S) + Send>,
    /// How long it may take before its thread counts as stuck.
    limit: Duration,
}

type MakeSeat<S> = Box<dyn Fn() -> Option<S> + Send + Sync>;

/// A pool of threads that share one queue.
pub(super) struct Workers<S: Seat> {
    pool: Arc<Pool<S>>,
}

struct Pool<S> {
    queue: Mutex<Queue<S>>,
    wake: Condvar,
    ended: Notify,
    gone: Condvar,
    origin: Instant,
    make_seat: MakeSeat<S>,
    turn: Turn,
}

struct Queue<S> {
    jobs: VecDeque<Job<S>>,
    /// Threads that wait for a job.
    idle: usize,
    /// For each thread, when its job is late: milliseconds since `origin` plus one, 0 when idle.
    late_at: Vec<Arc<AtomicU64>>,
    closed: bool,
}

impl<S: Seat> Workers<S> {
    /// Makes a pool; threads start when there is work for them.
    pub(super) fn new(turn: Turn, make_seat: MakeSeat<S>) -> Self {
        let queue = Queue { jobs: VecDeque::new(), idle: 0, late_at: Vec::new(), closed: false };
        let pool = Pool {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            ended: Notify::new(),
            gone: Condvar::new(),
            origin: Instant::now(),
            make_seat,
            turn,
        };
        Self { pool: Arc::new(pool) }
    }

    /// Runs a job on a thread and waits for its answer, at most [`CALL_TIMEOUT`].
    ///
    /// A job that did not begin by then, or whose caller went away, never begins; one that began
    /// runs to its end and nobody hears of it.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when it takes too long, at once when every thread is stuck;
    /// otherwise what the job says.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.run_within(CALL_TIMEOUT, job).await
    }

    /// As [`Workers::run`], for what may take another time.
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&mut S) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (answer, answered) = oneshot::channel();
        let run = move |seat: &mut S| {
            if !answer.is_closed() {
                // The caller may have gone meanwhile, which is its right.
                drop(answer.send(job(seat)));
            }
        };
        self.submit(Job { run: Box::new(run), limit })?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_ended)) => Err(HsmError::Unavailable("its worker ended".to_owned())),
            Err(_elapsed) => Err(HsmError::Unavailable("a call takes too long".to_owned())),
        }
    }

    /// Counts the threads that are stuck inside the module.
    pub(super) fn stuck(&self) -> usize {
        self.pool.stuck(&self.pool.queue.lock())
    }

    /// Ends the threads and waits for them, at most [`CALL_TIMEOUT`].
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when one is still inside the module.
    pub(super) async fn close(&self) -> Result<(), HsmError> {
        self.pool.close();
        let ended = async {
            loop {
                let ended = self.pool.ended.notified();
                if self.pool.queue.lock().late_at.is_empty() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(CALL_TIMEOUT, ended)
            .await
            .map_err(|_elapsed| HsmError::Unavailable("a call is still inside".to_owned()))
    }

    fn submit(&self, job: Job<S>) -> Result<(), HsmError> {
        let refuse = |why: &str| Err(HsmError::Unavailable(why.to_owned()));
        let mut queue = self.pool.queue.lock();
        if queue.closed {
            return refuse("the HSM is closed");
        }
        if self.pool.stuck(&queue) >= self.pool.turn.threads() {
            return refuse("every worker is stuck inside the module");
        }
        if queue.jobs.len() >= MAX_QUEUED {
            return refuse("too many calls wait for it");
        }
        queue.jobs.push_back(job);
        if queue.jobs.len() > queue.idle && queue.late_at.len() < self.pool.turn.threads() {
            self.pool.start_thread(&mut queue);
        }
        let orphaned = queue.late_at.is_empty();
        if orphaned {
            queue.jobs.clear();
        }
        drop(queue);
        if orphaned {
            return refuse("no thread could be started for it");
        }
        self.pool.wake.notify_one();
        Ok(())
    }
}

impl<S: Seat> Pool<S> {
    /// Counts threads whose job takes longer than anybody waits for it.
    fn stuck(&self, queue: &Queue<S>) -> usize {
        let now = self.now();
        let late_at = queue.late_at.iter().map(|late_at| late_at.load(Ordering::Relaxed));
        late_at.filter(|late_at| *late_at != 0 && now >= *late_at).count()
    }

    /// Milliseconds since the pool was made, plus one.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn start_thread(self: &Arc<Self>, queue: &mut Queue<S>) {
        let late_at = Arc::new(AtomicU64::new(0));
        queue.late_at.push(Arc::clone(&late_at));
        let pool = Arc::clone(self);
        let mark = Arc::clone(&late_at);
        // The place is made on the thread: dropping one takes the queue's lock, held here.
        let spawned = std::thread::Builder::new()
            .name(self.turn.name().to_owned())
            .spawn(move || Place { pool, late_at: mark }.serve());
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start an HSM worker");
            queue.late_at.retain(|other| !Arc::ptr_eq(other, &late_at));
        }
    }

    fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.wake.notify_all();
        self.ended.notify_waiters();
    }
}

impl<S: Seat> Drop for Workers<S> {
    /// Waits for the threads: a module whose process exits around a thread inside it may crash.
    fn drop(&mut self) {
        self.pool.close();
        let deadline = Instant::now() + DROP_WAIT;
        let mut queue = self.pool.queue.lock();
        while !queue.late_at.is_empty() {
            if self.pool.gone.wait_until(&mut queue, deadline).timed_out() {
                return;
            }
        }
    }
}

impl<S: Seat> fmt::Debug for Workers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.pool.queue.lock();
        f.debug_struct("Workers")
            .field("threads", &queue.late_at.len())
            .field("queued", &queue.jobs.len())
            .finish_non_exhaustive()
    }
}

/// A thread's place in the pool, given back even when a job panics.
struct Place<S: Seat> {
    pool: Arc<Pool<S>>,
    late_at: Arc<AtomicU64>,
}

impl<S: Seat> Place<S> {
    fn serve(self) {
        self.pool.turn.take();
        let Some(mut seat) = (self.pool.make_seat)() else {
            return;
        };
        while let Some(job) = self.next() {
            let limit_ms = u64::try_from(job.limit.as_millis()).unwrap_or(u64::MAX);
            self.late_at.store(self.pool.now().saturating_add(limit_ms), Ordering::Relaxed);
            (job.run)(&mut seat);
            seat.after_job();
            self.late_at.store(0, Ordering::Relaxed);
        }
        drop(seat);
    }

    fn next(&self) -> Option<Job<S>> {
        let mut queue = self.pool.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue.idle = queue.idle.saturating_add(1);
            self.pool.wake.wait(&mut queue);
            queue.idle = queue.idle.saturating_sub(1);
        }
    }
}

impl<S: Seat> Drop for Place<S> {
    fn drop(&mut self) {
        let mut queue = self.pool.queue.lock();
        queue.late_at.retain(|late_at| !Arc::ptr_eq(late_at, &self.late_at));
        drop(queue);
        self.pool.gone.notify_all();
        self.pool.ended.notify_waiters();
    }
}
