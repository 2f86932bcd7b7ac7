//! Readers' threads: a whole view in one hop, on a snapshot of its own.

use std::path::Path;
use std::sync::Arc;
use std::thread;

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

/// The readers; they end when this is dropped.
#[derive(Debug, Clone)]
pub(in crate::store) struct Readers {
    many: mpsc::Sender<View>,
    urgent: mpsc::Sender<View>,
    yielding: mpsc::Sender<View>,
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub(in crate::store) fn start(
        path: &Path,
        sealer: &Arc<RowSealer>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            many: Self::threads(READERS, 0, path, sealer)?,
            urgent: Self::threads(1, 0, path, sealer)?,
            yielding: Self::threads(1, YIELDING, path, sealer)?,
        })
    }

    fn threads(
        count: usize,
        nice: i32,
        path: &Path,
        sealer: &Arc<RowSealer>,
    ) -> Result<mpsc::Sender<View>, StoreError> {
        let (sender, receiver) = mpsc::channel::<View>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count {
            let connection = super::open(path, super::Mode::Read)?;
            let mut tx = Tx::new(Connection::Sqlite(connection), Arc::clone(sealer), false);
            let receiver = Arc::clone(&receiver);
            thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || {
                    if nice != 0
                        && let Err(error) = rustix::process::setpriority_process(None, nice)
                    {
                        tracing::debug!(%error, "a reader of the store goes before its turn");
                    }
                    // The lock is held while waiting, so that one reader wakes for one view.
                    while let Some(view) = next(&receiver) {
                        tx.renew();
                        if drive(tx.begin_read()).is_ok() {
                            view(&mut tx);
                            let _closed = drive(tx.end_read());
                        }
                    }
                })
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        }
        Ok(sender)
    }

    /// Hands a view to the next free reader of its turn.
    pub(in crate::store) async fn send(&self, turn: Turn, view: View) -> Result<(), StoreError> {
        let readers = match turn {
            Turn::Ordinary => &self.many,
            Turn::Urgent => &self.urgent,
            Turn::Yielding => &self.yielding,
        };
        readers.send(view).await.map_err(|_closed| StoreError::Unavailable("readers ended".into()))
    }
}

fn next(receiver: &Mutex<mpsc::Receiver<View>>) -> Option<View> {
    receiver.lock().blocking_recv()
}
