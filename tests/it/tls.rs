//! The listener before real clients: who gets in, who is cut off, and what a connection tells.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use strongroom::engines::pki::Certificate;
use strongroom::grpc::tls::{Connections, Limits, PeerInfo, ServerIdentity, Tls, Trust, listen};
use strongroom::telemetry::Metrics;
use strongroom::types::{Clock, SystemClock, TaskGroup, UnixMillis};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::ParsedExtension;

use crate::authorities::{Authorities, Issued, serial};

/// A clock that is the machine's, moved by hand.
#[derive(Debug, Default)]
struct MovedClock(AtomicI64);

impl Clock for MovedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

struct Fixture {
    authorities: Authorities,
    address: SocketAddr,
    clock: Arc<MovedClock>,
    tls: Arc<Tls>,
    connections: Option<Connections>,
    tasks: TaskGroup,
}

async fn identity(authorities: &Authorities) -> ServerIdentity {
    let listener = authorities.listener().await;
    let chain = listener.certificate.pem() + &authorities.issuing.pem();
    ServerIdentity::from_pem(chain.as_bytes(), listener.key_pem.as_bytes(), authorities.now)
        .unwrap()
}

fn trust(authorities: &Authorities) -> Trust {
    let login_ca = authorities.login.certificate_der();
    Trust::of(&authorities.trust_domain, [login_ca]).unwrap()
}

