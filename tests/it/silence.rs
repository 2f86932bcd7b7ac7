//! A network between node and PostgreSQL that swallows everything and ends no connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{ListIdentitiesRequest, WhoAmIRequest};
use strongroom::store::Location;
use strongroom::types::State;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::node::{Backend, Fixture, location};
use crate::support::postgres::Postgres;

/// Carries bytes both ways while it is told to.
struct Network {
    port: u16,
    carries: Arc<watch::Sender<bool>>,
}

impl Network {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let carries = Arc::new(watch::Sender::new(true));
        let told = Arc::clone(&carries);
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (from_client, to_client) = client.into_split();
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (from_server, to_server) = server.into_split();
                spawn(carry(from_client, to_server, told.subscribe()));
                spawn(carry(from_server, to_client, told.subscribe()));
            }
        });
        Self { port, carries }
    }

    fn swallow(&self) {
        self.carries.send_replace(false);
    }

    fn heal(&self) {
        self.carries.send_replace(true);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut told: watch::Receiver<bool>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if told.wait_for(|carries| *carries).await.is_err()
            || to.write_all(&bytes[..count]).await.is_err()
        {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_falls_silent_is_unavailable_in_bounded_time_until_it_is_heard_again() {
    let dir = TempDir::new().unwrap();
    let Location::Postgres { url, lanes } = location(Backend::Postgres, dir.path()).await else {
        panic!("not PostgreSQL")
    };
    let server = Postgres::shared().port();
    let network = Network::to(server).await;
    let through = url.replacen(&format!(":{server}/"), &format!(":{}/", network.port), 1);
    assert_ne!(url, through);
    let f = Fixture::at(dir, Location::Postgres { url: through, lanes }).await;
    let client = IdentityServiceClient::new(f.connect(&f.admin).await);
    let who = || {
        let mut client = client.clone();
        async move { client.who_am_i(WhoAmIRequest {}).await.map(drop) }
    };
    let list = || {
        let mut client = client.clone();
        async move { client.list_identities(ListIdentitiesRequest::default()).await.map(drop) }
    };
    let mut watched = HealthClient::new(f.connect(&f.admin).await)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut health = async || watched.message().await.unwrap().unwrap().status();
    assert_eq!(health().await, ServingStatus::Serving);
    who().await.unwrap();
    list().await.unwrap();

    network.swallow();
    let began = Instant::now();
    // One waits for a view, the other for its commit.
    let (listed, called) = tokio::join!(list(), who());
    for refused in [listed, called] {
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    }
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let standing = f.node().life.standing();
    // Whoever listens for the seal waits as long for its view, and may have begun a little later.
    while standing.state() != State::Unheard {
        assert!(began.elapsed() < Duration::from_secs(25), "a seal may be in there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(health().await, ServingStatus::NotServing);
    let began = Instant::now();
    let refused = who().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    network.heal();
    let began = Instant::now();
    while !standing.is_serving() || who().await.is_err() || list().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", standing.state());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(health().await, ServingStatus::Serving);
}
