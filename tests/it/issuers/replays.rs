//! A token is used as often as its issuer's tokens may be, across nodes and restarts.

use std::collections::HashSet;

use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{InspectTokenRequest, RemoveIssuerRequest, UpdateIssuerRequest};

use super::*;
use crate::support::hand::Hand;

async fn replay(scene: &mut Scene, mode: &str) {
    let known = settings(&scene.issuer, "kubernetes");
    let settings = Some(IssuerSettings { replay: mode.to_owned(), ..known });
    let name = "ci".to_owned();
    let request = UpdateIssuerRequest { name, settings, ..Default::default() };
    scene.admin.update_issuer(request).await.unwrap();
}

const CLUSTER: [(&str, &str); 2] = [
    ("kubernetes.io/namespace", "data"),
    ("kubernetes.io/serviceaccount/uid", "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_token_logs_in_once_also_after_a_restart_and_written_otherwise() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        for mode in ["once", "hash"] {
            replay(&mut scene, mode).await;
            let token = scene.token(mode, kubernetes("p"));
            scene.login(&token).await.unwrap();
            for _ in 0..2 {
                assert_eq!(scene.login(&token).await.unwrap_err().code(), Code::Unauthenticated);
            }
            scene.f.restart().await;
            scene.stranger = Client::new(scene.f.connect_as_nobody().await);
            scene.admin = Client::new(scene.f.connect(&scene.f.admin).await);
            assert_eq!(scene.login(&token).await.unwrap_err().code(), Code::Unauthenticated);
        }
        // Signed again it is another token to one mode, and the same to the other.
        replay(&mut scene, "once").await;
        let claims = scene.issuer.claims(&scene.f, "twice", kubernetes("p"));
        scene.login(&scene.issuer.mint(&claims)).await.unwrap();
        let mut again = claims;
        again["exp"] = json!(again["exp"].as_i64().unwrap() + 1);
        let again = scene.issuer.mint(&again);
        assert_eq!(scene.login(&again).await.unwrap_err().code(), Code::Unauthenticated);
        replay(&mut scene, "hash").await;
        scene.login(&again).await.unwrap();
        // Without what would be used once, there is nothing to be believed.
        replay(&mut scene, "once").await;
        let mut claims = scene.issuer.claims(&scene.f, "", kubernetes("p"));
        claims.as_object_mut().unwrap().remove("jti");
        let status = scene.login(&scene.issuer.mint(&claims)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_remembered_beyond_what_clocks_differ_by() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "kubernetes").await;
        replay(&mut scene, "hash").await;
        scene.rule(AddRuleRequest { ttl_s: 60, max_ttl_s: 60, ..rule(&CLUSTER) }).await.unwrap();
        let claims = scene.issuer.claims(&scene.f, "1", kubernetes("p"));
        scene.login(&scene.issuer.mint(&claims)).await.unwrap();
        let hand = Hand::new(&scene.f.parts.location);
        let kept = hand.ask("SELECT '' || kept_until FROM issuer_logins").await.concat();
        let expires = claims["exp"].as_i64().unwrap();
        assert_eq!(kept, ((expires + 60 + 300) * 1_000).to_string(), "{backend:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_logins_that_race_on_two_nodes_one_wins() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        replay(&mut scene, "hash").await;
        let second = match backend {
            Backend::Postgres => Some(scene.f.second_node().await),
            Backend::Sqlite => None,
        };
        let mut clients = vec![scene.stranger.clone()];
        if let Some(node) = &second {
            clients.push(Client::new(scene.f.connect_to(node, &scene.f.admin).await));
        }
        for round in 0..4 {
            let token = scene.token(&format!("{round}"), kubernetes("p"));
            let racers = (0..32).map(|n| login(&clients[n % clients.len()], "etl", &token));
            let done = join_all(racers).await;
            assert_eq!(done.iter().filter(|one| one.is_ok()).count(), 1, "{backend:?}");
            for lost in done.into_iter().filter_map(Result::err) {
                assert_eq!(lost.code(), Code::Unauthenticated, "{lost}");
            }
        }
        if let Some(node) = second {
            node.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_logs_in_again_and_its_session_before_ends() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        let token = scene.token("1", kubernetes("p"));
        let first = scene.login(&token).await.unwrap();
        let other = scene.login(&scene.token("2", kubernetes("q"))).await.unwrap();
        let second = scene.login(&token).await.unwrap();
        assert!(scene.whoami(&first.bearer).await.is_err(), "another took its place");
        assert_eq!(scene.whoami(&second.bearer).await.unwrap(), "etl");
        assert_eq!(scene.whoami(&other.bearer).await.unwrap(), "etl", "that is another pod's");
        let racers = (0..8).map(|_| scene.login(&token));
        let won: Vec<_> = join_all(racers).await.into_iter().filter_map(Result::ok).collect();
        let mut alive = HashSet::new();
        for session in won {
            if scene.whoami(&session.bearer).await.is_ok() {
                alive.insert(session.accessor);
            }
        }
        assert_eq!(alive.len(), 1, "one pod has one session");
        let no_pod = scene.token(
            "3",
            json!({"kubernetes.io": {"namespace": "data",
            "serviceaccount": {"uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}}}),
        );
        assert_eq!(scene.login(&no_pod).await.unwrap_err().code(), Code::Unauthenticated);
    }
}

/// Removes the issuer, and adds it again by another name, with one rule.
async fn add_again(scene: &mut Scene, preset: &str, claims: &[(&str, &str)]) {
    let remove = RemoveIssuerRequest { name: "ci".into(), reason: "over".into() };
    scene.admin.remove_issuer(remove).await.unwrap();
    let request = AddIssuerRequest {
        name: "ci2".into(),
        url: scene.issuer.url(),
        settings: Some(settings(&scene.issuer, preset)),
        ..Default::default()
    };
    scene.admin.add_issuer(request).await.unwrap();
    let issuer = "ci2".to_owned();
    scene.rule(AddRuleRequest { issuer, ..rule(claims) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_stays_used_though_its_issuer_was_removed_and_added_again() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, "github", &GITHUB).await;
        let token = scene.token("1", github());
        scene.login(&token).await.unwrap();
        add_again(&mut scene, "github", &GITHUB).await;
        assert_eq!(scene.login(&token).await.unwrap_err().code(), Code::Unauthenticated);
        scene.login(&scene.token("2", github())).await.unwrap();
        // A pod goes on, and what it gets from then on is the new issuer's.
        let mut scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        let token = scene.token("1", kubernetes("p"));
        scene.login(&token).await.unwrap();
        add_again(&mut scene, "kubernetes", &CLUSTER).await;
        let session = scene.login(&token).await.unwrap();
        let request = UpdateIssuerRequest {
            name: "ci2".into(),
            settings: Some(settings(&scene.issuer, "kubernetes")),
            end_sessions: true,
            ..Default::default()
        };
        scene.admin.update_issuer(request).await.unwrap();
        assert!(scene.whoami(&session.bearer).await.is_err());
        let tokens = TokenServiceClient::new(scene.f.connect(&scene.f.admin).await);
        until("the worker ends it", async || {
            let request = InspectTokenRequest { accessor: session.accessor.clone() };
            let found = tokens.clone().inspect_token(request).await.unwrap().into_inner();
            found.token.unwrap().state == "revoked"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_session_is_over_logs_in_without_a_flush() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        let hand = Hand::new(&scene.f.parts.location);
        let epoch = async || {
            hand.ask("SELECT '' || epoch FROM authority").await.concat().parse::<i64>().unwrap()
        };
        scene.login(&scene.token("1", kubernetes("p"))).await.unwrap();
        let before = epoch().await;
        scene.f.clock.advance(std::time::Duration::from_mins(16));
        scene.login(&scene.token("2", kubernetes("p"))).await.unwrap();
        assert_eq!(epoch().await, before, "{backend:?}: it took no right away");
        scene.login(&scene.token("3", kubernetes("p"))).await.unwrap();
        assert_eq!(epoch().await, before + 1, "{backend:?}: it ended a session");
    }
}
