//! A receiver of webhooks at a real socket: takes down what comes, and answers as it is told.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::target::until;

/// How it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With these bytes, and closes.
    Bytes(Vec<u8>),
    /// Not at all.
    Hangs,
    /// With more than anybody should read.
    Endless,
}

impl Answer {
    pub(crate) fn status(line: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    }
}

/// What came.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) head: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

#[derive(Debug, Default)]
struct Told {
    came: Vec<Delivery>,
    answers: VecDeque<Answer>,
    usual: Option<Answer>,
}

/// A receiver; it goes away when it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    told: Arc<Mutex<Told>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    pub(crate) async fn new() -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), None).await
    }

    pub(crate) async fn at(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, told) = (listener.local_addr().unwrap(), Arc::new(Mutex::default()));
        let kept = Arc::clone(&told);
        let serving = tokio::task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, tls) = (Arc::clone(&kept), tls.clone());
                tokio::task::spawn(async move {
                    match tls {
                        None => serve(stream, &told).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                serve(stream, &told).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, told, serving }
    }

    /// Answers the next deliveries so, one each, before it answers as usual.
    pub(crate) fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.told.lock().answers.extend(answers);
    }

    /// Answers so from now on.
    pub(crate) fn usually(&self, answer: Option<Answer>) {
        self.told.lock().usual = answer;
    }

    /// Everything that came.
    pub(crate) fn came(&self) -> Vec<Delivery> {
        self.told.lock().came.clone()
    }

    /// What came, each id once, in the order in which it came first.
    pub(crate) fn once(&self) -> Vec<Delivery> {
        let mut seen = HashSet::new();
        self.came().into_iter().filter(|one| seen.insert(one.id().to_owned())).collect()
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.once().iter().map(Delivery::kind).collect()
    }

    /// Waits for a kind of notice, and shows the first of it.
    pub(crate) async fn waits_for(&self, kind: &str) -> Delivery {
        until(kind, async || self.kinds().iter().any(|one| one == kind)).await;
        self.once().into_iter().find(|one| one.kind() == kind).unwrap()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, told: &Mutex<Told>) {
    let Some(delivery) = read(&mut stream).await else { return };
    let answer = {
        let mut told = told.lock();
        told.came.push(delivery);
        let usual = told.usual.clone();
        told.answers.pop_front().or(usual).unwrap_or_else(|| Answer::status("204 No Content"))
    };
    match answer {
        Answer::Bytes(bytes) => {
            drop(stream.write_all(&bytes).await);
            drop(stream.flush().await);
        }
        Answer::Hangs => tokio::time::sleep(Duration::from_mins(1)).await,
        Answer::Endless => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await);
            while stream.write_all(&[b'x'; 8_192]).await.is_ok() {}
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Delivery> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let first = lines.next().unwrap().to_owned();
            let header = |line: &str| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_ascii_lowercase(), value.trim().to_owned())
            };
            let headers: BTreeMap<_, _> = lines.map(header).collect();
            let length: usize = headers["content-length"].parse().unwrap();
            let begins = head.len() + 4;
            if bytes.len() >= begins + length {
                let body = bytes[begins..begins + length].to_vec();
                return Some(Delivery { head: first, headers, body });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A CA, and a certificate by it for names and addresses, with its key; all PEM.
pub(crate) struct Authority {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(names: &[&str]) -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let signed = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { ca: own, certificate: signed.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        use rustls_pki_types::pem::PemObject as _;
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key));
        Arc::new(config.unwrap())
    }
}
