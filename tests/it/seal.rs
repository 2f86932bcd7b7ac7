//! Sealing over the wire: recorded, obeyed by every node, and refused to those who may not.

use std::time::{Duration, Instant};

use strongroom::keyring::FinalTry;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::system_service_client::SystemServiceClient;
use strongroom::proto::{SealRequest, WhoAmIRequest};
use strongroom::server::{Node, Occasion};
use strongroom::types::State;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::logins;
use crate::support::node::{BACKENDS, Fixture, pin};

fn request() -> SealRequest {
    SealRequest { reason: "a drill".to_owned() }
}

async fn sealed_within_a_second(node: &Node) {
    let patience = Instant::now() + Duration::from_secs(1);
    while !node.vault.is_sealed() {
        assert!(Instant::now() < patience, "it keeps its keys");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_one_node_seals_the_other_within_a_second() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let other = f.second_node().await;
        let mut there = IdentityServiceClient::new(f.connect_to(&other, &f.admin).await);
        there.who_am_i(WhoAmIRequest {}).await.unwrap();
        let channel = f.connect(&f.admin).await;
        let sealed = SystemServiceClient::new(channel.clone()).seal(request()).await.unwrap();
        assert!(sealed.into_inner().sealed_at_ms > 0);

        let mut here = IdentityServiceClient::new(channel.clone());
        let refused = here.who_am_i(WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "at once");
        assert_eq!(refused.message(), "the vault is sealed");
        let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        assert!(health.is_ok(), "health is answered: {health:?}");
        sealed_within_a_second(f.node()).await;
        sealed_within_a_second(&other).await;
        let refused = there.who_am_i(WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(f.node().life.authorities().current().is_err(), "the authorities are gone");
        other.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_obeys_the_seal_and_only_a_local_act_takes_it_off() {
    let mut f = Fixture::new().await;
    let channel = f.connect(&f.admin).await;
    SystemServiceClient::new(channel).seal(request()).await.unwrap();
    sealed_within_a_second(f.node()).await;
    f.node.take().unwrap().stop().await.unwrap();

    let refused = Node::start(f.parts.clone(), pin()).await.unwrap_err();
    assert_eq!(refused.reason(), "SEALED", "a PIN that is right does not help");
    let node = Node::start_sealed(f.parts.clone()).await.unwrap();
    let refused = node.life.unseal(pin(), FinalTry::Refuse, Occasion::Start).await.unwrap_err();
    assert_eq!(refused.reason(), "SEALED");
    node.life.unseal(pin(), FinalTry::Refuse, Occasion::Asked).await.unwrap();
    assert_eq!(node.life.standing().state(), State::Serving);
    let mut client = IdentityServiceClient::new(f.connect_to(&node, &f.admin).await);
    client.who_am_i(WhoAmIRequest {}).await.unwrap();
    node.stop().await.unwrap();
    f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_seal_and_a_refusal_leaves_the_vault_open() {
    let f = Fixture::new().await;
    let machine = logins::machine(&f, "etl").await;
    let nobody = f.connect_as_nobody().await;
    for (channel, code) in [(machine, Code::PermissionDenied), (nobody, Code::Unauthenticated)] {
        let refused = SystemServiceClient::new(channel).seal(request()).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
    let mut admin = SystemServiceClient::new(f.connect(&f.admin).await);
    for reason in ["a\nb".to_owned(), "x".repeat(1_025)] {
        let refused = admin.seal(SealRequest { reason }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert!(f.node().life.standing().is_serving());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_leaves_the_node_sealed_and_a_right_one_serves_again() {
    let f = Fixture::new().await;
    let life = &f.node().life;
    life.seal("a test").await.unwrap();
    let wrong = strongroom::types::SecretBytes::new(b"wrong".to_vec());
    let refused = life.unseal(wrong, FinalTry::Refuse, Occasion::Start).await.unwrap_err();
    assert_eq!(refused.to_string(), "the HSM refused the PIN");
    assert!(f.node().vault.is_sealed());
    assert!(!life.standing().is_serving());
    life.unseal(pin(), FinalTry::Refuse, Occasion::Start).await.unwrap();
    assert!(life.standing().is_serving(), "no seal was on record");
}
