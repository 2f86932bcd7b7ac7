//! Leases at the real socket: listed, renewed, revoked; ended whatever goes wrong meanwhile.

mod processes;
mod recovery;

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::{
    Lease, ListLeasesRequest, RemoveGrantRequest, RenewLeaseRequest, RevokeLeaseRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins;
use crate::support::node::{BACKENDS, Backend};
use crate::support::postgres::Postgres;
use crate::support::target::{World, log_in, outcome};

async fn renew(channel: &Channel, id: &str, ttl_s: i64) -> Result<Lease, Status> {
    let request = RenewLeaseRequest { id: id.to_owned(), ttl_s };
    let renewed = LeaseServiceClient::new(channel.clone()).renew_lease(request).await?;
    Ok(renewed.into_inner().lease.unwrap())
}

async fn revoke(channel: &Channel, id: &str) -> Result<Lease, Status> {
    let request = RevokeLeaseRequest { id: id.to_owned(), reason: "a test".into() };
    let revoked = LeaseServiceClient::new(channel.clone()).revoke_lease(request).await?;
    Ok(revoked.into_inner().lease.unwrap())
}

async fn list(channel: &Channel, request: ListLeasesRequest) -> Result<Vec<Lease>, Status> {
    let listed = LeaseServiceClient::new(channel.clone()).list_leases(request).await?;
    Ok(listed.into_inner().leases)
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_moves_the_end_never_past_the_maximum_nor_backwards() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let issued = w.issue().await.unwrap();
        w.advance(300);
        let renewed = renew(&w.etl, &issued.lease_id, 0).await.unwrap();
        assert!(renewed.expires_at_ms >= issued.expires_at_ms + 300_000);
        assert!(renewed.renewed_at_ms > renewed.created_at_ms);
        let shorter = renew(&w.etl, &issued.lease_id, 1).await.unwrap();
        assert_eq!(shorter.expires_at_ms, renewed.expires_at_ms);
        let sql = format!(
            "SELECT (extract(epoch FROM rolvaliduntil) * 1000)::bigint FROM pg_roles \
             WHERE rolname = '{}'",
            issued.username
        );
        let until = Postgres::shared().ask("postgres", &sql).await.unwrap();
        assert!(until.parse::<i64>().unwrap().abs_diff(renewed.expires_at_ms) <= 1_000);
        w.advance(500);
        log_in(&issued, w.port).await.unwrap();
        let most = renew(&w.etl, &issued.lease_id, 3_600).await.unwrap();
        assert_eq!(most.expires_at_ms, issued.max_expires_at_ms);
        for (ttl_s, code) in [(3_601, Code::InvalidArgument), (-1, Code::InvalidArgument)] {
            assert_eq!(renew(&w.etl, &issued.lease_id, ttl_s).await.unwrap_err().code(), code);
        }
        w.advance(2_900);
        w.all_over().await;
        let refused = renew(&w.etl, &issued.lease_id, 0).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_renews_and_only_while_it_holds_the_right() {
    let w = World::new(Backend::Sqlite).await;
    let issued = w.issue().await.unwrap();
    let stranger = logins::machine(&w.f, "stranger").await;
    let missing = "00000000-0000-4000-8000-000000000000";
    let mut said = Vec::new();
    for id in [issued.lease_id.as_str(), missing] {
        for refused in
            [renew(&stranger, id, 0).await.unwrap_err(), revoke(&stranger, id).await.unwrap_err()]
        {
            assert_eq!(refused.code(), Code::PermissionDenied);
            said.push(refused.message().replace("leases.revoke", "leases.renew"));
        }
    }
    said.dedup();
    assert_eq!(said.len(), 1, "it tells nothing about what exists: {said:?}");
    assert_eq!(
        renew(&w.admin, &issued.lease_id, 0).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(revoke(&w.admin, missing).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(revoke(&w.admin, "x'; --").await.unwrap_err().code(), Code::InvalidArgument);
    renew(&w.etl, &issued.lease_id, 0).await.unwrap();
    let mut grants = GrantServiceClient::new(w.admin.clone());
    let held = grants.list_grants(strongroom::proto::ListGrantsRequest::default()).await.unwrap();
    for grant in held.into_inner().grants {
        let request = RemoveGrantRequest { id: grant.id, ..Default::default() };
        grants.remove_grant(request).await.unwrap();
    }
    let refused = renew(&w.etl, &issued.lease_id, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(revoke(&w.etl, &issued.lease_id).await.unwrap().state, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_cuts_the_session_and_repeating_it_changes_nothing() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let (issued, other) = (w.issue().await.unwrap(), w.issue().await.unwrap());
        let mut session = log_in(&issued, w.port).await.unwrap();
        let first = revoke(&w.etl, &issued.lease_id).await.unwrap();
        assert_eq!((first.state.as_str(), first.end_reason.as_str()), ("revoked", "revoked"));
        outcome(&mut session, "SELECT 1").await.expect_err("the session is cut");
        assert_eq!(w.roles(Postgres::shared()).await, [other.username]);
        for channel in [&w.etl, &w.admin] {
            assert_eq!(revoke(channel, &issued.lease_id).await.unwrap(), first);
        }
        assert_eq!(w.lease(&other.lease_id).await.state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_its_own_leases_the_owner_those_of_its_machines_and_administrators_all() {
    let w = World::new(Backend::Sqlite).await;
    let (a, b) = (w.issue().await.unwrap(), w.issue().await.unwrap());
    let carol = logins::human(&w.f, "carol").await;
    logins::register(&w.f, "hers", "pipeline", "carol").await;
    let hers = w.f.connect(&logins::login(&w.f, "hers").await).await;
    w.grant("hers", |grant| grant).await.unwrap();
    let c = crate::support::target::issue(&hers, crate::support::target::ask()).await.unwrap();
    let ids = |leases: Vec<Lease>| leases.into_iter().map(|lease| lease.id).collect::<Vec<_>>();
    let all = ListLeasesRequest::default;
    let of = |identity: &str| ListLeasesRequest { identity: identity.into(), ..all() };
    let own = ids(list(&w.etl, all()).await.unwrap());
    assert_eq!(own, [a.lease_id.clone(), b.lease_id.clone()], "oldest first");
    assert!(list(&carol, all()).await.unwrap().is_empty());
    assert_eq!(ids(list(&carol, of("hers")).await.unwrap()), std::slice::from_ref(&c.lease_id));
    assert_eq!(ids(list(&w.admin, all()).await.unwrap()).len(), 3);
    for (channel, identity) in [(&carol, "nightly-etl"), (&carol, "nobody"), (&hers, "nightly-etl")]
    {
        let refused = list(channel, of(identity)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{identity}");
    }
    assert_eq!(revoke(&carol, &c.lease_id).await.unwrap().state, "revoked", "its owner ends it");
    for (request, found) in [
        (ListLeasesRequest { resource: "database/**".into(), ..all() }, 2),
        (ListLeasesRequest { resource: "database/*/none".into(), ..all() }, 0),
        (ListLeasesRequest { state: "revoked".into(), ..all() }, 1),
        (ListLeasesRequest { state: "active".into(), ..all() }, 2),
        (ListLeasesRequest { include_ended: true, ..all() }, 3),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(list(&w.admin, request).await.unwrap().len(), found, "{shown}");
    }
    let mut client = w.lease_client();
    let mut request = ListLeasesRequest { page_size: 1, ..all() };
    let mut paged = Vec::new();
    loop {
        let page = client.list_leases(request.clone()).await.unwrap().into_inner();
        assert!(page.leases.len() <= 1);
        paged.extend(ids(page.leases));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(paged, own);
    for wrong in [
        ListLeasesRequest { page_size: -1, ..all() },
        ListLeasesRequest { state: "ended".into(), ..all() },
        ListLeasesRequest { page_token: "x".into(), ..all() },
    ] {
        assert_eq!(list(&w.admin, wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
