//! Sessions end with the rule or the issuer that gave them, and what hangs on them ends with them.

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::key_service_client::KeyServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    CreateTokenRequest, EntryFilter, GetRandomRequest, InspectTokenRequest, ListEntriesRequest,
    RemoveIssuerRequest, RemoveRuleRequest, RenewLeaseRequest, RenewTokenRequest,
    RevokeTokenRequest, TokenOrder, UpdateIssuerRequest,
};

use super::*;
use crate::support::target::{World, ask};
use crate::wraps::{asked, expecting, unwrap};

/// Ways to end what was got for tokens.
#[derive(Debug, Clone, Copy)]
enum Way {
    Rule,
    Issuer,
    Sessions,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_rule_with_its_issuer_and_when_told_to() {
    for (backend, way) in BACKENDS
        .into_iter()
        .flat_map(|on| [Way::Rule, Way::Issuer, Way::Sessions].map(|way| (on, way)))
    {
        let mut scene = Scene::bare(backend, "github").await;
        let added = scene.rule(rule(&GITHUB)).await.unwrap();
        let session = scene.login(&scene.token("1", github())).await.unwrap();
        assert_eq!(scene.whoami(&session.bearer).await.unwrap(), "etl");
        let nobody = scene.f.connect_as_nobody().await;
        let mut own = TokenServiceClient::new(bearing(&nobody, &session.bearer));
        let child = own.create_token(CreateTokenRequest::default()).await.unwrap().into_inner();
        assert_eq!(scene.whoami(&child.bearer).await.unwrap(), "etl");
        let mut keys = KeyServiceClient::new(bearing(&nobody, &child.bearer));
        let random = asked(GetRandomRequest { len_bytes: 16 }, "600", "");
        let wrapped = keys.get_random(random).await.unwrap().into_inner().wrapped.unwrap();
        let (issuer, name, reason) = ("ci".to_owned(), "ci".to_owned(), "over".to_owned());
        match way {
            Way::Rule => {
                let request = RemoveRuleRequest { issuer, id: added.id, reason };
                scene.admin.remove_rule(request).await.unwrap();
            }
            Way::Issuer => {
                scene.admin.remove_issuer(RemoveIssuerRequest { name, reason }).await.unwrap();
            }
            Way::Sessions => {
                let settings = Some(settings(&scene.issuer, "github"));
                let request = UpdateIssuerRequest {
                    name,
                    settings,
                    end_sessions: true,
                    ..Default::default()
                };
                scene.admin.update_issuer(request).await.unwrap();
            }
        }
        for bearer in [&session.bearer, &child.bearer] {
            let status = scene.whoami(bearer).await.expect_err("dead from the commit on");
            assert_eq!(status.code(), Code::Unauthenticated, "{way:?}");
        }
        let admin = scene.f.connect(&scene.f.admin).await;
        let void = unwrap(&admin, expecting(&wrapped)).await.unwrap_err();
        assert_eq!(void.code(), Code::FailedPrecondition, "what it wrapped is void: {void}");
        // The worker ends the row as well, and all below it.
        let tokens = TokenServiceClient::new(admin);
        for accessor in [session.accessor, child.token.unwrap().accessor] {
            until("the worker ends it", async || {
                let request = InspectTokenRequest { accessor: accessor.clone() };
                let found = tokens.clone().inspect_token(request).await.unwrap().into_inner();
                found.token.unwrap().state == "revoked"
            })
            .await;
        }
        let again = scene.login(&scene.token("2", github())).await;
        assert_eq!(again.is_ok(), matches!(way, Way::Sessions), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_an_ordinary_token_in_all_else() {
    let scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    let session = scene.login(&scene.token("1", github())).await.unwrap();
    let nobody = scene.f.connect_as_nobody().await;
    let mut own = TokenServiceClient::new(bearing(&nobody, &session.bearer));
    scene.f.clock.advance(std::time::Duration::from_mins(10));
    let renewed =
        own.renew_token(RenewTokenRequest::default()).await.unwrap().into_inner().token.unwrap();
    assert!(renewed.expires_at_ms > session.expires_at_ms);
    let request = RenewTokenRequest { ttl_s: 3_000, ..Default::default() };
    let renewed = own.renew_token(request).await.unwrap().into_inner().token.unwrap();
    let lives = renewed.expires_at_ms - scene.f.node().vault.now().unwrap().0;
    assert!(lives <= 900_000, "the rule says how long at a time: {lives}");
    assert_eq!(renewed.max_expires_at_ms, session.max_expires_at_ms);
    assert_eq!(renewed.created_by, "federation");
    own.revoke_token(RevokeTokenRequest::default()).await.unwrap();
    assert!(scene.whoami(&session.bearer).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_whose_tokens_are_used_once_gets_a_session_for_one_call() {
    let mut scene = Scene::bare(Backend::Sqlite, "github").await;
    register(&scene.f, "rx", "runner", "admin").await;
    let yields = Some(add_rule_request::Yields::Identity("rx".to_owned()));
    scene.rule(AddRuleRequest { yields, ..rule(&GITHUB) }).await.unwrap();
    let session = login(&scene.stranger, "rx", &scene.token("1", github())).await.unwrap();
    assert!(session.single_use && session.bearer.starts_with("srs_"));
    assert_eq!(scene.whoami(&session.bearer).await.unwrap(), "rx");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_has_its_entry_and_what_was_refused_is_counted() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, "github", &GITHUB).await;
        let token = scene.token("the-jti", github());
        let session = scene.login(&token).await.unwrap();
        for _ in 0..3 {
            scene.login(&token).await.unwrap_err();
        }
        let admin = scene.f.connect(&scene.f.admin).await;
        let list = async |filter: EntryFilter| {
            let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
            let mut client = RecordServiceClient::new(admin.clone());
            client.list_entries(request).await.unwrap().into_inner().entries
        };
        let logins = || EntryFilter { action: "issuers.login".into(), ..Default::default() };
        until("the entry has its place", async || !list(logins()).await.is_empty()).await;
        let entries = list(logins()).await;
        assert_eq!(entries.len(), 1, "what a stranger does writes nothing by itself: {entries:?}");
        let entry = &entries[0];
        assert_eq!((entry.identity.as_str(), entry.outcome.as_str()), ("system/federation", "ok"));
        assert_eq!(entry.subject_id, session.accessor);
        assert!(entry.resource.contains("identities/etl") && entry.detail.contains("jti the-jti"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_of_a_lease_is_dead_with_the_rule_of_the_session_far_above_it() {
    let (w, issuer) = (World::new(Backend::Sqlite).await, Issuer::new());
    let mut admin = Client::new(w.admin.clone());
    let request = AddIssuerRequest {
        name: "ci".to_owned(),
        url: issuer.url(),
        settings: Some(settings(&issuer, "github")),
        ..Default::default()
    };
    admin.add_issuer(request).await.unwrap();
    let yields = Some(add_rule_request::Yields::Identity("nightly-etl".to_owned()));
    let added = admin.add_rule(AddRuleRequest { yields, ..rule(&GITHUB) }).await.unwrap();
    let nobody = w.f.connect_as_nobody().await;
    let token = issuer.mint(&issuer.claims(&w.f, "1", github()));
    let session = login(&Client::new(nobody.clone()), "nightly-etl", &token).await.unwrap();
    let mut own = TokenServiceClient::new(bearing(&nobody, &session.bearer));
    let order = Some(TokenOrder { uses: 1, ..Default::default() });
    let once = CreateTokenRequest { order, ..Default::default() };
    let child = own.create_token(once).await.unwrap().into_inner();
    let mut database = DatabaseServiceClient::new(bearing(&nobody, &child.bearer));
    let given = database.issue_credentials(ask()).await.unwrap().into_inner();
    let renewal = async || {
        let mut client = LeaseServiceClient::new(bearing(&nobody, &given.lease_handle));
        let request = RenewLeaseRequest { id: given.lease_id.clone(), ttl_s: 0 };
        client.renew_lease(request).await.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
    };
    assert_eq!(renewal().await, Code::Ok);
    let (issuer, id) = ("ci".to_owned(), added.into_inner().rule.unwrap().id);
    let request = RemoveRuleRequest { issuer, id, reason: "over".to_owned() };
    admin.remove_rule(request).await.unwrap();
    assert_eq!(renewal().await, Code::Unauthenticated);
}
