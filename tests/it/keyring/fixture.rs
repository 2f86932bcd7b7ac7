//! A keyring over a real SQLite file and a token in memory whose faults are turned on by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use strongroom::audit::RecordCodec;
use strongroom::error::{Error, Result};
use strongroom::hsm::{Hsm, HsmError, KeyInfo, KeyKind, MemoryHsm};
use strongroom::keyring::{FinalTry, Genesis, Keyring, KeyringError, MasterKeys, OnFound};
use strongroom::store::keys::VaultRow;
use strongroom::store::{
    Change, Entry, Job, Location, Needs, Reader, RowSealer, Settled, Store, Tx, Work, Writer,
    Writes,
};
use strongroom::types::{Id, SecretBytes, SystemEntropy, TaskGroup, UnixMillis, VaultId};
use tokio::sync::{Notify, oneshot};

pub(super) const NOW: UnixMillis = UnixMillis(1_795_392_000_000);

pub(super) const fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 16])
}

pub(super) fn pin() -> SecretBytes {
    SecretBytes::new(b"71839265".to_vec())
}

/// A token in memory; one label of it can be swapped for another key.
#[derive(Debug)]
pub(crate) struct Token {
    own: Arc<dyn Hsm>,
    other: MemoryHsm,
    pub(super) swapped: Mutex<Option<String>>,
    pub(super) logins: AtomicUsize,
    /// Keys that can still be made.
    pub(crate) room: AtomicUsize,
    /// How long it takes from a key to its answer.
    pub(crate) lingers: Mutex<Duration>,
    pub(super) lacks: Mutex<Option<KeyKind>>,
    /// Told when a read of a data object has begun; with it, the read never ends.
    pub(super) stuck: Mutex<Option<Arc<Notify>>>,
}

impl Token {
    pub(super) fn new() -> Arc<Self> {
        Self::over(Arc::new(MemoryHsm::new(pin())))
    }

    /// Stands before another token, whose PIN is the same.
    pub(crate) fn over(own: Arc<dyn Hsm>) -> Arc<Self> {
        Arc::new(Self {
            own,
            other: MemoryHsm::unsealed(),
            swapped: Mutex::default(),
            logins: AtomicUsize::new(0),
            room: AtomicUsize::new(usize::MAX),
            lingers: Mutex::default(),
            lacks: Mutex::default(),
            stuck: Mutex::default(),
        })
    }

    fn holder(&self, label: &str) -> &dyn Hsm {
        let swapped = self.swapped.lock().as_deref() == Some(label);
        if swapped { &self.other } else { self.own.as_ref() }
    }

    /// Puts another key of this kind in the place of one.
    pub(super) async fn swap(&self, label: &str, kind: KeyKind) {
        self.other.create_key(label, kind).await.unwrap();
        *self.swapped.lock() = Some(label.to_owned());
    }

    /// Takes a key away.
    pub(super) fn hide(&self, label: &str) {
        *self.swapped.lock() = Some(label.to_owned());
    }
}

#[async_trait]
impl Hsm for Token {
    async fn login(&self, pin: SecretBytes) -> Result<(), HsmError> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.own.login(pin).await
    }

    async fn logout(&self) -> Result<(), HsmError> {
        self.own.logout().await
    }

    async fn create_key(&self, label: &str, kind: KeyKind) -> Result<KeyInfo, HsmError> {
        if *self.lacks.lock() == Some(kind) {
            return Err(HsmError::Unsupported("this kind of key".into()));
        }
        let take = |left: usize| left.checked_sub(1);
        if self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return Err(HsmError::Unavailable("the plug was pulled".into()));
        }
        let made = self.own.create_key(label, kind).await;
        let lingers = *self.lingers.lock();
        tokio::time::sleep(lingers).await;
        made
    }

    async fn lookup_key(&self, label: &str) -> Result<Option<KeyInfo>, HsmError> {
        self.holder(label).lookup_key(label).await
    }

    async fn destroy_key(&self, label: &str) -> Result<(), HsmError> {
        self.own.destroy_key(label).await
    }

    async fn hmac(&self, label: &str, data: &[u8]) -> Result<SecretBytes, HsmError> {
        self.holder(label).hmac(label, data).await
    }

    async fn sign(&self, label: &str, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.holder(label).sign(label, message).await
    }

    async fn decrypt(
        &self,
        label: &str,
        ciphertext: &[u8],
    ) -> Result<Option<SecretBytes>, HsmError> {
        self.holder(label).decrypt(label, ciphertext).await
    }

    async fn agree(&self, label: &str, point: &[u8]) -> Result<Option<SecretBytes>, HsmError> {
        self.holder(label).agree(label, point).await
    }

    async fn random(&self, len_bytes: usize) -> Result<SecretBytes, HsmError> {
        self.own.random(len_bytes).await
    }

    async fn read_data(&self, label: &str) -> Result<Option<Vec<u8>>, HsmError> {
        let stuck = self.stuck.lock().clone();
        if let Some(begun) = stuck {
            begun.notify_one();
            std::future::pending::<()>().await;
        }
        self.own.read_data(label).await
    }

    async fn write_data(&self, label: &str, value: &[u8]) -> Result<(), HsmError> {
        self.own.write_data(label, value).await
    }
}

