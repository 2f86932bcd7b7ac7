//! The store and the record's batches, on SQLite and on PostgreSQL alike.

mod conformance;
mod crash;
mod disk;
mod fences;
mod log;
mod postgres;
mod proxy;
mod record;
mod sealed;
mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use strongroom::audit::RecordCodec;
use strongroom::crypto::MacKey;
use strongroom::store::identities::IdentityRow;
use strongroom::store::{
    Change, Entry, Fence, Job, Location, Needs, Reader, RowSealer, Settled, Store, StoreError, Tx,
    Versioned, Work, Writer, Writes,
};
use strongroom::types::{Id, IdentityId, IdentityState, Kind, TaskGroup, Tier, UnixMillis};
use strongroom::{Error, Result};
use tokio::sync::oneshot;

use crate::support::postgres::{PASSWORD, Postgres};

/// Where a test's state is kept.
#[derive(Debug)]
enum Place {
    Sqlite(tempfile::TempDir),
    Postgres { port: u16, database: String },
}

impl Place {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// A database of one's own on the shared server, in a locale that does not sort by bytes.
    async fn postgres() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = Postgres::shared();
        let database = format!("store{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let locale = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
        server.run("postgres", &format!("CREATE DATABASE {database} {locale}")).await;
        Self::Postgres { port: server.port(), database }
    }

    async fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres().await]
    }

    fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite(dir) => dir.path().join("state.db"),
            Self::Postgres { .. } => panic!("no file"),
        }
    }

    fn location(&self, lanes: usize) -> Location {
        match self {
            Self::Sqlite(_) => sqlite_at(&self.file()),
            Self::Postgres { port, database } => postgres_at(*port, database, lanes),
        }
    }

    async fn node(&self) -> Node {
        Node::open(&self.location(1)).await.unwrap()
    }

    /// Runs a statement by hand, past the vault.
    async fn by_hand(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => {
                let connection = rusqlite::Connection::open(self.file()).unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
                connection.execute_batch(sql).expect(sql);
            }
            Self::Postgres { database, .. } => Postgres::shared().run(database, sql).await,
        }
    }
}

fn sqlite_at(path: &Path) -> Location {
    Location::Sqlite { path: path.to_owned(), max_mib: 0, reserve_mib: 0 }
}

fn postgres_at(port: u16, database: &str, lanes: usize) -> Location {
    let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/{database}?sslmode=disable");
    Location::Postgres { url, lanes }
}

/// One node: an opened store with its keys.
struct Node {
    reader: Reader,
    writer: Writer,
    sealer: Arc<RowSealer>,
    codec: Arc<RecordCodec>,
    tasks: TaskGroup,
}

impl Node {
    async fn open(location: &Location) -> Result<Self, StoreError> {
        let sealer = Arc::new(RowSealer::default());
        sealer.set_key(Some(MacKey::new(&[1; 32])));
        let codec = Arc::new(RecordCodec::default());
        codec.set_key(Some(MacKey::new(&[2; 32])));
        let tasks = TaskGroup::default();
        let (reader, writer) = Store::open(
            location,
            "node",
            Arc::clone(&sealer),
            Arc::<RecordCodec>::clone(&codec),
            &tasks,
        )
        .await?;
        Ok(Self { reader, writer, sealer, codec, tasks })
    }

    /// Stops and waits until every connection that writes is closed.
    async fn close(self) {
        let Self { reader, writer, tasks, .. } = self;
        drop((reader, writer));
        tasks.shutdown().await;
    }

    /// Hands a job over.
    async fn submit(&self, act: Act) -> oneshot::Receiver<Settled> {
        let (sender, settled) = oneshot::channel();
        let Act { fence, needs, leaf, run } = act;
        let work = Box::new(ActWork { run, leaf, settled: sender });
        self.writer.submit(Job { fence, needs, work }).await.unwrap();
        settled
    }

    /// Hands a job over and waits for its end.
    async fn commit(&self, act: Act) -> Settled {
        self.submit(act).await.await.unwrap()
    }

    /// Commits what must succeed.
    async fn done(&self, act: Act) -> i64 {
        match self.commit(act).await {
            Settled::Durable { outcome: Ok(()), epoch } => epoch,
            other @ (Settled::Durable { .. } | Settled::Moved | Settled::Lost(_)) => {
                panic!("{other:?}")
            }
        }
    }

    async fn insert(&self, row: &IdentityRow) {
        self.done(insert(row.clone())).await;
    }

    async fn identity(&self, id: IdentityId) -> Result<Option<Versioned<IdentityRow>>> {
        self.reader.view(move |tx| async move { Ok(tx.lookup(&id).await?) }.boxed()).await
    }

    /// What a decision stands on now.
    async fn fence(&self, id: IdentityId) -> Fence {
        self.reader
            .view(move |tx| {
                async move {
                    let row = tx.lookup::<IdentityRow>(&id).await?.unwrap();
                    Ok(Fence { epoch: tx.epoch().await?, rows: Arc::new([row.fence()]) })
                }
                .boxed()
            })
            .await
            .unwrap()
    }

