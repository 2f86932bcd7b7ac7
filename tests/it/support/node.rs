//! Nodes in this process, on either store, with the `Hsm` double and clients that log in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use strongroom::engines::pki::Request;
use strongroom::hsm::{Hsm, MemoryHsm};
use strongroom::proto::IssueLoginCertificateRequest;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::server::{First, Founding, Ingredients, ListenerTls, Node, found};
use strongroom::store::{Location, Store};
use strongroom::types::{Caller, Clock, SecretBytes, SystemEntropy, UnixMillis};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::log::Log;
use super::logins::{login_for, register_admin, registration};
use super::postgres::Postgres;
use super::target::until;

/// The double's PIN.
pub(crate) const PIN: &[u8] = b"a pin of the double";
/// The fixture's trust domain.
pub(crate) const TRUST_DOMAIN: &str = "vault.test";
/// The origin of the fixture's log.
pub(crate) const ORIGIN: &str = "vault.test/log";

/// A clock that tests turn by hand; it also runs. How far it was turned on, and how far back: the
/// time that never goes back knows of the first alone.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<(Duration, Duration)>);

impl TestClock {
    /// Turns the clock on.
    pub(crate) fn advance(&self, by: Duration) {
        self.0.lock().0 += by;
    }

    /// Turns the clock back.
    pub(crate) fn set_back(&self, by: Duration) {
        self.0.lock().1 += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        let (on, back) = *self.0.lock();
        let [on, back] = [on, back].map(|by| i64::try_from(by.as_millis()).unwrap());
        UnixMillis(strongroom::types::SystemClock.now().0 + on - back)
    }

    fn monotonic(&self) -> Instant {
        Instant::now() + self.0.lock().0
    }
}

/// Which store a fixture stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Both.
pub(crate) const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Postgres];

/// A founded vault with a running node and its first administrator.
pub(crate) struct Fixture {
    pub(crate) node: Option<Node>,
    pub(crate) parts: Ingredients,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) hsm: Arc<MemoryHsm>,
    pub(crate) admin: Login,
    pub(crate) root_pem: String,
    dir: TempDir,
}

/// A login: a key, a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) key_pem: String,
    pub(crate) certificate_pem: String,
}

/// Makes a key and a request that asks for no name.
pub(crate) fn csr() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).unwrap();
    (key.serialize_pem(), request.pem().unwrap())
}

impl Fixture {
    /// A vault on SQLite.
    pub(crate) async fn new() -> Self {
        Self::on(Backend::Sqlite).await
    }

    /// A vault on either store.
    pub(crate) async fn on(backend: Backend) -> Self {
        let dir = TempDir::new().unwrap();
        let location = location(backend, dir.path()).await;
        Self::at(dir, location).await
    }

    /// A vault at a place of the test's own making.
    pub(crate) async fn at(dir: TempDir, location: Location) -> Self {
        Self::founded(dir, location, true).await
    }

    /// An earnest vault on a real token, whose clock is so far behind: what is made now is as old
    /// once it is right again.
    pub(crate) async fn aged(
        backend: Backend,
        hsm: Arc<dyn Hsm>,
        pin: SecretBytes,
        by: Duration,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let location = location(backend, dir.path()).await;
        let clock = Arc::new(TestClock(Mutex::default()));
        clock.set_back(by);
        let first = First::Bootstrap;
        let mut f = Self::on_token(dir, location, (hsm, pin), clock, (false, first)).await;
        // The bootstrap certificate is over by the time that TLS knows: it connects nowhere.
        register_admin(&f).await;
        f.admin = login_for(&f, "admin", Some(Duration::from_hours(20 * 24))).await;
        f
    }

    /// A vault that is not marked as development, with an administrator that its bootstrap
    /// certificate registered.
    pub(crate) async fn earnest(backend: Backend) -> Self {
        let dir = TempDir::new().unwrap();
        let location = location(backend, dir.path()).await;
        let mut f = Self::founded(dir, location, false).await;
        let bootstrap = f.connect(&f.admin).await;
        let mut client = IdentityServiceClient::new(bootstrap);
        client.create_identity(registration("admin", "human", "")).await.unwrap();
        let (key_pem, csr_pem) = csr();
        let name = "admin".to_owned();
        // Long enough for tests that turn the clock by days.
        let ttl_s = 20 * 86_400;
        let request = IssueLoginCertificateRequest { name, csr_pem, ttl_s, ..Default::default() };
        let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
        f.admin = Login { key_pem, certificate_pem: issued.certificate_pem };
        f
    }

    async fn founded(dir: TempDir, location: Location, dev: bool) -> Self {
        let double = Arc::new(MemoryHsm::new(SecretBytes::new(PIN.to_vec())));
        let hsm = Arc::clone(&double) as Arc<dyn Hsm>;
        let clock = Arc::new(TestClock(Mutex::default()));
        let first = if dev { First::Administrator } else { First::Bootstrap };
        let f = Self::on_token(dir, location, (hsm, pin()), clock, (dev, first)).await;
        Self { hsm: double, ..f }
    }

