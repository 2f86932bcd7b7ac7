//! Readers' threads: a whole view in one hop, on a snapshot that is no older than the question.
//!
//! Views that waited while a reader was busy share its next snapshot: taking one costs as much as a
//! short view reads, seven system calls for locks among them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::drive;
use crate::store::tx::Connection;
use crate::store::{RowSealer, StoreError, Tx};

/// Whose view it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Turn {
    /// A question's.
    Ordinary,
    /// What a node has to hear to serve at all: no load of questions starves it.
    Urgent,
    /// Long work of the node itself, at less than everybody's priority.
    Yielding,
}

/// A view on its way to a reader: it takes the transaction and gives it back.
pub(in crate::store) type View = Box<dyn FnOnce(&mut Tx) + Send>;

/// How many readers there are for questions: one for each core of a small machine; more would only wait.
const READERS: usize = 2;
/// The nice value of the reader that works behind the scenes.
const YIELDING: i32 = 5;
/// Views that may wait.
const QUEUE: usize = 1_024;
/// How long a snapshot is shared: one that is held keeps the log from being begun anew.
const SHARED: Duration = Duration::from_millis(2);

/// The readers; they end when this is dropped.
#[derive(Debug, Clone)]
pub(in crate::store) struct Readers {
    many: Queue,
    urgent: Queue,
    yielding: Queue,
}

/// A way to the readers of one turn.
#[derive(Debug, Clone)]
struct Queue {
    views: mpsc::Sender<Asked>,
    /// Snapshots that were begun.
    begun: Arc<AtomicU64>,
}

/// A view, and how many snapshots had been begun when it was asked for: a later one shows it whatever
/// was committed before it.
struct Asked {
    after: u64,
    view: View,
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub(in crate::store) fn start(
        path: &Path,
        sealer: &Arc<RowSealer>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            many: Queue::start(READERS, 0, path, sealer)?,
            urgent: Queue::start(1, 0, path, sealer)?,
            yielding: Queue::start(1, YIELDING, path, sealer)?,
        })
    }

    /// Hands a view to the next free reader of its turn.
    pub(in crate::store) async fn send(&self, turn: Turn, view: View) -> Result<(), StoreError> {
        let queue = match turn {
            Turn::Ordinary => &self.many,
            Turn::Urgent => &self.urgent,
            Turn::Yielding => &self.yielding,
        };
        let asked = Asked { after: queue.begun.load(Ordering::SeqCst), view };
        let sent = queue.views.send(asked).await;
        sent.map_err(|_closed| StoreError::Unavailable("readers ended".into()))
    }
}

impl Queue {
    fn start(
        count: usize,
        nice: i32,
        path: &Path,
        sealer: &Arc<RowSealer>,
    ) -> Result<Self, StoreError> {
        let (views, receiver) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(Waiting { receiver, first: None }));
        let begun = Arc::<AtomicU64>::default();
        for _ in 0..count {
            let connection = super::open(path, super::Mode::Read)?;
            let mut tx = Tx::new(Connection::Sqlite(connection), Arc::clone(sealer), false);
            let (waiting, begun) = (Arc::clone(&waiting), Arc::clone(&begun));
            thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || {
                    if nice != 0
                        && let Err(error) = rustix::process::setpriority_process(None, nice)
                    {
                        tracing::debug!(%error, "a reader of the store goes before its turn");
                    }
                    // The lock is held while waiting, so that one reader wakes for one view.
                    while let Some(first) = { waiting.lock().next() } {
                        read(&mut tx, first, &waiting, &begun);
                    }
                })
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        }
        Ok(Self { views, begun })
    }
}

/// Reads what a view asks for, and on the same snapshot what others asked for before it was begun.
fn read(tx: &mut Tx, first: Asked, waiting: &Mutex<Waiting>, begun: &AtomicU64) {
    let before = begun.fetch_add(1, Ordering::SeqCst);
    let since = Instant::now();
    tx.renew();
    if drive(tx.begin_read()).is_err() {
        return;
    }
    (first.view)(tx);
    while tx.poison().is_none() && since.elapsed() < SHARED {
        // Another reader waits for views where it is locked: there are none.
        let next = waiting.try_lock().and_then(|mut waiting| waiting.asked(before));
        let Some(next) = next else { break };
        (next.view)(tx);
    }
    let _closed = drive(tx.end_read());
}

/// Views that wait.
struct Waiting {
    receiver: mpsc::Receiver<Asked>,
    /// The first of them, where a reader looked at it and left it.
    first: Option<Asked>,
}

impl Waiting {
    fn next(&mut self) -> Option<Asked> {
        self.first.take().or_else(|| self.receiver.blocking_recv())
    }

    /// The next, where it was asked for by then.
    fn asked(&mut self, by: u64) -> Option<Asked> {
        let first = self.first.take().or_else(|| self.receiver.try_recv().ok())?;
        if first.after <= by {
            return Some(first);
        }
        self.first = Some(first);
        None
    }
}