/// A node: its keyring and its store.
pub(super) struct Node {
    pub(super) token: Arc<Token>,
    pub(super) keyring: Keyring,
    pub(super) reader: Reader,
    writer: Writer,
    _tasks: TaskGroup,
    dir: Arc<tempfile::TempDir>,
}

pub(super) fn vault(byte: u8) -> VaultRow {
    VaultRow {
        id: VaultId(id(byte)),
        trust_domain: "example.org".into(),
        dev: false,
        origin: "example.org/log".into(),
        created_at: NOW,
        restore_epoch: 0,
        restored_at: NOW,
    }
}

impl Node {
    /// Starts a node, sealed, on an empty store.
    pub(super) async fn empty(token: Arc<Token>) -> Self {
        Self::start(token, Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn start(token: Arc<Token>, dir: Arc<tempfile::TempDir>) -> Self {
        let sealer = Arc::new(RowSealer::default());
        let tasks = TaskGroup::default();
        let path = file(dir.path());
        let location = Location::Sqlite { path, max_mib: 0, reserve_mib: 0 };
        let codec = Arc::new(RecordCodec::default());
        let (reader, writer) =
            Store::open(&location, "node", Arc::clone(&sealer), codec, &tasks).await.unwrap();
        let keyring = Keyring::new(token.clone(), Arc::new(SystemEntropy), sealer);
        Self { token, keyring, reader, writer, _tasks: tasks, dir }
    }

    /// Starts a node on a store with a vault, unsealed.
    pub(super) async fn founded() -> Self {
        let node = Self::empty(Token::new()).await;
        let genesis = node.keyring.create(vault(1), pin(), OnFound::Refuse).await.unwrap();
        node.store(genesis).await.unwrap();
        node.keyring.founded().await.unwrap();
        node
    }

    /// Starts the node again, as another process would: sealed, nothing in memory.
    pub(super) async fn restarted(&self) -> Self {
        self.token.own.logout().await.unwrap();
        Self::start(Arc::clone(&self.token), Arc::clone(&self.dir)).await
    }

    pub(super) async fn unseal(&self) -> Result<MasterKeys, KeyringError> {
        self.keyring.unseal(&self.reader, pin(), FinalTry::Refuse).await
    }

    pub(super) async fn store(&self, genesis: Genesis) -> Result<()> {
        self.commit(move |tx| {
            let genesis = genesis.clone();
            Box::pin(async move { genesis.store(tx, "init").await })
        })
        .await
    }

    /// Commits a piece of work.
    pub(super) async fn commit<F>(&self, work: F) -> Result<()>
    where
        F: for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<()>> + Send + 'static,
    {
        let (told, hears) = oneshot::channel();
        let needs = Needs { writes: Writes::Many, bumps: true, urgent: false };
        let work = Box::new(Piece { work: Box::new(work), told });
        self.writer.submit(Job { fence: None, needs, work }).await?;
        match hears.await.unwrap() {
            Settled::Durable { outcome, .. } => outcome,
            Settled::Moved => Err(Error::Conflict("moved".into())),
            Settled::Lost(error) => Err(error.into()),
        }
    }

    /// Edits the database behind the vault's back.
    pub(super) fn by_hand(&self, sql: &str) {
        let database = rusqlite::Connection::open(file(self.dir.path())).unwrap();
        database.execute_batch(sql).unwrap();
    }

    /// Reads one text behind the vault's back.
    pub(super) fn look(&self, sql: &str) -> String {
        let database = rusqlite::Connection::open(file(self.dir.path())).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("vault.db")
}

type Run = Box<dyn for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<()>> + Send>;

struct Piece {
    work: Run,
    told: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Piece {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        (self.work)(tx).await
    }

    fn entry(&mut self, _outcome: Result<&[Change], &Error>) -> Option<Entry> {
        None
    }

    fn settle(self: Box<Self>, settled: Settled) {
        self.told.send(settled).unwrap();
    }
}