    async fn on_token(
        dir: TempDir,
        location: Location,
        (hsm, pin): (Arc<dyn Hsm>, SecretBytes),
        clock: Arc<TestClock>,
        (dev, first): (bool, fn(Request) -> First),
    ) -> Self {
        Log::begin();
        let parts = Ingredients {
            node: "a".to_owned(),
            location,
            hsm,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::new(SystemEntropy),
            grpc_listen: ([127, 0, 0, 1], 0).into(),
            http_listen: Some(([127, 0, 0, 1], 0).into()),
            tls: ListenerTls::Issued { kept_in: None },
            server_names: vec!["dns:localhost".parse().unwrap()],
            checkpoint: Duration::from_millis(200),
            limits: strongroom::grpc::Settings::default(),
            crl_url: None,
            sinks: vec![],
            shredded: None,
        };
        let (key_pem, request) = csr();
        let founding = Founding {
            trust_domain: TRUST_DOMAIN.parse().unwrap(),
            origin: ORIGIN.to_owned(),
            dev,
            first: first(Request::parse(request.as_bytes()).unwrap()),
        };
        let founded = found(&parts, &founding, pin.clone()).await.unwrap();
        let admin = Login { key_pem, certificate_pem: founded.certificate_pem };
        let node = Node::start(parts.clone(), pin).await.unwrap();
        let root_pem = founded.root_pem;
        let hsm = Arc::new(MemoryHsm::new(SecretBytes::new(PIN.to_vec())));
        Self { node: Some(node), parts, clock, hsm, admin, root_pem, dir }
    }

    /// The running node.
    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// Starts the node again with a listener's certificate that stays: one of a turned clock would
    /// not be good yet for the test itself.
    pub(crate) async fn keep_listener(&mut self) {
        let dir = self.dir.path().to_owned();
        let (cert_file, key_file) = (dir.join("listener.crt"), dir.join("listener.key"));
        self.parts.tls = ListenerTls::Issued { kept_in: Some(dir) };
        self.restart().await;
        self.parts.tls = ListenerTls::Files { cert_file, key_file };
    }

    /// Stops the node and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.node.take().unwrap().stop().await.unwrap();
        self.node = Some(Node::start(self.parts.clone(), pin()).await.unwrap());
    }

    /// Starts another node on the same store and token.
    pub(crate) async fn second_node(&self) -> Node {
        let parts = Ingredients { node: "b".to_owned(), ..self.parts.clone() };
        Node::start(parts, pin()).await.unwrap()
    }

    /// Connects with a login.
    pub(crate) async fn connect(&self, login: &Login) -> Channel {
        self.connect_to(self.node(), login).await
    }

    /// Connects to one of several nodes.
    pub(crate) async fn connect_to(&self, node: &Node, login: &Login) -> Channel {
        let identity = Identity::from_pem(&login.certificate_pem, &login.key_pem);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.root_pem))
            .identity(identity)
            .domain_name("localhost");
        let uri = format!("https://127.0.0.1:{}", node.grpc_addr.port());
        Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// Connects without any credential.
    pub(crate) async fn connect_as_nobody(&self) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.root_pem))
            .domain_name("localhost");
        let uri = format!("https://127.0.0.1:{}", self.node().grpc_addr.port());
        Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
    }
}

/// Starts a node that can die: it has a runtime of its own, which ends with it.
pub(crate) async fn mortal(f: &Fixture) -> (Runtime, Node) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let parts = f.parts.clone();
    let started = runtime.spawn(async move { Node::start(parts, pin()).await.unwrap() });
    let node = started.await.unwrap();
    (runtime, node)
}

/// Lets the node of a fixture die.
pub(crate) fn die(f: &mut Fixture, runtime: Runtime) {
    let node = f.node.take().unwrap();
    runtime.shutdown_background();
    // Nothing of it is told to end.
    std::mem::forget(node);
}

/// Waits until two nodes take the time that their clock was turned to: each takes the other for
/// late, until one of them has moved the mark, and both have seen that.
pub(crate) async fn both_take_the_time(one: &Node, other: &Node) {
    let take = |of: &Node| of.vault.context(Caller::System("dev"), None).is_ok();
    until("both take the time", async || {
        // A node moves the mark only where somebody asked it for the time.
        let _asked = (take(one), take(other));
        for node in [one, other, one] {
            node.vault.mark_clock().await.unwrap();
        }
        take(one) && take(other)
    })
    .await;
}

/// The double's PIN.
pub(crate) fn pin() -> SecretBytes {
    SecretBytes::new(PIN.to_vec())
}

/// A store that nobody founded a vault in.
pub(crate) async fn location(backend: Backend, dir: &Path) -> Location {
    match backend {
        Backend::Sqlite => {
            Location::Sqlite { path: dir.join("vault.db"), max_mib: 0, reserve_mib: 0 }
        }
        Backend::Postgres => {
            let server = Postgres::shared();
            let empty = MIGRATED.get_or_init(|| migrated(server)).await;
            let unique = dir.file_name().unwrap().to_string_lossy().to_lowercase();
            let name =
                format!("store_{}", unique.replace(|c: char| !c.is_ascii_alphanumeric(), ""));
            let make = format!("CREATE DATABASE \"{name}\" TEMPLATE {empty}");
            server.run("postgres", &make).await;
            // Vaults are told apart by it.
            server.run(&name, "UPDATE store_id SET id = gen_random_uuid()::text").await;
            Location::Postgres { url: server.url(&name), lanes: 2 }
        }
    }
}

/// The database that every other of the process is copied from: a hundred tables are made once.
static MIGRATED: OnceCell<&str> = OnceCell::const_new();

async fn migrated(server: &Postgres) -> &'static str {
    let name = "migrated";
    server.run("postgres", &format!("CREATE DATABASE {name}")).await;
    let location = Location::Postgres { url: server.url(name), lanes: 2 };
    Store::migrate(&location, true).await.unwrap();
    name
}
