//! Two servers of the real program, in processes of their own, on one PostgreSQL and one token.

use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{AddGrantRequest, ListCertificatesRequest, SuspendIdentityRequest};
use tokio::task::JoinSet;

use super::{Client, login_over, order, web};
use crate::support::logins::registration;
use crate::support::node::csr;
use crate::support::program::Installation;
use crate::support::target::head_start;

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_races_with_signing_on_another_server_leaves_no_certificate_in_force() {
    let real = Installation::on_postgres().await;
    assert!(real.init().status.success());
    let one = real.serve();
    let other = real.serve_beside();
    let alice = real.register(&one, &real.bootstrap(), "alice").login();
    let here = real.connect(&one, &alice).await;
    let there = real.connect(&other, &alice).await;
    Client::new(here.clone()).put_role(web()).await.unwrap();
    let (_, csr_pem) = csr();
    let (mut made, mut refused) = (0, 0);
    for round in 0..20 {
        let name = format!("racer-{round}");
        let mut identities = IdentityServiceClient::new(here.clone());
        identities.create_identity(registration(&name, "pipeline", "alice")).await.unwrap();
        let grant = AddGrantRequest {
            subject: Some(Subject::Identity(name.clone())),
            action: "pki.sign".to_owned(),
            resource: "pki/web".to_owned(),
            ..AddGrantRequest::default()
        };
        GrantServiceClient::new(here.clone()).add_grant(grant).await.unwrap();
        let racer = login_over(here.clone(), &name).await.unwrap();
        let channels = [real.connect(&one, &racer).await, real.connect(&other, &racer).await];
        let mut calls = JoinSet::new();
        let sign = |channel| {
            let request = order(&csr_pem);
            calls.spawn(async move { Client::new(channel).sign_certificate(request).await })
        };
        let under_way: Vec<_> = channels.iter().chain(&channels).cloned().map(sign).collect();
        head_start(round, &under_way).await;
        let request = SuspendIdentityRequest { name, reason: String::new() };
        // By either server, in turn.
        let by = if round % 2 == 0 { &there } else { &here };
        IdentityServiceClient::new(by.clone()).suspend_identity(request).await.unwrap();
        for channel in &channels {
            let late = Client::new(channel.clone()).sign_certificate(order(&csr_pem)).await;
            assert!(late.is_err(), "both servers know at once");
        }
        for call in calls.join_all().await {
            if call.is_ok() { made += 1 } else { refused += 1 }
        }
    }
    assert!(made > 0 && refused > 0, "some were first, some were not: {made}, {refused}");
    let all = ListCertificatesRequest { page_size: 1_000, ..ListCertificatesRequest::default() };
    let all = Client::new(there).list_certificates(all).await.unwrap().into_inner().certificates;
    assert!(all.len() >= made, "{} of {made}", all.len());
    let in_force = |state: &str| state == "active";
    assert!(!all.iter().any(|one| in_force(&one.state)), "{all:?}");
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
}
