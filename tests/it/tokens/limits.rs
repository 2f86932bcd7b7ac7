//! What a token is limited to: scope, network, node, certificate, number.

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{
    CreateGroupRequest, GetIdentityRequest, ListGroupsRequest, ResumeIdentityRequest,
};

use super::*;
use crate::support::logins::fingerprint;
use crate::support::restored::restored;
use crate::support::target::{World, ask};

async fn credentials(bearer: &Bearing) -> Code {
    let mut client = DatabaseServiceClient::new(bearer.clone());
    client.issue_credentials(ask()).await.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

fn scope(of: &str) -> TokenOrder {
    TokenOrder { scope: vec![of.to_owned()], ..with(0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_narrows_what_the_identity_may_and_never_adds_to_it() {
    let world = World::new(Backend::Sqlite).await;
    for (of, answer) in [
        ("database/analytics/reader", Code::Ok),
        ("database/analytics/reader:database.credentials", Code::Ok),
        ("database/**", Code::Ok),
        ("database/analytics/writer", Code::PermissionDenied),
        ("database/analytics/reader:database.put-role", Code::PermissionDenied),
        ("pki/**", Code::PermissionDenied),
    ] {
        let token = create(&world.etl, scope(of)).await.unwrap().bearer;
        assert_eq!(credentials(&bearing(&world.etl, &token)).await, answer, "{of}");
    }
    let bare = machine(&world.f, "bare").await;
    let token = create(&bare, scope("database/**")).await.unwrap().bearer;
    assert_eq!(credentials(&bearing(&bare, &token)).await, Code::PermissionDenied);
    for bad in ["", "database/analytics/", "database/a:no.such", "Database/a", "a:b:c"] {
        let refusal = create(&bare, scope(bad)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_administers_only_what_it_names_exactly_and_a_counted_one_nothing() {
    let f = Fixture::new().await;
    let admin = f.connect(&f.admin).await;
    let exact = || scope("groups/team:groups.create");
    let make = async |order: TokenOrder| {
        let token = create(&admin, order.clone()).await.unwrap().bearer;
        // Nor does it make itself a child that does.
        let below = child(&bearing(&admin, &token), exact()).await;
        let below = below.map(drop).map_err(|refusal| refusal.code());
        let none = match order.uses {
            0 if order == exact() => Ok(()),
            0 => Err(Code::InvalidArgument),
            _ => Err(Code::FailedPrecondition),
        };
        assert_eq!(below, none, "a child of {order:?}");
        let mut client = GroupServiceClient::new(bearing(&admin, &token));
        let (name, purpose) = ("team".to_owned(), "a test".to_owned());
        let request = CreateGroupRequest { name, purpose, ..Default::default() };
        let listed = client.list_groups(ListGroupsRequest::default()).await;
        assert_eq!(listed.unwrap_err().code(), Code::PermissionDenied);
        client.create_group(request).await.map(drop).map_err(|refusal| refusal.code())
    };
    for order in [
        with(0),
        scope("groups/team"),
        scope("groups/*:groups.create"),
        scope("groups/**"),
        TokenOrder { uses: 1, ..exact() },
        TokenOrder { uses: 9, ..exact() },
    ] {
        assert_eq!(make(order.clone()).await, Err(Code::PermissionDenied), "{order:?}");
    }
    assert_eq!(make(exact()).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_looks_at_itself_and_at_nobody_else() {
    let f = Fixture::new().await;
    let etl = machine(&f, "etl").await;
    let order = TokenOrder { uses: 1, ..with(0) };
    let single = bearing(&etl, &create(&etl, order).await.unwrap().bearer);
    for (bearer, name, answer) in [
        (&plain(&etl), "etl", Code::Ok),
        (&plain(&etl), "admin", Code::PermissionDenied),
        (&single, "admin", Code::PermissionDenied),
        (&single, "etl", Code::Ok),
        (&single, "etl", Code::Unauthenticated),
    ] {
        let mut client = IdentityServiceClient::new(bearer.clone());
        let shown = client.get_identity(GetIdentityRequest { name: name.to_owned() }).await;
        let code = shown.map_or_else(|refusal| refusal.code(), |_| Code::Ok);
        assert_eq!(code, answer, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_grant_lets_a_machines_token_administer() {
    let f = Fixture::new().await;
    let etl = machine(&f, "etl").await;
    let token = create(&etl, scope("groups/team:groups.create")).await.unwrap().bearer;
    let mut client = GroupServiceClient::new(bearing(&etl, &token));
    let request = CreateGroupRequest { name: "team".into(), ..Default::default() };
    let refusal = client.create_group(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert!(refusal.message().contains("only humans administer"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_accepted_from_its_networks_by_its_nodes_and_with_its_certificate_only() {
    let f = Fixture::new().await;
    let etl = machine(&f, "etl").await;
    let (nobody, admin) = (f.connect_as_nobody().await, f.connect(&f.admin).await);
    let thumbprint = data_encoding::HEXLOWER.encode(&fingerprint(&f.admin.certificate_pem));
    let networks = |one: &str| TokenOrder { networks: vec![one.to_owned()], ..with(0) };
    let audience = |one: &str| TokenOrder { audience: vec![one.to_owned()], ..with(0) };
    let bound = TokenOrder { certificate_sha256: thumbprint, ..with(0) };
    for (order, by_nobody, by_admin) in [
        (networks("127.0.0.0/8"), Code::Ok, Code::Ok),
        (networks("10.0.0.0/8"), Code::Unauthenticated, Code::Unauthenticated),
        (networks("::/0"), Code::Unauthenticated, Code::Unauthenticated),
        (audience("localhost"), Code::Ok, Code::Ok),
        (audience("vault.test"), Code::Ok, Code::Ok),
        (audience("elsewhere"), Code::Unauthenticated, Code::Unauthenticated),
        (bound, Code::Unauthenticated, Code::Ok),
    ] {
        let token = create(&etl, order.clone()).await.unwrap().bearer;
        assert_eq!(knock(&bearing(&nobody, &token)).await, by_nobody, "{order:?}");
        assert_eq!(knock(&bearing(&admin, &token)).await, by_admin, "{order:?}");
    }
    for bad in [
        networks("10.0.0.1/8"),
        networks("anywhere"),
        audience("Vault.test"),
        audience(""),
        TokenOrder { certificate_sha256: "AA".repeat(32), ..with(0) },
        TokenOrder { certificate_sha256: "aa".to_owned(), ..with(0) },
        TokenOrder { uses: -1, ..with(0) },
        TokenOrder { uses: 1_000_001, ..with(0) },
        with(-1),
        with(31 * 86_400),
        TokenOrder { max_ttl_s: 60, ..with(61) },
        TokenOrder { scope: vec!["pki/a".to_owned(); 65], ..with(0) },
    ] {
        let refusal = create(&etl, bad.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_a_number_of_tokens_in_force_and_hears_so_clearly() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        f.parts.limits.tokens.live = 3;
        f.restart().await;
        let (etl, other) = (machine(&f, "etl").await, machine(&f, "other").await);
        let mut made = Vec::new();
        for ttl_s in [100, 200, 200] {
            made.push(token(&etl, ttl_s).await);
        }
        let refusal = create(&etl, with(0)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted);
        assert!(refusal.message().contains("3 tokens in force"), "{refusal}");
        token(&other, 0).await;
        // One that is revoked, spent or over makes room.
        revoke(&plain(&etl), &made[2].token.as_ref().unwrap().accessor).await.unwrap();
        let single = create(&etl, TokenOrder { uses: 1, ..with(0) }).await.unwrap().bearer;
        let admin = f.connect(&f.admin).await;
        assert!(mint(&admin, "etl", with(0)).await.is_err(), "whoever mints");
        let listed = TokenServiceClient::new(bearing(&etl, &single));
        listed.clone().list_tokens(ListTokensRequest::default()).await.unwrap();
        token(&etl, 200).await;
        f.clock.advance(Duration::from_secs(101));
        token(&etl, 200).await;
        assert!(create(&etl, with(0)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_tokens_in_force_is_kept_to_exactly_whatever_races() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        f.parts.limits.tokens.live = 7;
        f.restart().await;
        let other = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(f.second_node().await),
        };
        let admin = f.connect(&f.admin).await;
        for round in 0..4 {
            let name = format!("etl-{round}");
            register(&f, &name, "pipeline", "admin").await;
            let own = login(&f, &name).await;
            let here = f.connect(&own).await;
            let there = match &other {
                Some(node) => f.connect_to(node, &own).await,
                None => here.clone(),
            };
            let calls = (0..48).map(|n| {
                let (here, there, admin) = (here.clone(), there.clone(), admin.clone());
                let name = name.clone();
                async move {
                    match n % 3 {
                        0 => create(&here, with(0)).await.map(drop),
                        1 => create(&there, with(0)).await.map(drop),
                        _ => mint(&admin, &name, with(0)).await.map(drop),
                    }
                }
            });
            let answers = futures_util::future::join_all(calls).await;
            let made = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(made, 7, "{backend:?}");
            for refusal in answers.into_iter().filter_map(Result::err) {
                assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
            }
        }
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_tokens_take_no_place_of_those_that_follow_a_containment_or_a_restore() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        f.parts.limits.tokens.live = 2;
        f.restart().await;
        let admin = f.connect(&f.admin).await;
        register(&f, "etl", "pipeline", "admin").await;
        let fill = async |why: &str| {
            let mut made = Vec::new();
            for _ in 0..2 {
                let token = mint(&admin, "etl", with(0)).await;
                made.push(token.unwrap_or_else(|refusal| panic!("{why}: {refusal}")));
            }
            let refusal = mint(&admin, "etl", with(0)).await.unwrap_err();
            assert_eq!(refusal.code(), Code::ResourceExhausted, "{why}");
            made
        };
        let listed = async |include_ended| {
            let identity = "etl".to_owned();
            let request = ListTokensRequest { identity, include_ended, ..Default::default() };
            let listed = TokenServiceClient::new(admin.clone()).list_tokens(request).await;
            let tokens = listed.unwrap().into_inner().tokens.into_iter();
            tokens.map(|token| token.state).collect::<Vec<_>>()
        };
        fill("at first").await;
        let (name, mut identities) = ("etl".to_owned(), IdentityServiceClient::new(admin.clone()));
        let request = SuspendIdentityRequest { name: name.clone(), reason: String::new() };
        identities.suspend_identity(request).await.unwrap();
        let request = ResumeIdentityRequest { name, ..Default::default() };
        identities.resume_identity(request).await.unwrap();
        let void = fill("after a containment").await;
        assert_eq!(listed(false).await, ["active", "active"]);
        restored(&f).await;
        let nobody = f.connect_as_nobody().await;
        assert_eq!(knock(&bearing(&nobody, &void[0])).await, Code::Unauthenticated);
        let mut all = ["revoked"; 4].to_vec();
        assert_eq!(listed(true).await, all, "what is void is shown so");
        fill("after a restore").await;
        all.extend(["active"; 2]);
        assert_eq!(listed(true).await, all);
        assert_eq!(listed(false).await, ["active"; 2]);
    }
}
