//! How many connections a node keeps, and for how long it waits for those that say nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use strongroom::grpc::tls::Limits;
use strongroom::proto::WhoAmIRequest;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::logins;
use crate::support::node::{Fixture, Login};

async fn limited(limits: Limits) -> Fixture {
    let mut f = Fixture::new().await;
    f.parts.limits.connections = limits;
    f.parts.http_listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    f.restart().await;
    f
}

async fn connect(f: &Fixture, login: Option<&Login>) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&f.root_pem))
        .domain_name("localhost");
    if let Some(login) = login {
        tls = tls.identity(Identity::from_pem(&login.certificate_pem, &login.key_pem));
    }
    let uri = format!("https://127.0.0.1:{}", f.node().grpc_addr.port());
    Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap().connect().await
}

/// Whether a connection of somebody who logs in is kept.
async fn serves(f: &Fixture) -> Option<Channel> {
    let channel = connect(f, Some(&f.admin)).await.ok()?;
    works(&channel).await.then_some(channel)
}

async fn works(channel: &Channel) -> bool {
    IdentityServiceClient::new(channel.clone()).who_am_i(WhoAmIRequest {}).await.is_ok()
}

/// How many connections were closed because there were too many.
async fn refused(f: &Fixture) -> u64 {
    let mut stream = TcpStream::connect(f.node().http_addr.unwrap()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let name = "strongroom_connections_refused_total ";
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_and_counted_and_the_others_go_on() {
    let f = limited(Limits { connections: 8, ..Limits::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..8 {
        kept.push(serves(&f).await.unwrap());
    }
    assert_eq!(refused(&f).await, 0);
    for more in 1..=3 {
        assert!(serves(&f).await.is_none(), "{more}");
        let mut stranger = TcpStream::connect(f.node().grpc_addr).await.unwrap();
        let began = Instant::now();
        assert_eq!(stranger.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed at once");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    assert!(refused(&f).await >= 6);
    for channel in &kept {
        assert!(works(channel).await, "it goes on");
    }
    kept.pop();
    let patience = Instant::now() + Duration::from_secs(10);
    while serves(&f).await.is_none() {
        assert!(Instant::now() < patience, "the place is free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_a_quarter_of_the_places_and_no_more() {
    let f = limited(Limits { connections: 8, ..Limits::default() }).await;
    let mut strangers = Vec::new();
    for _ in 0..10 {
        if let Ok(channel) = connect(&f, None).await
            && health(&channel).await
        {
            strangers.push(channel);
        }
    }
    assert_eq!(strangers.len(), 2);
    assert!(refused(&f).await >= 8);
    let mut known = Vec::new();
    for _ in 0..6 {
        known.push(serves(&f).await.unwrap());
    }
    assert!(serves(&f).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_and_one_network_leave_room_for_others() {
    let f = limited(Limits { connections: 128, ..Limits::default() }).await;
    logins::register(&f, "etl", "pipeline", "admin").await;
    let etl = logins::login(&f, "etl").await;
    let mut kept = Vec::new();
    for _ in 0..16 {
        let channel = connect(&f, Some(&etl)).await.unwrap();
        assert!(works(&channel).await);
        kept.push(channel);
    }
    let refused_before = refused(&f).await;
    let more = connect(&f, Some(&etl)).await;
    assert!(more.is_err() || !works(&more.unwrap()).await, "it has its share");
    assert!(refused(&f).await > refused_before);
    assert!(serves(&f).await.is_some(), "others get in");
    let mut strangers = Vec::new();
    for _ in 0..20 {
        if let Ok(channel) = connect(&f, None).await
            && health(&channel).await
        {
            strangers.push(channel);
        }
    }
    assert_eq!(strangers.len(), 16, "half of the places for strangers");
    kept.pop();
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(channel) = connect(&f, Some(&etl)).await
            && works(&channel).await
        {
            return;
        }
        assert!(Instant::now() < patience, "its place is free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_loses_the_connection() {
    let f = limited(Limits { unread: Duration::from_millis(500), ..Limits::default() }).await;
    let known = serves(&f).await.unwrap();
    let mut stream = shake(f.node().grpc_addr, &f.root_pem).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    // Each ping is answered; none of the answers is read.
    let pings = [[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]; 256].concat();
    let flood = async { while stream.write_all(&pings).await.is_ok() {} };
    let patience = Duration::from_secs(20);
    assert!(tokio::time::timeout(patience, flood).await.is_ok(), "it keeps its place");
    assert!(works(&known).await, "who reads goes on");
}

async fn health(channel: &Channel) -> bool {
    use tonic_health::pb::health_client::HealthClient;
    HealthClient::new(channel.clone())
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .is_ok()
}

/// A TLS connection that has said nothing yet.
async fn shake(address: SocketAddr, root_pem: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shakes_hands_and_then_says_nothing_is_cut_off() {
    let handshake = Duration::from_millis(500);
    let f = limited(Limits { handshake, ..Limits::default() }).await;
    let known = serves(&f).await.unwrap();
    for said in [&b""[..], b"PRI * HTTP/2.0"] {
        let mut stream = shake(f.node().grpc_addr, &f.root_pem).await;
        stream.write_all(said).await.unwrap();
        stream.flush().await.unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        let patience = Duration::from_secs(20);
        let end = tokio::time::timeout(patience, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "it is closed after {said:?}");
        assert!(began.elapsed() >= handshake / 2, "{:?}", began.elapsed());
    }
    tokio::time::sleep(handshake * 2).await;
    assert!(works(&known).await, "who has begun may rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_and_never_says_that_it_is_still_there_loses_the_connection() {
    let (ping, patience) = (Duration::from_secs(1), Duration::from_millis(500));
    let mut f = limited(Limits::default()).await;
    (f.parts.limits.ping, f.parts.limits.pong) = (ping, patience);
    f.restart().await;
    let known = serves(&f).await.unwrap();
    let mut stream = shake(f.node().grpc_addr, &f.root_pem).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap();
    let began = Instant::now();
    let mut heard = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut heard)).await;
    assert!(end.is_ok(), "a dead peer keeps its place");
    assert!(began.elapsed() >= ping, "{:?}", began.elapsed());
    let is_ping = |frame: &[u8]| frame.starts_with(&[0, 0, 8, 6, 0, 0, 0, 0, 0]);
    assert!(heard.windows(9).any(is_ping), "it was asked: {heard:?}");
    // Who answers, as every client does, goes on however long it has nothing to say.
    tokio::time::sleep((ping + patience) * 2).await;
    assert!(works(&known).await);
}
