//! Targets that are down, wires that are cut, nodes that die, identities that are suspended in the
//! middle of it: nothing is left behind, and the lease shows why while something is.

use std::time::Duration;

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{IssueCredentialsRequest, SuspendIdentityRequest, TokenOrder};
use strongroom::server::Node;
use strongroom::types::TaskGroup;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::logins;
use crate::support::node::{BACKENDS, Backend, pin};
use crate::support::postgres::{Options, Postgres};
use crate::support::target::{Proxy, Wire, World, ask, head_start, issue, log_in, until};
use crate::support::tokens::{Bearing, bearing, mint};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_down_for_an_hour_loses_its_role_when_it_is_back_and_the_lease_shows_why() {
    let mut cluster = Postgres::start(Options::default());
    let w = World::over(Backend::Sqlite, &cluster, cluster.port()).await;
    let issued = w.issue().await.unwrap();
    cluster.stop();
    let refused = w.issue().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    w.advance(601);
    until("the lease shows why", async || {
        let lease = w.lease(&issued.lease_id).await;
        lease.state == "revoking" && !lease.retry_reason.is_empty() && lease.revoke_attempts > 0
    })
    .await;
    let lease = w.lease(&issued.lease_id).await;
    assert_eq!(lease.retry_reason, "the target database accepts no connection");
    assert_eq!(lease.end_reason, "expired");
    assert!(lease.next_try_at_ms > 0 && lease.ended_at_ms == 0);
    let asked = super::revoke(&w.etl, &issued.lease_id).await;
    assert!(asked.is_ok_and(|lease| lease.state == "revoking"), "answered as it is");
    w.advance(3_600);
    cluster.resume();
    w.advance(300);
    until("the roles are gone", async || w.roles(&cluster).await.is_empty()).await;
    w.all_over().await;
    assert_eq!(w.lease(&issued.lease_id).await.retry_reason, "");
    // The same key works once the target does: what failed gave it back.
    w.issue().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_on_the_way_leaves_no_role() {
    let proxy = Proxy::to(Postgres::shared().port()).await;
    for backend in BACKENDS {
        proxy.set(Wire::Whole);
        let w = World::over(backend, Postgres::shared(), proxy.port).await;
        w.issue().await.unwrap();
        rested().await;
        proxy.set(Wire::HoldsAnswers);
        let etl = w.etl.clone();
        let call = TaskGroup::default().spawn(async move { issue(&etl, ask()).await });
        until("the target made it", async || w.roles(Postgres::shared()).await.len() == 2).await;
        proxy.set(Wire::Cut);
        let refused = call.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        proxy.set(Wire::Whole);
        w.advance(10);
        until("it is taken back", async || w.roles(Postgres::shared()).await.len() == 1).await;
        w.advance(601);
        w.all_over().await;
        assert!(w.roles(Postgres::shared()).await.is_empty());
        assert!(w.leases().await.iter().any(|lease| lease.end_reason == "failed"));
    }
}

/// The driver gives a connection back behind our back; only then is the next call sent on it.
async fn rested() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Runs a node in a runtime of its own, so that it can be killed with everything it does.
fn doomed(w: &World) -> (tokio::runtime::Runtime, Node) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut parts = w.f.parts.clone();
    "doomed".clone_into(&mut parts.node);
    let node = std::thread::scope(|scope| {
        scope.spawn(|| runtime.block_on(Node::start(parts, pin())).unwrap()).join().unwrap()
    });
    (runtime, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_before_or_after_the_role_is_made_leaves_it_to_the_others() {
    for held in [Wire::HoldsRequests, Wire::HoldsAnswers] {
        let proxy = Proxy::to(Postgres::shared().port()).await;
        let w = World::over(Backend::Postgres, Postgres::shared(), proxy.port).await;
        let (runtime, node) = doomed(&w);
        let login = logins::login(&w.f, "nightly-etl").await;
        let etl = w.f.connect_to(&node, &login).await;
        issue(&etl, ask()).await.unwrap();
        rested().await;
        proxy.set(held);
        let call = TaskGroup::default().spawn(async move { issue(&etl, ask()).await });
        until("the intent is committed", async || {
            w.leases().await.iter().any(|lease| lease.state == "pending")
        })
        .await;
        let made = if held == Wire::HoldsAnswers { 2 } else { 1 };
        until("the target has it", async || w.roles(Postgres::shared()).await.len() == made).await;
        runtime.shutdown_background();
        std::mem::forget(node);
        call.await.unwrap().unwrap_err();
        proxy.set(Wire::Cut);
        proxy.set(Wire::Whole);
        let pending = w.leases().await.into_iter().filter(|lease| lease.state == "pending").count();
        assert_eq!(pending, 1);
        w.advance(61);
        until("what was begun is over", async || {
            w.leases().await.iter().any(|lease| {
                lease.state == "revoked" && lease.end_reason == "failed" && lease.ended_at_ms > 0
            })
        })
        .await;
        assert_eq!(w.roles(Postgres::shared()).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_that_a_dead_node_took_is_resumed_elsewhere_once_its_role_is_proven_gone() {
    let proxy = Proxy::to(Postgres::shared().port()).await;
    let w = World::over(Backend::Postgres, Postgres::shared(), proxy.port).await;
    let (runtime, node) = doomed(&w);
    let login = logins::login(&w.f, "nightly-etl").await;
    let etl = w.f.connect_to(&node, &login).await;
    issue(&etl, ask()).await.unwrap();
    rested().await;
    let order = TokenOrder { uses: 1, ..Default::default() };
    let token = mint(&w.admin, "nightly-etl", order).await.unwrap();
    let keyed = || IssueCredentialsRequest { idempotency_key: "a-key-of-the-test".into(), ..ask() };
    let pay = |bearer: Bearing| async move {
        let mut client = DatabaseServiceClient::new(bearer);
        client.issue_credentials(keyed()).await.map(tonic::Response::into_inner)
    };
    proxy.set(Wire::HoldsAnswers);
    let call = TaskGroup::default().spawn(pay(bearing(&etl, &token)));
    until("the target has it", async || w.roles(Postgres::shared()).await.len() == 2).await;
    runtime.shutdown_background();
    std::mem::forget(node);
    call.await.unwrap().unwrap_err();
    proxy.set(Wire::Cut);
    proxy.set(Wire::Whole);
    let elsewhere = bearing(&w.f.connect_as_nobody().await, &token);
    let refusal = pay(elsewhere.clone()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    w.advance(61);
    until("what was begun is over", async || {
        w.leases().await.iter().any(|lease| lease.end_reason == "failed" && lease.ended_at_ms > 0)
    })
    .await;
    let resumed = pay(elsewhere).await.unwrap();
    drop(log_in(&resumed, proxy.port).await.unwrap());
    assert_eq!(w.roles(Postgres::shared()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_races_with_issuing_leaves_no_live_lease_on_two_nodes_either() {
    for (backend, rounds) in [(Backend::Sqlite, 40), (Backend::Postgres, 60)] {
        let w = World::new(backend).await;
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(w.f.second_node().await),
        };
        let mut made = 0;
        for round in 0..rounds {
            let name = format!("racer-{round}");
            logins::register(&w.f, &name, "pipeline", "admin").await;
            w.grant(&name, |grant| grant).await.unwrap();
            let login = logins::login(&w.f, &name).await;
            let here = w.f.connect(&login).await;
            let there = match &second {
                Some(node) => w.f.connect_to(node, &login).await,
                None => here.clone(),
            };
            let mut calls = JoinSet::new();
            let under_way = [here.clone(), there.clone(), here, there]
                .map(|channel| calls.spawn(async move { issue(&channel, ask()).await }));
            head_start(round, &under_way).await;
            let request = SuspendIdentityRequest { name, ..Default::default() };
            IdentityServiceClient::new(w.admin.clone()).suspend_identity(request).await.unwrap();
            made += calls.join_all().await.iter().filter(|call| call.is_ok()).count();
        }
        until("no lease is live", async || {
            w.leases().await.iter().all(|lease| !["pending", "active"].contains(&&*lease.state))
        })
        .await;
        // What was not seen to be made is looked for once more.
        w.advance(61);
        w.all_over().await;
        assert!(w.roles(Postgres::shared()).await.is_empty());
        assert!(made > 0, "some were first");
        if let Some(node) = second {
            node.stop().await.unwrap();
        }
    }
}
