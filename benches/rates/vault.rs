//! The real server with its defaults: SoftHSM, SQLite, durable record, sealed rows, fences.

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

/// Where the token is, in the environment of the second start.
const DIR: &str = "STRONGROOM_BENCH_DIR";
const PIN: &[u8] = b"bench-pin";

/// SoftHSM finds its tokens through the environment, so the bench starts itself once more.
pub(crate) fn with_token() -> Option<Command> {
    if std::env::var_os(DIR).is_some() {
        return None;
    }
    let dir = tempfile::Builder::new().prefix("strongroom-bench-").tempdir().unwrap().keep();
    let conf = softhsm::write_configuration(&dir).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(std::env::args().skip(1)).env("SOFTHSM2_CONF", conf).env(DIR, dir);
    Some(command)
}

/// A running vault with its administrator's login.
pub(crate) struct Vault {
    pub(crate) node: Node,
    pub(crate) hsm: Arc<Pkcs11Hsm>,
    key_pem: String,
    certificate_pem: String,
}

impl Vault {
    pub(crate) async fn start() -> Self {
        let dir = std::path::PathBuf::from(std::env::var_os(DIR).unwrap());
        let module = softhsm::lookup_module().expect("SoftHSM is installed by make deps");
        let pin = SecretBytes::new(PIN.to_vec());
        let label = "bench";
        let so_pin = SecretBytes::new(b"bench-so-pin".to_vec());
        softhsm::initialise_token(&module, label, &so_pin, &pin).unwrap();
        let config = Pkcs11Config { module, token: TokenSelector::Label(label.to_owned()) };
        let hsm = Arc::new(Pkcs11Hsm::open(&config).unwrap());
        let parts = Ingredients {
            node: "bench".to_owned(),
            location: Location::Sqlite { path: dir.join("vault.db"), max_mib: 0, reserve_mib: 0 },
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
        };
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
        let founded = found(&parts, &founding, pin.clone()).await.unwrap();
        let node = Node::start(parts, pin).await.unwrap();
        let certificate_pem = founded.certificate_pem;
        Self { node, hsm, key_pem: key.serialize_pem(), certificate_pem }
    }

    pub(crate) async fn channels(&self, count: usize) -> Vec<Channel> {
        let mut channels = Vec::new();
        for _ in 0..count {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&self.node.root_pem))
                .identity(Identity::from_pem(&self.certificate_pem, &self.key_pem))
                .domain_name("localhost");
            let uri = format!("https://{}", self.node.grpc_addr);
            let endpoint = Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap();
            channels.push(endpoint.connect().await.unwrap());
        }
        channels
    }
}
