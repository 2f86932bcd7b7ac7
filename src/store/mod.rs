//! Our own state, on SQLite or PostgreSQL: every line of SQL for it, and none of its meaning.
//!
//! [`Store::open`] gives a [`Reader`] and a [`Writer`]. `server.rs` hands the writer to the vault
//! alone, so that nothing is written that was not decided and recorded.

pub mod backup;
pub mod ceremonies;
pub mod changers;
pub mod clock;
mod commit;
pub mod credentials;
pub mod crls;
pub mod database;
pub mod elevations;
mod error;
pub mod factors;
pub mod idempotency;
pub mod identities;
pub mod issuers;
pub mod key_usage;
pub mod keys;
pub mod lent;
pub mod lifecycles;
pub mod logins;
mod migrate;
pub mod named_keys;
pub mod notices;
pub mod pki;
mod postgres;
pub mod records;
pub mod recovery;
pub mod recovery_sets;
pub mod rotations;
mod sealed;
pub mod secrets;
pub mod shred_list;
pub mod shreds;
mod sqlite;
pub mod state;
mod tally;
mod tx;
mod value;
pub mod walks;
mod wipe;
pub mod wraps;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::types::TaskGroup;

pub use commit::{Batch, BatchCodec, Entry, Fence, Job, Needs, OwnLane, Settled, Work, Writes};
pub use error::{StoreError, intact};
pub use sealed::{Change, RowRef, RowSealer, SealedRow, Table, Texts, Versioned};
pub use sqlite::tell_of_idle_workers;
pub use tally::Tally;
pub use tx::{Part, Tx};
pub use value::{Column, Row, Value};

/// Jobs that may wait for the writer.
const QUEUE: usize = 4_096;

/// Where the state is kept.
#[derive(Clone)]
pub enum Location {
    /// A file of our own.
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Size that it may reach, in MiB; 0 for no bound.
        max_mib: u64,
        /// Room within it that only suspending, revoking and sealing may use, in MiB.
        reserve_mib: u64,
    },
    /// A shared server.
    Postgres {
        /// `postgres://…`.
        url: String,
        /// Write connections.
        lanes: usize,
    },
}

impl fmt::Debug for Location {
    /// Shows no URL: a password stands in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path, .. } => write!(f, "Sqlite({})", path.display()),
            Self::Postgres { lanes, .. } => write!(f, "Postgres({lanes} lanes)"),
        }
    }
}

/// Opens the store.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Brings the schema up to date and opens both ends.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer binary wrote it; [`StoreError::Outdated`] for a PostgreSQL
    /// that an older one did; what the database answers otherwise.
    pub async fn open(
        location: &Location,
        node: &str,
        sealer: Arc<RowSealer>,
        codec: Arc<dyn BatchCodec>,
        tasks: &TaskGroup,
    ) -> Result<(Reader, Writer), StoreError> {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::new(commit::Shared {
            codec,
            node: node.to_owned(),
            epoch: AtomicI64::new(0),
            lanes: Mutex::default(),
            counted: commit::Counted::default(),
        });
        let inner = match location {
            Location::Sqlite { path, max_mib, reserve_mib } => {
                migrate::sqlite(path)?;
                let settings = sqlite::Settings {
                    path: path.clone(),
                    max_mib: *max_mib,
                    reserve_mib: *reserve_mib,
                };
                let (told, mut settled) = mpsc::unbounded_channel();
                let (parts, keys) = (Arc::clone(&shared), Arc::clone(&sealer));
                let writer = sqlite::start_writer(settings, parts, keys, jobs, told)?;
                tasks.spawn(async move {
                    while let Some(told) = settled.recv().await {
                        commit::settle(told);
                    }
                });
                // Shutdown waits for the thread, which ends when the last sender is gone.
                tasks.spawn(async move {
                    let _joined = tokio::task::spawn_blocking(move || writer.join()).await;
                });
                Views::Sqlite(sqlite::Readers::start(path, &sealer)?)
            }
            Location::Postgres { url, lanes } => {
                let server = postgres::Server::parse(url)?;
                migrate::postgres(&server, false).await?;
                let pool = server.pool();
                let group = postgres::Lanes {
                    server,
                    shared: Arc::clone(&shared),
                    sealer: Arc::clone(&sealer),
                };
                postgres::start_lanes(&group, *lanes, jobs, tasks);
                Views::Postgres(pool)
            }
        };
        let reader = Reader { views: inner, sealer, shared };
        Ok((reader, Writer { jobs: sender }))
    }
}