impl Fixture {
    async fn new(limits: Limits) -> Self {
        let authorities = Authorities::new().await;
        let clock = Arc::new(MovedClock::default());
        let identity = identity(&authorities).await;
        let tls = Tls::new(&identity, trust(&authorities), Arc::<MovedClock>::clone(&clock));
        let tls = Arc::new(tls.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskGroup::default();
        let metrics = Arc::new(Metrics::default());
        let connections = listen(listener, Arc::clone(&tls), limits, Arc::clone(&metrics), &tasks);
        Self { authorities, address, clock, tls, connections: Some(connections), tasks }
    }

    fn client(&self, login: Option<&Issued>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authorities.root.certificate_der().to_vec().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match login {
            None => builder.with_no_client_auth(),
            Some(login) => {
                let chain = vec![CertificateDer::from(login.certificate.der.clone())];
                let key = PrivateKeyDer::from_pem_slice(login.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Shakes hands and waits for a byte, which only a connection that was accepted gets.
    async fn connect(&mut self, config: ClientConfig) -> Option<PeerInfo> {
        let mut client = pin!(greet(self.address, Arc::new(config)));
        let mut server = pin!(take(self.connections.as_mut().unwrap()));
        tokio::select! {
            client = &mut client => {
                let _stream = client?;
                server.await
            }
            peer = &mut server => client.await.and(peer),
        }
    }

    async fn connect_as(&mut self, login: &Issued) -> Option<PeerInfo> {
        let config = self.client(Some(login));
        self.connect(config).await
    }
}

async fn shake(address: SocketAddr, config: Arc<ClientConfig>) -> Option<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, stream).await.ok()
}

async fn greet(address: SocketAddr, config: Arc<ClientConfig>) -> Option<TlsStream<TcpStream>> {
    let mut stream = shake(address, config).await?;
    stream.read_u8().await.ok().map(|_byte| stream)
}

/// Takes a connection where one comes within a second, and greets it.
async fn take(connections: &mut Connections) -> Option<PeerInfo> {
    use tonic::transport::server::Connected as _;
    let next = tokio::time::timeout(Duration::from_secs(1), connections.next()).await;
    let mut connection = next.ok()??.unwrap();
    connection.write_u8(1).await.unwrap();
    connection.flush().await.unwrap();
    Some(connection.connect_info())
}

#[tokio::test]
async fn a_login_certificate_tells_who_connects() {
    let mut f = Fixture::new(Limits::default()).await;
    let login = f.authorities.log_in_as("etl/nightly").await;
    let peer = f.connect_as(&login).await.unwrap();
    assert!(peer.address.ip().is_loopback());
    let certificate = peer.certificate.unwrap();
    assert_eq!(certificate.id.to_string(), "spiffe://vault.example/pipeline/etl/nightly");
    assert_eq!(certificate.not_after, login.certificate.not_after);
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &login.certificate.der);
    assert_eq!(certificate.der_sha256, sha256.as_ref());
}

#[tokio::test]
async fn without_a_certificate_a_connection_stands_and_has_no_name() {
    let mut f = Fixture::new(Limits::default()).await;
    let config = f.client(None);
    assert_eq!(f.connect(config).await.unwrap().certificate, None);
}

#[tokio::test]
async fn certificates_of_other_authorities_are_refused() {
    let mut f = Fixture::new(Limits::default()).await;
    // Another login CA for the same trust domain; our own issuing CA.
    let stranger = Authorities::new().await.log_in_as("etl").await;
    assert_eq!(f.connect_as(&stranger).await, None);
    let listener = f.authorities.listener().await;
    assert_eq!(f.connect_as(&listener).await, None);
    let login = f.authorities.log_in_as("etl").await;
    assert!(f.connect_as(&login).await.is_some());
}

#[tokio::test]
async fn expired_and_early_certificates_are_refused() {
    let mut f = Fixture::new(Limits::default()).await;
    let login = f.authorities.log_in_as("etl").await;
    for (moved_s, fits) in [(0, true), (3_590, true), (3_605, false), (-120, false), (10, true)] {
        f.clock.0.store(moved_s * 1_000, Ordering::SeqCst);
        assert_eq!(f.connect_as(&login).await.is_some(), fits, "{moved_s} s");
    }
}

#[tokio::test]
async fn exactly_one_uri_decides() {
    let mut f = Fixture::new(Limits::default()).await;
    let ours = "spiffe://vault.example/pipeline/etl";
    let other = "spiffe://vault.example/human/admin";
    for (uris, dns, common_name, fits) in [
        (&[ours][..], &[][..], None, true),
        (&[ours], &["localhost"], Some("admin"), true),
        (&[ours, other], &[], None, false),
        (&[ours, ours], &[], None, false),
        (&[], &["localhost"], Some(ours), false),
        (&["https://vault.example/pipeline/etl"], &[], None, false),
        (&["spiffe://other.example/pipeline/etl"], &[], None, false),
        (&["spiffe://vault.example/pipeline/ETL"], &[], None, false),
    ] {
        let (login_ca, login) = foreign_login(uris, dns, common_name);
        let trust = Trust::of(&f.authorities.trust_domain, [&login_ca]).unwrap();
        f.tls.replace(&identity(&f.authorities).await, trust).unwrap();
        let peer = f.connect_as(&login).await;
        assert_eq!(peer.is_some(), fits, "{uris:?} {dns:?} {common_name:?}");
        if let Some(peer) = peer {
            assert_eq!(peer.certificate.unwrap().id.to_string(), ours);
        }
    }
}

/// A CA made by hand and a client certificate under it that our own authorities never write.
fn foreign_login(uris: &[&str], dns: &[&str], common_name: Option<&str>) -> (Vec<u8>, Issued) {
    use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let ca_der = ca.self_signed(&ca_key).unwrap().der().to_vec();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
    let host = |host: &&str| SanType::DnsName((*host).try_into().unwrap());
    params.subject_alt_names = uris.iter().map(uri).chain(dns.iter().map(host)).collect();
    let signed = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let certificate = Certificate {
        der: signed.der().to_vec(),
        serial: serial(),
        not_before: UnixMillis(0),
        not_after: UnixMillis(0),
    };
    (ca_der, Issued { certificate, key_pem: key.serialize_pem() })
}

#[tokio::test]
async fn an_authority_that_is_not_the_login_ca_lets_nobody_in_whatever_it_says() {
    let mut f = Fixture::new(Limits::default()).await;
    for uri in ["spiffe://other.example/pipeline/etl", "spiffe://vault.example/pipeline/etl"] {
        let (_, login) = foreign_login(&[uri], &[], None);
        assert!(f.connect_as(&login).await.is_none(), "{uri}");
    }
    let ours = &f.authorities.trust_domain;
    let leaf = f.authorities.log_in_as("etl").await.certificate.der;
    assert!(Trust::of(ours, [&leaf]).is_err(), "a leaf is no authority");
}

/// What a certificate says of itself and of what signed it: names, serial and key id.
fn said(der: &[u8]) -> [Vec<u8>; 3] {
    let (_, read) = x509_parser::parse_x509_certificate(der).unwrap();
    let key_id = read.iter_extensions().find_map(|extension| {
        let parsed = extension.parsed_extension();
        let ParsedExtension::AuthorityKeyIdentifier(of) = parsed else { return None };
        of.key_identifier.as_ref()
    });
    [read.issuer().as_raw().to_vec(), read.raw_serial().to_vec(), key_id.unwrap().0.to_vec()]
}

#[tokio::test]
async fn a_login_of_the_same_name_serial_and_key_id_by_another_key_lets_nobody_in() {
    use rcgen::{CertificateParams, DistinguishedName, Issuer, KeyPair, SanType};
    let mut f = Fixture::new(Limits::default()).await;
    let login = f.authorities.log_in_as("etl").await;
    let real = said(&login.certificate.der);
    let ca = CertificateDer::from(f.authorities.login.certificate_der().to_vec());
    let forger = Issuer::from_ca_cert_der(&ca, KeyPair::generate().unwrap()).unwrap();
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(real[1].clone().into());
    params.use_authority_key_identifier_extension = true;
    let name = "spiffe://vault.example/pipeline/etl".try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(name)];
    let der = params.signed_by(&key, &forger).unwrap().der().to_vec();
    assert_eq!(said(&der), real);
    let certificate = Certificate { der, ..login.certificate.clone() };
    let counterfeit = Issued { certificate, key_pem: key.serialize_pem() };
    assert_eq!(f.connect_as(&counterfeit).await, None);
    assert!(f.connect_as(&login).await.is_some());
}

#[tokio::test]
async fn a_standing_connection_is_judged_again() {
    let mut f = Fixture::new(Limits::default()).await;
    let login = f.authorities.log_in_as("etl").await;
    let peer = f.connect_as(&login).await.unwrap().certificate.unwrap();
    let now = f.authorities.now;
    let later = |s| now.plus(Duration::from_secs(s)).unwrap();
    assert!(peer.still_valid(now, &f.tls.trust()));
    assert!(peer.still_valid(later(3_600), &f.tls.trust()));
    assert!(!peer.still_valid(later(3_601), &f.tls.trust()));
    let others = Authorities::new().await;
    f.tls.replace(&identity(&f.authorities).await, trust(&others)).unwrap();
    assert!(!peer.still_valid(now, &f.tls.trust()), "trust moved on");
    assert_eq!(f.connect_as(&login).await, None, "for new connections as well");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let mut f = Fixture::new(Limits::default()).await;
    let login = f.authorities.log_in_as("etl").await;
    let mut config = f.client(Some(&login));
    config.resumption = Resumption::in_memory_sessions(64);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for round in 0..3 {
        let connections = f.connections.as_mut().unwrap();
        let (client, server) =
            tokio::join!(greet(f.address, Arc::clone(&config)), take(connections));
        let client = client.unwrap();
        let (_, session) = client.get_ref();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "round {round}");
        assert_eq!(session.tls13_tickets_received(), 0);
        assert!(!session.is_early_data_accepted());
        assert!(server.unwrap().certificate.is_some());
    }
}

