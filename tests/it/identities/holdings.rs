//! What an identity holds: what a suspension would end, what it did, and how far that is.

use std::time::{Duration, Instant};

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, CreateGroupRequest, GetHoldingsRequest, GetHoldingsResponse,
    ListCertificatesRequest, PutCertificateRoleRequest, RetireIdentityRequest, RevokeTokenRequest,
    SignCertificateRequest, SubjectNames, TailEntriesRequest, TokenOrder,
};
use strongroom::types::TaskGroup;

use super::*;
use crate::support::factors::invite;
use crate::support::logins::login;
use crate::support::node::{die, mortal};
use crate::support::postgres::Postgres;
use crate::support::target::{Proxy, Wire, World, ask, issue, middle, until};
use crate::support::tokens::{bearing, create, token};

async fn holdings(client: &mut Client, name: &str) -> Result<GetHoldingsResponse, Status> {
    let request = GetHoldingsRequest { name: name.to_owned() };
    client.get_holdings(request).await.map(tonic::Response::into_inner)
}

/// In force and contained, of one kind.
fn counted(held: &GetHoldingsResponse, kind: &str) -> (i64, i64) {
    let found = held.credentials.iter().find(|of| of.kind == kind).unwrap();
    (found.in_force, found.contained)
}

/// Lets the world's pipeline have a certificate; the request for it.
pub(super) async fn certificate(w: &World) -> SignCertificateRequest {
    let role = PutCertificateRoleRequest {
        name: "etl".into(),
        allowed_dns: vec!["etl.test".into()],
        ..Default::default()
    };
    PkiServiceClient::new(w.admin.clone()).put_role(role).await.unwrap();
    let sign =
        |grant| AddGrantRequest { action: "pki.sign".into(), resource: "pki/etl".into(), ..grant };
    w.grant("nightly-etl", sign).await.unwrap();
    let names = Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() });
    SignCertificateRequest { role: "etl".into(), names, csr_pem: csr().1, ..Default::default() }
}