impl Store {
    /// Opens a copy of an embedded store to look into it: nobody writes to it, and its schema stays
    /// as it is.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn open_copy(
        path: &Path,
        sealer: &Arc<RowSealer>,
        codec: Arc<dyn BatchCodec>,
    ) -> Result<Reader, StoreError> {
        let views = Views::Sqlite(sqlite::Readers::start(path, sealer)?);
        let shared = Arc::new(commit::Shared {
            codec,
            node: "copy".to_owned(),
            epoch: AtomicI64::new(0),
            lanes: Mutex::default(),
            counted: commit::Counted::default(),
        });
        Ok(Reader { views, sealer: Arc::clone(sealer), shared })
    }

    /// Brings the schema of a store up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`]; [`StoreError::Outdated`] for a PostgreSQL of which nobody says that it
    /// was backed up; what the database answers otherwise.
    pub async fn migrate(location: &Location, backed_up: bool) -> Result<(), StoreError> {
        match location {
            Location::Sqlite { path, .. } => migrate::sqlite(path),
            Location::Postgres { url, .. } => {
                migrate::postgres(&postgres::Server::parse(url)?, backed_up).await
            }
        }
    }

    /// Tells the schema's version in a store, none in an empty one, and the one that this program
    /// knows; takes the lock for writing on the way, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::ReadOnly`], what the database answers otherwise.
    pub async fn schema(location: &Location) -> Result<(Option<i64>, i64), StoreError> {
        migrate::inspect(location).await
    }
}

#[derive(Debug, Clone)]
enum Views {
    Sqlite(sqlite::Readers),
    Postgres(sqlx::PgPool),
}

/// Reads, each view on one snapshot. Never a replica: deciding stands on it.
#[derive(Debug, Clone)]
pub struct Reader {
    views: Views,
    sealer: Arc<RowSealer>,
    shared: Arc<commit::Shared>,
}

impl Reader {
    /// Runs a view.
    ///
    /// # Errors
    /// What the view answers, or [`Error::Unavailable`].
    pub async fn view<T, F>(&self, view: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.run(sqlite::Turn::Ordinary, view).await
    }

    /// Runs a view that waits for no others on SQLite: a short one that a node has to hear again
    /// and again to go on serving.
    ///
    /// # Errors
    /// As [`Reader::view`].
    pub async fn urgent_view<T, F>(&self, view: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.run(sqlite::Turn::Urgent, view).await
    }

    /// Runs a long view of the node's own upkeep, with what it computes: on SQLite on a thread that
    /// lets requests go before.
    ///
    /// # Errors
    /// As [`Reader::view`].
    pub async fn yielding_view<T, F>(&self, view: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.run(sqlite::Turn::Yielding, view).await
    }

    async fn run<T, F>(&self, turn: sqlite::Turn, view: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        match &self.views {
            Views::Sqlite(readers) => {
                let (sender, answer) = oneshot::channel();
                let run = move |tx: &mut Tx| {
                    // A caller that went away wants no answer.
                    let _gone = sender.send(sqlite::drive(view(tx)));
                };
                readers.send(turn, Box::new(run)).await?;
                answer.await.map_err(|_dropped| Error::unavailable("the store did not answer"))?
            }
            Views::Postgres(pool) => {
                let viewed = async {
                    let begun = tx::Connection::View(Box::new(postgres::begin_view(pool).await?));
                    view(&mut Tx::new(begun, Arc::clone(&self.sealer), false)).await
                };
                // The network may swallow everything without ending a connection.
                let silent = |_elapsed| Err(Error::unavailable("the store fell silent"));
                // Boxed, because it is ten times as large as all the rest, and everything that
                // reads would be copied about with room for it; and as what any future is, because
                // the compiler would look through all of it wherever something is read.
                let bounded = tokio::time::timeout(postgres::VIEW, viewed).boxed();
                bounded.await.unwrap_or_else(silent)
            }
        }
    }

    /// The highest authority epoch that this process has seen.
    #[must_use]
    pub fn epoch_seen(&self) -> i64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// Takes notice of an authority epoch that was read: what was kept from before is read anew. One
    /// that is older than another is no alarm here, because views and commits pass each other.
    pub fn saw_epoch(&self, epoch: i64) {
        self.shared.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Counts what this process committed.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let counted = &self.shared.counted;
        Activity {
            commits: counted.commits.load(Ordering::Relaxed),
            jobs: counted.jobs.load(Ordering::Relaxed),
            entries: counted.entries.load(Ordering::Relaxed),
        }
    }

    /// What this process committed on each of its lanes, as far as it must still be seen.
    #[must_use]
    pub fn own_lanes(&self) -> BTreeMap<i64, OwnLane> {
        self.shared.lanes.lock().clone()
    }

    /// Tells whether this process writes, or wrote a while ago, to a lane.
    #[must_use]
    pub fn owns_lane(&self, lane: i64) -> bool {
        self.shared.lanes.lock().contains_key(&lane)
    }

    /// Takes notice of batches that have their place for good; a lane that ended is forgotten
    /// with its last.
    pub fn saw_placed(&self, placed: impl IntoIterator<Item = (i64, i64)>) {
        let mut lanes = self.shared.lanes.lock();
        for (lane, seq) in placed {
            if lanes.get_mut(&lane).is_some_and(|own| !own.placed(seq)) {
                lanes.remove(&lane);
            }
        }
    }
}

/// What this process committed since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Durable transactions, each one group.
    pub commits: u64,
    /// Jobs in them.
    pub jobs: u64,
    /// Entries of the record in them.
    pub entries: u64,
}

/// Commits; held by the vault alone.
#[derive(Debug, Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Hands a job over; its [`Work::settle`] hears what became of it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the store has ended; the job is dropped.
    pub async fn submit(&self, job: Job) -> Result<(), StoreError> {
        self.jobs
            .send(job)
            .await
            .map_err(|_closed| StoreError::Unavailable("the store has ended".into()))
    }
}