#[tokio::test]
async fn older_versions_and_other_protocols_are_refused() {
    let mut f = Fixture::new(Limits::default()).await;
    let address = f.address.to_string();
    for (arguments, fits) in [
        (&["-tls1_3", "-alpn", "h2"][..], true),
        (&["-tls1_2", "-alpn", "h2"], false),
        (&["-tls1_1", "-cipher", "ALL@SECLEVEL=0", "-alpn", "h2"], false),
        (&["-tls1_3", "-alpn", "http/1.1"], false),
        (&["-tls1_3"], false),
    ] {
        let mut client = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-quiet"])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let taken = tokio::select! {
            taken = take(f.connections.as_mut().unwrap()) => taken,
            _refused = client.wait() => None,
        };
        assert_eq!(taken.is_some(), fits, "{arguments:?}");
        drop(client.stdin.take());
        client.wait().await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut_after_five_seconds() {
    let f = Fixture::new(Limits::default()).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(f.address).await.unwrap();
    let mut dripping = TcpStream::connect(f.address).await.unwrap();
    // The head of a ClientHello that never comes.
    dripping.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    for stream in [&mut silent, &mut dripping] {
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "it is closed");
        let elapsed = began.elapsed();
        assert!((4_900..6_500).contains(&elapsed.as_millis()), "{elapsed:?}");
    }
}