    async fn epoch(&self) -> i64 {
        self.reader.view(|tx| async move { Ok(tx.epoch().await?) }.boxed()).await.unwrap()
    }
}

/// The statements of a job.
type Run = Box<dyn for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<()>> + Send>;

/// A job to be: several statements, no fence, no entry, unless said otherwise.
struct Act {
    fence: Option<Fence>,
    needs: Needs,
    leaf: Option<Vec<u8>>,
    run: Run,
}

impl Act {
    fn new<F>(run: F) -> Self
    where
        F: for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<()>> + Send + 'static,
    {
        let needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
        Self { fence: None, needs, leaf: None, run: Box::new(run) }
    }

    fn fenced(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    fn leaf(mut self, leaf: &[u8]) -> Self {
        self.leaf = Some(leaf.to_vec());
        self
    }

    fn writes(mut self, writes: Writes) -> Self {
        self.needs.writes = writes;
        self
    }

    fn bumping(mut self) -> Self {
        self.needs.bumps = true;
        self
    }

    fn urgent(mut self) -> Self {
        self.needs.urgent = true;
        self
    }
}

/// Holds the writer until all of these wait for it, so that they make one group.
async fn in_one_group(node: &Node, acts: Vec<Act>) -> Vec<Settled> {
    let gate = Arc::new(Barrier::new(2));
    let mut holds = Some(Arc::clone(&gate));
    let holding = Act::new(move |_| {
        if let Some(gate) = holds.take() {
            gate.wait();
            gate.wait();
        }
        async { Ok(()) }.boxed()
    });
    let mut waiting = vec![node.submit(holding).await];
    // It runs, by itself.
    gate.wait();
    for act in acts {
        waiting.push(node.submit(act).await);
    }
    gate.wait();
    let mut settled = Vec::new();
    for answer in waiting {
        settled.push(answer.await.unwrap());
    }
    settled.split_off(1)
}

struct ActWork {
    run: Run,
    leaf: Option<Vec<u8>>,
    settled: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for ActWork {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        (self.run)(tx).await
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        self.leaf.clone().map(|leaf| Entry { leaf, side: Vec::new() })
    }

    fn settle(self: Box<Self>, settled: Settled) {
        let _gone = self.settled.send(settled);
    }
}

fn insert(row: IdentityRow) -> Act {
    Act::new(move |tx| {
        let row = row.clone();
        async move { Ok(tx.insert(&row).await.map(drop)?) }.boxed()
    })
}

fn update(read: i64, row: IdentityRow) -> Act {
    Act::new(move |tx| {
        let row = row.clone();
        async move { Ok(tx.update(read, &row).await.map(drop)?) }.boxed()
    })
}

/// Runs plain statements.
fn sql(text: &'static str) -> Act {
    Act::new(move |tx| async move { Ok(tx.execute(text, vec![]).await.map(drop)?) }.boxed())
}

/// Suspends an identity, read at a version, and moves the authority epoch.
fn suspend(read: &Versioned<IdentityRow>) -> Act {
    let (version, mut row) = (read.version, read.row.clone());
    row.state = IdentityState::Suspended;
    row.revocation_epoch += 1;
    Act::new(move |tx| {
        let row = row.clone();
        async move {
            tx.update(version, &row).await?;
            tx.bump_authority()
        }
        .boxed()
    })
    .bumping()
}

fn id(number: u64) -> Id {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Id::from_bytes(bytes)
}

fn identity(number: u64, name: &str) -> IdentityRow {
    IdentityRow {
        id: IdentityId(id(number)),
        name: name.parse().unwrap(),
        kind: Kind::Pipeline,
        state: IdentityState::Active,
        owner: IdentityId(id(1)).into(),
        owned_since: UnixMillis(1),
        former_owners: "[]".into(),
        person: None,
        needs: String::new(),
        purpose: "tests".into(),
        tier: Tier::Low,
        labels: "{}".into(),
        expires_at: None,
        revocation_epoch: 0,
        authority_rev: 0,
        created_at: UnixMillis(1),
        created_by: "test".into(),
        changed_at: UnixMillis(1),
        changed_by: "test".into(),
        changers: String::new(),
    }
}

/// Makes the same numbers on every run.
struct Dice(u64);

impl Dice {
    /// A number below `bound` (xorshift64*, Vigna 2016).
    fn roll<T: TryFrom<u64>>(&mut self, bound: u64) -> T {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound;
        T::try_from(number).ok().expect("it fits")
    }

    /// One of these.
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll::<usize>(from.len() as u64)].clone()
    }

    /// One time out of so many.
    fn once_in(&mut self, times: u64) -> bool {
        self.roll::<u64>(times) == 0
    }
}

/// Runs beside the test, which waits for it itself.
#[expect(clippy::disallowed_methods, reason = "the test joins it")]
fn spawn<F>(task: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}