/// A certificate for the world's pipeline.
async fn sign(w: &World) {
    let request = certificate(w).await;
    PkiServiceClient::new(w.etl.clone()).sign_certificate(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_suspension_would_end_is_shown_before_and_how_far_it_is_after() {
    let proxy = Proxy::to(Postgres::shared().port()).await;
    for backend in BACKENDS {
        proxy.set(Wire::Whole);
        let mut f = Fixture::on(backend).await;
        f.node.take().unwrap().stop().await.unwrap();
        let (runtime, node) = mortal(&f).await;
        f.node = Some(node);
        let mut w = World::of(f, Postgres::shared(), proxy.port).await;
        let mut client = Client::new(w.admin.clone());
        sign(&w).await;
        w.issue().await.unwrap();
        w.issue().await.unwrap();
        token(&w.etl, 0).await;
        let before = holdings(&mut client, "nightly-etl").await.unwrap();
        for (kind, in_force) in [("login", 1), ("certificate", 1), ("lease", 2), ("token", 1)] {
            assert_eq!(counted(&before, kind), (in_force, 0), "{kind}");
        }
        assert_eq!((before.owned, before.grants, before.partial), (0, 2, false));
        assert_eq!(before.leases.len(), 1);
        assert_eq!(before.leases[0].resource, "database/analytics/reader");
        assert_eq!((before.leases[0].in_force, before.leases[0].ending), (2, 0));
        assert_eq!(
            holdings(&mut client, "nightly-etl").await.unwrap().credentials,
            before.credentials
        );
        assert_eq!(w.roles(Postgres::shared()).await.len(), 2, "looking ends nothing");
        // The target is down: all is dead at once, and what hangs outside is still to be ended.
        proxy.set(Wire::Cut);
        let suspend = SuspendIdentityRequest { name: "nightly-etl".into(), ..Default::default() };
        client.suspend_identity(suspend).await.unwrap();
        let after = holdings(&mut client, "nightly-etl").await.unwrap();
        for (kind, contained) in [("login", 1), ("certificate", 1), ("lease", 2), ("token", 1)] {
            assert_eq!(counted(&after, kind), (0, contained), "{kind}");
        }
        assert_eq!((after.leases[0].in_force, after.leases[0].ending), (0, 2));
        let listing =
            ListCertificatesRequest { identity: "nightly-etl".into(), ..Default::default() };
        let mut pki = PkiServiceClient::new(w.admin.clone());
        let listed = pki.list_certificates(listing).await.unwrap().into_inner();
        assert_eq!(listed.certificates[0].state, "revoked");
        // A node that dies in the middle of it leaves the rest to the next one.
        drop((client, pki));
        die(&mut w.f, runtime);
        w.f.node = Some(Node::start(w.f.parts.clone(), pin()).await.unwrap());
        let mut client = admin(&w.f).await;
        let again = holdings(&mut client, "nightly-etl").await.unwrap();
        assert_eq!(counted(&again, "lease"), (0, 2));
        proxy.set(Wire::Whole);
        w.advance(600);
        until("the roles are gone", async || w.roles(Postgres::shared()).await.is_empty()).await;
        w.advance(600);
        until("nothing is left to be ended", async || {
            let held = holdings(&mut client.clone(), "nightly-etl").await.unwrap();
            counted(&held, "lease") == (0, 0) && held.leases.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_held_as_long_as_it_is_of_use() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut client = Client::new(w.admin.clone());
        let order = |uses, ttl_s| TokenOrder { uses, ttl_s, ..Default::default() };
        let single = create(&w.etl, order(1, 0)).await.unwrap().bearer;
        create(&w.etl, order(0, 60)).await.unwrap();
        let revoked = create(&w.etl, order(0, 0)).await.unwrap().bearer;
        let held = holdings(&mut client, "nightly-etl").await.unwrap();
        assert_eq!(counted(&held, "token"), (3, 0));
        let mut database = DatabaseServiceClient::new(bearing(&w.etl, &single));
        database.issue_credentials(ask()).await.unwrap();
        let mut tokens = TokenServiceClient::new(bearing(&w.etl, &revoked));
        tokens.revoke_token(RevokeTokenRequest::default()).await.unwrap();
        // One that is spent is over, not contained.
        let held = holdings(&mut client, "nightly-etl").await.unwrap();
        assert_eq!(counted(&held, "token").0, 1);
        w.advance(61);
        let held = holdings(&mut client, "nightly-etl").await.unwrap();
        assert_eq!(counted(&held, "token").0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holdings_are_for_administrators_and_whoever_answers_for_it() {
    let f = Fixture::new().await;
    let mut carol = Client::new(human(&f, "carol").await);
    let mut dave = Client::new(human(&f, "dave").await);
    register(&f, "etl", "pipeline", "carol").await;
    register(&f, "bot", "agent", "carol").await;
    assert_eq!(holdings(&mut carol, "carol").await.unwrap().owned, 2);
    // What a human holds besides: an invitation; who alone administers is told so.
    let mut admin_client = admin(&f).await;
    let of = |held: &GetHoldingsResponse| (held.elevations, held.factors, held.invitations);
    assert_eq!(of(&holdings(&mut carol, "carol").await.unwrap()), (0, 0, 0));
    invite(&f, "carol").await;
    let held = holdings(&mut admin_client, "carol").await.unwrap();
    assert_eq!((of(&held), held.last_administrator), ((0, 0, 1), false));
    assert!(holdings(&mut admin_client, "admin").await.unwrap().last_administrator);
    let held = holdings(&mut carol, "etl").await.unwrap();
    assert_eq!((counted(&held, "login"), held.owned), ((0, 0), 0));
    assert_eq!(holdings(&mut admin(&f).await, "nobody").await.unwrap_err().code(), Code::NotFound);
    for name in ["etl", "nobody"] {
        let refusal = holdings(&mut dave, name).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holdings_tell_of_the_machines_that_nobody_would_answer_for() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let client = admin(&f).await;
        for name in ["carol", "dave"] {
            register(&f, name, "human", "").await;
        }
        register(&f, "etl", "pipeline", "carol").await;
        let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
        let team = CreateGroupRequest { name: "team".into(), ..Default::default() };
        groups.create_group(team).await.unwrap();
        let add =
            |identity: &str| AddMemberRequest { group: "team".into(), identity: identity.into() };
        groups.add_member(add("carol")).await.unwrap();
        let owner_group = "team".to_owned();
        let bot = CreateIdentityRequest { owner_group, ..registration("bot", "agent", "") };
        super::create(&mut client.clone(), bot).await.unwrap();
        let of = async |name: &str| {
            let held = holdings(&mut client.clone(), name).await.unwrap();
            (held.owned, held.orphans)
        };
        assert_eq!(of("carol").await, (1, 2), "hers, and that of a group that is her alone");
        // A machine answers for nobody.
        groups.add_member(add("etl")).await.unwrap();
        assert_eq!((of("carol").await, of("etl").await), ((1, 2), (0, 0)));
        groups.add_member(add("dave")).await.unwrap();
        assert_eq!((of("carol").await, of("dave").await), ((1, 1), (0, 0)));
        contain(&mut client.clone(), "dave", false).await;
        assert_eq!((of("carol").await, of("dave").await), ((1, 2), (0, 0)));
    }
}

/// Follows the record as somebody, until that is cut; when it was.
async fn follow(channel: Channel) -> tokio::task::JoinHandle<(Code, Instant)> {
    let request = TailEntriesRequest { filter: None, last: 1 };
    let mut tail = RecordServiceClient::new(channel).tail_entries(request).await.unwrap();
    tail.get_mut().message().await.unwrap().unwrap();
    TaskGroup::default().spawn(async move {
        loop {
            match tail.get_mut().message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a reason"),
                Err(status) => return (status.code(), Instant::now()),
            }
        }
    })
}

/// Suspends or retires.
async fn contain(client: &mut Client, name: &str, retires: bool) {
    let (name, reason) = (name.to_owned(), String::new());
    if retires {
        client.retire_identity(RetireIdentityRequest { name, reason }).await.unwrap();
    } else {
        client.suspend_identity(SuspendIdentityRequest { name, reason }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_is_cut_within_a_second_everywhere() {
    for (backend, elsewhere) in
        [(Backend::Sqlite, false), (Backend::Postgres, false), (Backend::Postgres, true)]
    {
        let f = Fixture::on(backend).await;
        let other = if elsewhere { Some(f.second_node().await) } else { None };
        let mut client = admin(&f).await;
        let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
        let mut took = Vec::new();
        for (name, retires) in [("carol", false), ("dave", true), ("erin", false)] {
            register(&f, name, "human", "").await;
            let add = AddMemberRequest { group: "administrators".into(), identity: name.into() };
            groups.add_member(add).await.unwrap();
            let login = login(&f, name).await;
            let node = other.as_ref().unwrap_or(f.node());
            let follows = follow(f.connect_to(node, &login).await).await;
            contain(&mut client, name, retires).await;
            let answered = Instant::now();
            let cut = tokio::time::timeout(Duration::from_secs(10), follows);
            let (code, at) = cut.await.unwrap().unwrap();
            assert_eq!(code, Code::Unauthenticated, "{backend:?} {elsewhere}");
            took.push(at.saturating_duration_since(answered));
        }
        assert!(middle(took.clone()) < Duration::from_secs(1), "{backend:?} {elsewhere}: {took:?}");
        drop((client, groups));
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_of_a_suspended_identity_are_gone_within_a_second_on_either_node() {
    let w = World::new(Backend::Postgres).await;
    let other = w.f.second_node().await;
    let mut client = Client::new(w.admin.clone());
    let mut took = Vec::new();
    for (round, issuer) in [&other, w.f.node(), &other].into_iter().enumerate() {
        let name = format!("etl-{round}");
        register(&w.f, &name, "pipeline", "admin").await;
        w.grant(&name, |grant| grant).await.unwrap();
        let etl = w.f.connect_to(issuer, &login(&w.f, &name).await).await;
        for _ in 0..2 {
            issue(&etl, ask()).await.unwrap();
        }
        assert_eq!(w.roles(Postgres::shared()).await.len(), 2);
        contain(&mut client, &name, round == 1).await;
        let answered = Instant::now();
        until("the roles are gone", async || w.roles(Postgres::shared()).await.is_empty()).await;
        took.push(answered.elapsed());
    }
    assert!(middle(took.clone()) < Duration::from_secs(1), "{took:?}");
    drop(client);
    other.stop().await.unwrap();
}