#[tokio::test]
async fn stuck_handshakes_starve_nobody() {
    for handshakes in [Limits::default().handshakes, 16] {
        let mut f = Fixture::new(Limits { handshakes, ..Limits::default() }).await;
        let mut stuck = Vec::new();
        for _ in 0..200 {
            stuck.push(TcpStream::connect(f.address).await.unwrap());
        }
        let login = f.authorities.log_in_as("etl").await;
        let began = Instant::now();
        assert!(f.connect_as(&login).await.is_some(), "{handshakes}");
        assert!(began.elapsed() < Duration::from_secs(1), "{handshakes}: {:?}", began.elapsed());
        // With room for 16, the first one was cut to make room.
        if handshakes == 16 {
            assert_eq!(stuck[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
        }
    }
}

#[tokio::test]
async fn stopping_ends_accepting_and_the_stream() {
    let mut f = Fixture::new(Limits::default()).await;
    let _stuck = TcpStream::connect(f.address).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), f.tasks.shutdown()).await;
    assert!(ended.is_ok(), "a stuck handshake does not hold the shutdown");
    assert!(f.connections.as_mut().unwrap().next().await.is_none());
    assert!(TcpStream::connect(f.address).await.is_err());
}

#[tokio::test]
async fn requests_carry_the_peer_through_tonic() {
    use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server};
    let mut f = Fixture::new(Limits::default()).await;
    let (seen, mut peers) = tokio::sync::mpsc::unbounded_channel();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let health = tonic::service::interceptor::InterceptedService::new(
        health,
        move |request: tonic::Request<()>| {
            seen.send(request.extensions().get::<PeerInfo>().cloned()).unwrap();
            Ok(request)
        },
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serve = Server::builder().add_service(health).serve_with_incoming_shutdown(
        f.connections.take().unwrap(),
        async {
            stopped.await.unwrap();
        },
    );
    let server = f.tasks.spawn(serve);
    let login = f.authorities.log_in_as("etl").await;
    let pem = login.certificate.pem();
    for identity in [Some(Identity::from_pem(pem, &login.key_pem)), None] {
        let named = identity.is_some();
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(f.authorities.root.pem()))
            .domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let channel = Channel::from_shared(format!("https://{}", f.address)).unwrap();
        let channel = channel.tls_config(tls).unwrap().connect().await.unwrap();
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        client.check(request).await.unwrap();
        let certificate = peers.recv().await.unwrap().unwrap().certificate;
        let name = certificate.map(|certificate| certificate.id.name.to_string());
        assert_eq!(name.as_deref(), named.then_some("etl"));
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn certificate_and_key_files_are_read_or_refused_with_a_reason() {
    let authorities = Authorities::new().await;
    let [listener, another] = [authorities.listener().await, authorities.listener().await];
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let chain = write("chain.pem", &(listener.certificate.pem() + &authorities.issuing.pem()));
    let key = write("key.pem", &listener.key_pem);
    let other = write("other.pem", &another.key_pem);
    let empty = write("empty.pem", "");
    let large = write("large.pem", &"x".repeat(300_000));
    let missing = dir.path().join("missing.pem");
    let now = authorities.now;
    let later = now.plus(Duration::from_hours(25)).unwrap();
    assert!(ServerIdentity::load(&chain, &key, now).is_ok());
    for (chain, key, now, part) in [
        (&missing, &key, now, "missing.pem cannot be read"),
        (&chain, &missing, now, "missing.pem cannot be read"),
        (&empty, &key, now, "empty.pem holds no certificate"),
        (&chain, &empty, now, "empty.pem holds no private key"),
        (&chain, &chain, now, "chain.pem holds no private key"),
        (&chain, &other, now, "other.pem holds another key"),
        (&large, &key, now, "large.pem is larger"),
        (&chain, &key, later, "chain.pem holds a certificate that has expired"),
    ] {
        let refused = ServerIdentity::load(chain, key, now).unwrap_err().to_string();
        assert!(refused.contains(part), "{part}: {refused}");
    }
}
