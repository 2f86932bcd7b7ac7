//! Lanes: each a write connection that groups what waits into one durable transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::Server;
use crate::params;
use crate::store::commit::{self, Grouped, Lane, Shared};
use crate::store::tx::Connection;
use crate::store::{Job, RowSealer, StoreError, Tx};
use crate::types::TaskGroup;

/// Jobs in one group.
const GROUP: usize = 256;
/// Times a group is run again after a serialisation failure or a deadlock.
const RETRIES: u32 = 5;
/// After which a group is not run again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest silence of the server: its own limits end a lock or a statement before.
const SILENCE: Duration = Duration::from_secs(15);

/// What the lanes of a process share.
#[derive(Debug, Clone)]
pub(in crate::store) struct Lanes {
    pub(in crate::store) server: Server,
    pub(in crate::store) shared: Arc<Shared>,
    pub(in crate::store) sealer: Arc<RowSealer>,
}

/// Starts the lanes; they end when every sender is gone.
pub(in crate::store) fn start(
    lanes: &Lanes,
    count: usize,
    jobs: mpsc::Receiver<Job>,
    tasks: &TaskGroup,
) {
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..count.max(1) {
        tasks.spawn(run(lanes.clone(), Arc::clone(&jobs)));
    }
}

async fn run(lanes: Lanes, waiting: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let mut open = None;
    loop {
        let mut jobs = Vec::with_capacity(GROUP);
        if waiting.lock().await.recv_many(&mut jobs, GROUP).await == 0 {
            return;
        }
        if let Err(error) = commit_group(&lanes, &mut open, &mut jobs).await {
            // Nothing is known of this connection any more: its lane ends.
            open = None;
            commit::settle(commit::lost(jobs, &error));
        }
    }
}

async fn commit_group(
    lanes: &Lanes,
    open: &mut Option<(Tx, Lane)>,
    jobs: &mut Vec<Job>,
) -> Result<(), StoreError> {
    let began = tokio::time::Instant::now();
    for attempt in 0..=RETRIES {
        if open.is_none() {
            *open = Some(connect(lanes).await?);
        }
        let Some((tx, lane)) = open.as_mut() else {
            return Err(StoreError::Unavailable("the store did not open".into()));
        };
        let done = attempt_group(lanes, tx, lane, jobs).await;
        let again = attempt < RETRIES && began.elapsed() < PATIENCE;
        match done {
            Ok(grouped) => {
                let jobs = std::mem::take(jobs);
                commit::settle(commit::durable(tx, lane, &lanes.shared, grouped, jobs));
                return Ok(());
            }
            Err(StoreError::Again) if again => {
                if heard(tx.rollback()).await.is_err() {
                    *open = None;
                }
                tokio::time::sleep(jitter(attempt)?).await;
            }
            // Not committed, and nothing is known of the connection.
            Err(StoreError::Unavailable(_)) if again => {
                *open = None;
                tokio::time::sleep(jitter(attempt)?).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Again)
}

async fn attempt_group(
    lanes: &Lanes,
    tx: &mut Tx,
    lane: &mut Lane,
    jobs: &mut [Job],
) -> Result<Grouped, StoreError> {
    let grouped = heard(commit::run_group(tx, lane, &lanes.shared, jobs)).await?;
    match heard(tx.commit()).await {
        Ok(()) => Ok(grouped),
        Err(StoreError::Again) => Err(StoreError::Again),
        // The connection was lost at COMMIT: the batch says whether it took effect.
        Err(_lost) if grouped.has_batch() => {
            if committed(lanes, lane).await? {
                Ok(grouped)
            } else {
                Err(StoreError::Again)
            }
        }
        Err(_lost) => Err(StoreError::OutcomeUnknown),
    }
}

/// Looks a batch up on another connection. The server may still be ending the lost one, so its
/// locks are waited for by asking with the same lane's row locked.
async fn committed(lanes: &Lanes, lane: &Lane) -> Result<bool, StoreError> {
    let unknown = |_error| StoreError::OutcomeUnknown;
    let connection = lanes.server.connect().await.map_err(unknown)?;
    let mut tx =
        Tx::new(Connection::Postgres(Box::new(connection)), Arc::clone(&lanes.sealer), true);
    // The exclusive lock is granted only once no transaction of the lost connection lives.
    heard(tx.begin(true)).await.map_err(unknown)?;
    let sql = "SELECT seq FROM record_batches WHERE lane = $1 AND seq = $2";
    let found = heard(tx.query_one(sql, params![lane.id, lane.next])).await.map_err(unknown)?;
    // The lock goes at once; where that fails, it goes with the connection.
    let _ended = heard(tx.rollback()).await;
    Ok(found.is_some())
}

/// Waits for the server, but not for ever: a network that swallows everything ends no connection.
async fn heard<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(SILENCE, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(StoreError::Unavailable("the server fell silent".into())))
}

async fn connect(lanes: &Lanes) -> Result<(Tx, Lane), StoreError> {
    let connection = lanes.server.connect().await?;
    let connection = Connection::Postgres(Box::new(connection));
    let mut tx = Tx::new(connection, Arc::clone(&lanes.sealer), true);
    let lane = Lane::new()?;
    // Held as long as the connection lives: it says to every node that the lane is in use.
    heard(tx.query("SELECT pg_advisory_lock($1)::text", params![lane.id])).await?;
    Ok((tx, lane))
}

fn jitter(attempt: u32) -> Result<Duration, StoreError> {
    let mut random = [0];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_unspecified| StoreError::Failed("the random generator failed".into()))?;
    let [random] = random;
    Ok(Duration::from_millis((u64::from(random) + 1) << attempt.min(3) >> 5))
}
