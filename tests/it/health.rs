//! gRPC health: what a load balancer is told while a node serves, is sealed, and stops.

use std::time::{Duration, Instant};

use prost_reflect::DescriptorPool;
use strongroom::keyring::FinalTry;
use strongroom::proto::DESCRIPTORS;
use strongroom::proto::SealRequest;
use strongroom::proto::system_service_client::SystemServiceClient;
use strongroom::server::{ListenerTls, Node, Occasion};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;

use crate::support::node::{Fixture, pin};

/// The node as a whole, and each of its services.
fn services() -> Vec<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let ours = pool.services().map(|service| service.full_name().to_owned());
    std::iter::once(String::new())
        .chain(ours.filter(|name| name.starts_with("strongroom.v1.")))
        .collect()
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

fn each(status: ServingStatus) -> Vec<ServingStatus> {
    vec![status; services().len()]
}

async fn all(channel: &Channel) -> Vec<ServingStatus> {
    let mut client = HealthClient::new(channel.clone());
    let mut found = Vec::new();
    for service in services() {
        found.push(client.check(about(&service)).await.unwrap().into_inner().status());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_not_serving_while_sealed_and_tells_those_who_watch() {
    let mut f = Fixture::new().await;
    // A sealed node shows the certificate that was kept.
    let kept = tempfile::tempdir().unwrap();
    f.parts.tls = ListenerTls::Issued { kept_in: Some(kept.path().to_owned()) };
    f.restart().await;
    let channel = f.connect_as_nobody().await;
    assert_eq!(all(&channel).await, each(Serving));
    let unknown = HealthClient::new(channel.clone()).check(about("strongroom.v1.None")).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let mut watched = Vec::new();
    for service in services() {
        let stream = HealthClient::new(channel.clone()).watch(about(&service)).await.unwrap();
        watched.push(stream.into_inner());
    }
    let mut told = async |status: ServingStatus| {
        for stream in &mut watched {
            let next = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
            assert_eq!(next.unwrap().unwrap().unwrap().status(), status);
        }
    };
    told(Serving).await;

    let mut admin = SystemServiceClient::new(f.connect(&f.admin).await);
    admin.seal(SealRequest { reason: "a drill".to_owned() }).await.unwrap();
    told(NotServing).await;
    assert_eq!(all(&channel).await, each(NotServing));
    let patience = Instant::now() + Duration::from_secs(10);
    while !f.node().vault.is_sealed() {
        assert!(Instant::now() < patience, "it keeps its keys");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    f.node().life.unseal(pin(), FinalTry::Refuse, Occasion::Asked).await.unwrap();
    told(Serving).await;
    assert_eq!(all(&channel).await, each(Serving));

    // Those who watch do not hold up the end.
    let began = Instant::now();
    f.node.take().unwrap().stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    told(NotServing).await;

    f.node = Some(Node::start_sealed(f.parts.clone()).await.unwrap());
    assert_eq!(all(&f.connect_as_nobody().await).await, each(NotServing), "from the start");
}
