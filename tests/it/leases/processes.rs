//! Two servers of the real program, in processes of their own, on one PostgreSQL and one token.

use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::{
    AddGrantRequest, IssueLoginCertificateRequest, ListLeasesRequest, SuspendIdentityRequest,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::support::job::Job;
use crate::support::logins::registration;
use crate::support::node::{Login, csr};
use crate::support::postgres::Postgres;
use crate::support::program::Installation;
use crate::support::target::{ask, head_start, issue, until};

/// Registers a pipeline that may have credentials, and logs it in.
async fn racer(admin: &Channel, name: &str) -> Login {
    let mut identities = IdentityServiceClient::new(admin.clone());
    identities.create_identity(registration(name, "pipeline", "alice")).await.unwrap();
    let grant = AddGrantRequest {
        subject: Some(Subject::Identity(name.to_owned())),
        action: "database.credentials".to_owned(),
        resource: "database/analytics/reader".to_owned(),
        ..AddGrantRequest::default()
    };
    GrantServiceClient::new(admin.clone()).add_grant(grant).await.unwrap();
    let (key_pem, csr_pem) = csr();
    let name = name.to_owned();
    let request =
        IssueLoginCertificateRequest { name, csr_pem, ..IssueLoginCertificateRequest::default() };
    let issued = identities.issue_login_certificate(request).await.unwrap().into_inner();
    Login { key_pem, certificate_pem: issued.certificate_pem }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_races_with_issuing_on_another_server_leaves_no_live_lease() {
    let target = Postgres::shared();
    let job = Job::new(Installation::on_postgres().await, target.port()).await;
    let (real, one) = (&job.real, job.server());
    let other = real.serve_beside();
    let alice = job.alice.login();
    let (here, there) = (real.connect(one, &alice).await, real.connect(&other, &alice).await);
    let (mut made, mut refused) = (0, 0);
    for round in 0..20 {
        let name = format!("r{}-{round}", job.tag);
        let login = racer(&here, &name).await;
        let channels = [real.connect(one, &login).await, real.connect(&other, &login).await];
        let mut calls = JoinSet::new();
        let under_way: Vec<_> = channels
            .iter()
            .chain(&channels)
            .cloned()
            .map(|channel| calls.spawn(async move { issue(&channel, ask()).await }))
            .collect();
        head_start(round, &under_way).await;
        let request = SuspendIdentityRequest { name, reason: String::new() };
        // By either server, in turn.
        let by = if round % 2 == 0 { &there } else { &here };
        IdentityServiceClient::new(by.clone()).suspend_identity(request).await.unwrap();
        for channel in &channels {
            assert!(issue(channel, ask()).await.is_err(), "both servers know at once");
        }
        for call in calls.join_all().await {
            if call.is_ok() { made += 1 } else { refused += 1 }
        }
    }
    assert!(made > 0 && refused > 0, "some were first, some were not: {made}, {refused}");
    until("no lease is live", async || {
        let all = ListLeasesRequest {
            include_ended: true,
            page_size: 1_000,
            ..ListLeasesRequest::default()
        };
        let leases = LeaseServiceClient::new(there.clone()).list_leases(all).await.unwrap();
        let leases = leases.into_inner().leases;
        assert!(leases.len() >= made, "{} of {made}", leases.len());
        leases.iter().all(|lease| !["pending", "active"].contains(&&*lease.state))
    })
    .await;
    let left = format!("SELECT COUNT(*)::text FROM pg_roles WHERE rolname LIKE '%r{}%'", job.tag);
    until("no role is left", async || {
        // The account, the group and the owner are not the vault's.
        let found = target.ask("postgres", &format!("{left} AND rolname LIKE 'sr%'")).await;
        found.as_deref() == Some("0")
    })
    .await;
    assert_eq!(other.stop(), Some(0));
}
