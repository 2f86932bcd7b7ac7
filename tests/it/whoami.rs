//! The cheapest authorized call: authenticated, decided, durably recorded.

use strongroom::proto::WhoAmIRequest;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use tonic::Code;

use crate::support::node::{BACKENDS, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn whoami_answers_an_administrator_and_is_on_the_record() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
        for _ in 0..3 {
            let answer = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
            assert_eq!(answer.identity, "admin");
            assert!(answer.administrator);
        }
        let before = f.node().vault.head().await.unwrap().size;
        f.node().vault.integrate().await.unwrap();
        let head = f.node().vault.head().await.unwrap();
        assert!(head.size >= before && head.size >= 4, "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_credential_is_refused() {
    let f = Fixture::new().await;
    let mut client = IdentityServiceClient::new(f.connect_as_nobody().await);
    let refusal = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_serves_the_same_administrator() {
    let mut f = Fixture::new().await;
    f.restart().await;
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    assert_eq!(client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().identity, "admin");
}
