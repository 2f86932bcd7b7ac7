//! An identity without an active owner receives nothing new.

use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    AddMemberRequest, CreateGroupRequest, RenewLeaseRequest, RenewTokenRequest,
    ResumeIdentityRequest, RevokeLeaseRequest, TokenOrder, TransferIdentityRequest,
};

use super::lifecycles::issue_cert;
use super::*;
use crate::support::target::World;
use crate::support::tokens::{bearing, create as create_token, mint, token};

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

/// A world whose pipeline carol owns, with a lease and a token.
struct Orphanage {
    w: World,
    lease: String,
    bearer: String,
}

impl Orphanage {
    async fn new(backend: Backend) -> Self {
        let w = World::new(backend).await;
        human(&w.f, "carol").await;
        let transfer = TransferIdentityRequest {
            name: "nightly-etl".into(),
            owner: "carol".into(),
            ..Default::default()
        };
        Client::new(w.admin.clone()).transfer_identity(transfer).await.unwrap();
        let team = CreateGroupRequest { name: "team".into(), ..Default::default() };
        GroupServiceClient::new(w.admin.clone()).create_group(team).await.unwrap();
        let lease = w.issue().await.unwrap().lease_id;
        let bearer = token(&w.etl, 900).await.bearer;
        Self { w, lease, bearer }
    }

    /// Everything that it could receive, each once; what is answered.
    async fn receive(&self) -> Vec<(&'static str, Code)> {
        let w = &self.w;
        let mut leases = LeaseServiceClient::new(w.etl.clone());
        let renewal = RenewLeaseRequest { id: self.lease.clone(), ttl_s: 0 };
        let mut tokens = TokenServiceClient::new(bearing(&w.etl, &self.bearer));
        let add = AddMemberRequest { group: "team".into(), identity: "nightly-etl".into() };
        let mut groups = GroupServiceClient::new(w.admin.clone());
        let mut client = Client::new(w.admin.clone());
        vec![
            ("database.credentials", code(w.issue().await)),
            ("leases.renew", code(leases.renew_lease(renewal).await)),
            ("tokens.create", code(create_token(&w.etl, TokenOrder::default()).await)),
            ("tokens.renew", code(tokens.renew_token(RenewTokenRequest::default()).await)),
            ("tokens.mint", code(mint(&w.admin, "nightly-etl", TokenOrder::default()).await)),
            ("identities.issue-cert", code(issue_cert(&mut client, "nightly-etl", 0).await)),
            ("grants.add", code(w.grant("nightly-etl", |grant| grant).await)),
            ("groups.add", code(groups.add_member(add).await)),
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_owner_is_suspended_is_given_nothing_until_somebody_answers_for_it_again() {
    for backend in BACKENDS {
        let home = Orphanage::new(backend).await;
        let mut client = Client::new(home.w.admin.clone());
        let (name, reason) = ("carol".to_owned(), String::new());
        let suspend = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        client.suspend_identity(suspend).await.unwrap();
        for (action, code) in home.receive().await {
            let refusals = [Code::PermissionDenied, Code::FailedPrecondition];
            assert!(refusals.contains(&code), "{action}: {code:?}");
        }
        // What it holds it keeps, and may give back.
        assert_eq!(home.w.leases().await.len(), 1);
        client.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        for (action, code) in home.receive().await {
            assert_eq!(code, Code::Ok, "{action}");
        }
        let end = RevokeLeaseRequest { id: home.lease.clone(), ..Default::default() };
        LeaseServiceClient::new(home.w.etl.clone()).revoke_lease(end).await.unwrap();
    }
}
