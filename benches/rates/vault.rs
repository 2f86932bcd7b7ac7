//! The real server with its defaults: SoftHSM, SQLite, durable record, sealed rows, fences.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use strongroom::engines::pki::Request;
use strongroom::hsm::{Pkcs11Config, Pkcs11Hsm, TokenSelector, softhsm};
use strongroom::server::{First, Founding, Ingredients, ListenerTls, Node, found};
use strongroom::store::Location;
use strongroom::types::{SecretBytes, SystemClock, SystemEntropy};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::caller::Caller;

/// Where the token is, in the environment of the second start.
const DIR: &str = "STRONGROOM_BENCH_DIR";
const PIN: &[u8] = b"bench-pin";

/// SoftHSM finds its tokens through the environment, so the bench starts itself once more.
pub(crate) fn with_token() -> Option<(Command, tempfile::TempDir)> {
    if std::env::var_os(DIR).is_some() {
        return None;
    }
    let dir = tempfile::Builder::new().prefix("strongroom-bench-").tempdir().unwrap();
    let conf = softhsm::write_configuration(dir.path()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(std::env::args().skip(1)).env("SOFTHSM2_CONF", conf).env(DIR, dir.path());
    Some((command, dir))
}

/// Tokens of the HSM: for the vault of most workloads, for two nodes on one PostgreSQL, for many
/// live tokens.
pub(crate) const BENCH: &str = "bench";
pub(crate) const PAIR: &str = "pair";
pub(crate) const MANY: &str = "many";
/// For the rotation of a root key.
pub(crate) const ROOT: &str = "root";

/// Makes the HSM's tokens, before anything uses one.
pub(crate) fn initialise_tokens() {
    let module = softhsm::lookup_module().expect("SoftHSM is installed by make deps");
    let so_pin = SecretBytes::new(b"bench-so-pin".to_vec());
    for label in [BENCH, PAIR, MANY, ROOT] {
        softhsm::initialise_token(&module, label, &so_pin, &pin()).unwrap();
    }
}

/// Where everything of this run lies.
pub(crate) fn dir() -> PathBuf {
    std::env::var_os(DIR).unwrap().into()
}

/// A store of our own.
pub(crate) fn sqlite(name: &str) -> Location {
    Location::Sqlite { path: dir().join(name), max_mib: 0, reserve_mib: 0 }
}

pub(crate) fn pin() -> SecretBytes {
    SecretBytes::new(PIN.to_vec())
}

/// What a node is made of, with the token of a label.
fn ingredients(label: &str, location: Location) -> (Arc<Pkcs11Hsm>, Ingredients) {
    let module = softhsm::lookup_module().expect("SoftHSM is installed by make deps");
    let config = Pkcs11Config { module, token: TokenSelector::Label(label.to_owned()) };
    let hsm = Arc::new(Pkcs11Hsm::open(&config).unwrap());
    let parts = Ingredients {
        node: label.to_owned(),
        location,
        hsm: hsm.clone(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        grpc_listen: ([127, 0, 0, 1], 0).into(),
        http_listen: None,
        tls: ListenerTls::Issued { kept_in: None },
        server_names: vec!["dns:localhost".parse().unwrap()],
        checkpoint: Duration::from_secs(1),
        limits: strongroom::grpc::Settings { certificates: 1_000_000, ..Default::default() },
        crl_url: None,
        sinks: vec![],
        shredded: None,
    };
    (hsm, parts)
}

/// A node of a vault that was founded before.
pub(crate) async fn serve(label: &str, location: Location) -> Node {
    Node::start(ingredients(label, location).1, pin()).await.unwrap()
}

/// A vault with its administrator's login; running, or founded alone.
pub(crate) struct Vault<N = Node> {
    pub(crate) node: N,
    pub(crate) hsm: Arc<Pkcs11Hsm>,
    pub(crate) certificate_pem: String,
    parts: Ingredients,
    key_pem: String,
}

impl Vault {
    /// The one that most workloads measure.
    pub(crate) async fn start() -> Self {
        Self::on(BENCH, sqlite("vault.db")).await
    }

    /// Founds a vault and serves it.
    pub(crate) async fn on(label: &str, location: Location) -> Self {
        Self::found(label, location).await.serve().await
    }

    /// Founds a vault.
    pub(crate) async fn found(label: &str, location: Location) -> Vault<()> {
        let (hsm, parts) = ingredients(label, location);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).unwrap();
        let founding = Founding {
            trust_domain: "bench.test".parse().unwrap(),
            origin: "bench.test/log".to_owned(),
            dev: true,
            first: First::Administrator(Request::parse(csr.der()).unwrap()),
        };
        let founded = found(&parts, &founding, pin()).await.unwrap();
        let certificate_pem = founded.certificate_pem;
        Vault { node: (), hsm, certificate_pem, parts, key_pem: key.serialize_pem() }
    }

    /// Connections of its administrator that cost little.
    pub(crate) async fn callers(&self, count: usize) -> Vec<Caller> {
        let login = (self.certificate_pem.as_str(), self.key_pem.as_str());
        let mut callers = Vec::new();
        for _ in 0..count {
            let (address, root) = (&self.node.grpc_addr.to_string(), &self.node.root_pem);
            callers.push(Caller::connect(address, root, Some(login)).await);
        }
        callers
    }

    /// Another node of the same vault.
    pub(crate) async fn second_node(&self) -> Node {
        let parts = Ingredients { node: "beside".to_owned(), ..self.parts.clone() };
        Node::start(parts, pin()).await.unwrap()
    }

    pub(crate) async fn channels(&self, count: usize) -> Vec<Channel> {
        let login = Identity::from_pem(&self.certificate_pem, &self.key_pem);
        let mut channels = Vec::new();
        for _ in 0..count {
            let (address, root) = (&self.node.grpc_addr.to_string(), &self.node.root_pem);
            channels.push(connect(address, root, Some(login.clone())).await);
        }
        channels
    }
}

impl Vault<()> {
    /// What its node is made of.
    pub(crate) const fn parts(&self) -> &Ingredients {
        &self.parts
    }

    /// Serves it.
    pub(crate) async fn serve(self) -> Vault {
        let Self { node: (), hsm, certificate_pem, parts, key_pem } = self;
        let node = Node::start(parts.clone(), pin()).await.unwrap();
        Vault { node, hsm, certificate_pem, parts, key_pem }
    }
}

/// Connects to a node, with a login or without any.
pub(crate) async fn connect(address: &str, root_pem: &str, login: Option<Identity>) -> Channel {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(root_pem))
        .domain_name("localhost");
    let tls = match login {
        Some(login) => tls.identity(login),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}
