//! Identities at the real socket: who may be registered, by whom, and how they are contained.

mod bounds;
mod containment;
mod holdings;
mod leases;
mod lifecycles;
mod lists;
mod notices;
mod orphans;
mod program;
mod registry;
mod rotation;

use std::sync::Arc;

use strongroom::engines::pki::Request;
use strongroom::hsm::{Hsm, MemoryHsm};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    CreateIdentityRequest, EntryFilter, GetIdentityRequest, Identity, ListEntriesRequest,
    SuspendIdentityRequest, WhoAmIRequest,
};
use strongroom::server::{First, Founding, Ingredients, Node, found};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::{human, machine, register, registration};
use crate::support::node::{BACKENDS, Backend, Fixture, Login, csr, location, pin};

type Client = IdentityServiceClient<Channel>;

async fn admin(f: &Fixture) -> Client {
    Client::new(f.connect(&f.admin).await)
}

async fn create(client: &mut Client, request: CreateIdentityRequest) -> Result<Identity, Status> {
    let created = client.create_identity(request).await?;
    Ok(created.into_inner().identity.unwrap())
}

async fn show(client: &mut Client, name: &str) -> Result<Identity, Status> {
    let found = client.get_identity(GetIdentityRequest { name: name.to_owned() }).await?;
    Ok(found.into_inner().identity.unwrap())
}

/// What the record says in detail of an action, newest first; `ok` alone.
async fn details(f: &Fixture, action: &str) -> Vec<String> {
    f.node().vault.integrate().await.unwrap();
    let filter = Some(EntryFilter { action: action.to_owned(), ..EntryFilter::default() });
    let request = ListEntriesRequest { filter, page_size: 1_000, ..ListEntriesRequest::default() };
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    let entries = client.list_entries(request).await.unwrap().into_inner().entries.into_iter();
    entries.filter(|entry| entry.outcome == "ok").map(|entry| entry.detail).collect()
}

/// Names that are not canonical, or that somebody hopes are repaired.
pub(crate) fn bad_names() -> Vec<String> {
    let mut bad: Vec<_> = [
        "",
        " ",
        "Carol",
        "carol ",
        " carol",
        "ca rol",
        "CAROL",
        "carol\n",
        "carol\0",
        "carol\t",
        "a//b",
        "/a",
        "a/",
        "..",
        "a/..",
        "../a",
        "a..b",
        ".",
        "%2f",
        "a%2fb",
        "a%00",
        "a'b",
        "a\"b",
        "a;b",
        "a;--",
        "a`b",
        "a\\b",
        "*",
        "a*",
        "**",
        "a,b",
        "a:b",
        "a@b",
        "-a",
        "_a",
        "é",
        "а",
        "a\u{202e}b",
        "a\u{2028}b",
        "\u{feff}a",
        "a\u{1b}[31m",
    ]
    .map(str::to_owned)
    .to_vec();
    bad.extend(["a".repeat(64), "a/b/c/d/e".to_owned(), "a".repeat(100_000)]);
    bad
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_machine_is_shown_with_its_owner_and_its_end() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let carol = create(&mut client, registration("carol", "human", "")).await.unwrap();
        assert_eq!((carol.owner.as_str(), carol.expires_at_ms), ("carol", 0));
        let etl = create(&mut client, registration("data/nightly-etl", "pipeline", "carol"))
            .await
            .unwrap();
        assert_eq!(etl, show(&mut client, "data/nightly-etl").await.unwrap());
        assert_eq!(etl.owner, "carol");
        assert_eq!(etl.created_by, "admin");
        assert_eq!((etl.state.as_str(), etl.owner_active), ("registered", true));
        assert_eq!(etl.expires_at_ms - etl.created_at_ms, 90 * 86_400_000);
        assert_eq!((etl.row_version, etl.last_used_at_ms), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_proper_registration_changes_nothing() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    register(&f, "etl", "pipeline", "carol").await;
    register(&f, "gone", "human", "").await;
    let gone = SuspendIdentityRequest { name: "gone".into(), reason: String::new() };
    client.suspend_identity(gone).await.unwrap();
    let base = || registration("new", "pipeline", "carol");
    let invalid = Code::InvalidArgument;
    let mut table = vec![
        (CreateIdentityRequest { owner: String::new(), ..base() }, invalid),
        (CreateIdentityRequest { ttl_s: 366 * 86_400, ..base() }, invalid),
        (CreateIdentityRequest { ttl_s: -1, ..base() }, invalid),
        (CreateIdentityRequest { ttl_s: i64::MIN, ..base() }, invalid),
        (CreateIdentityRequest { ttl_s: i64::MAX, ..base() }, invalid),
        (CreateIdentityRequest { owner: "nobody".into(), ..base() }, Code::NotFound),
        (CreateIdentityRequest { owner: "etl".into(), ..base() }, Code::FailedPrecondition),
        (CreateIdentityRequest { owner: "gone".into(), ..base() }, Code::FailedPrecondition),
        (CreateIdentityRequest { owner: "Carol".into(), ..base() }, invalid),
        (CreateIdentityRequest { kind: "human".into(), ..base() }, invalid),
        (CreateIdentityRequest { tier: String::new(), ..base() }, invalid),
        (CreateIdentityRequest { tier: "LOW".into(), ..base() }, invalid),
        (CreateIdentityRequest { purpose: String::new(), ..base() }, invalid),
        (CreateIdentityRequest { purpose: "  ".into(), ..base() }, invalid),
        (CreateIdentityRequest { purpose: "a\nb".into(), ..base() }, invalid),
        (CreateIdentityRequest { purpose: "x".repeat(1_025), ..base() }, invalid),
        (CreateIdentityRequest { idempotency_key: "short".into(), ..base() }, invalid),
        (CreateIdentityRequest { idempotency_key: "k".repeat(129), ..base() }, invalid),
    ];
    for kind in ["", "Human", "bootstrap", "robot", "human "] {
        let (kind, owner) = (kind.to_owned(), String::new());
        table.push((CreateIdentityRequest { kind, owner, ..base() }, invalid));
    }
    table.extend(
        bad_names().into_iter().map(|name| (CreateIdentityRequest { name, ..base() }, invalid)),
    );
    for (request, code) in table {
        let refusal = create(&mut client, request.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{request:?}: {refusal}");
        let quoted = request.name.len() > 3 && refusal.message().contains(&request.name);
        assert!(!quoted, "rejected input is never quoted: {refusal}");
    }
    assert_eq!(show(&mut client, "new").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_never_used_again() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    let suspend = SuspendIdentityRequest { name: "carol".into(), reason: "left".into() };
    client.suspend_identity(suspend).await.unwrap();
    let again = create(&mut client, registration("carol", "human", "")).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_what_the_first_try_registered() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let idempotency_key = "0123456789abcdef0123456789abcdef".to_owned();
        let request = CreateIdentityRequest {
            idempotency_key: idempotency_key.clone(),
            ..registration("carol", "human", "")
        };
        let first = create(&mut client, request.clone()).await.unwrap();
        let second = create(&mut client, request.clone()).await.unwrap();
        assert_eq!(first, second);
        let other = CreateIdentityRequest { tier: "high".into(), ..request.clone() };
        assert_eq!(create(&mut client, other).await.unwrap_err().code(), Code::InvalidArgument);
        let other = CreateIdentityRequest { name: "dave".into(), ..request.clone() };
        assert_eq!(create(&mut client, other).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(show(&mut client, "dave").await.unwrap_err().code(), Code::NotFound);
        let keyless = CreateIdentityRequest { idempotency_key: String::new(), ..request };
        assert_eq!(create(&mut client, keyless).await.unwrap_err().code(), Code::AlreadyExists);
        // A key that failed is free again: nothing was made under it.
        let request = CreateIdentityRequest {
            idempotency_key: idempotency_key.replace('0', "f"),
            ..registration("carol", "human", "")
        };
        let taken = create(&mut client, request.clone()).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists);
        let request = CreateIdentityRequest { name: "erin".into(), ..request };
        assert_eq!(create(&mut client, request).await.unwrap().name, "erin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_retries_register_one_identity() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = f.connect(&f.admin).await;
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let mut client = Client::new(channel.clone());
            let request = CreateIdentityRequest {
                idempotency_key: "a key that every one of them carries".replace(' ', "-"),
                ..registration("carol", "human", "")
            };
            racing.spawn(async move { create(&mut client, request).await.unwrap().id });
        }
        let mut ids = racing.join_all().await;
        ids.dedup();
        assert_eq!(ids.len(), 1, "{backend:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_administrator_learns_nothing_about_what_exists() {
    let f = Fixture::new().await;
    register(&f, "there", "human", "").await;
    let humans = Client::new(human(&f, "carol").await);
    let machines = Client::new(machine(&f, "etl").await);
    for mut client in [humans, machines] {
        let there = show(&mut client, "there").await.unwrap_err();
        let nowhere = show(&mut client, "nowhere").await.unwrap_err();
        assert_eq!(there.code(), Code::PermissionDenied);
        assert_eq!((there.code(), there.message()), (nowhere.code(), nowhere.message()));
        let suspend =
            |name: &str| SuspendIdentityRequest { name: name.into(), reason: String::new() };
        let there = client.suspend_identity(suspend("there")).await.unwrap_err();
        let nowhere = client.suspend_identity(suspend("nowhere")).await.unwrap_err();
        assert_eq!(there.code(), Code::PermissionDenied);
        assert_eq!((there.code(), there.message()), (nowhere.code(), nowhere.message()));
        let there = create(&mut client, registration("there", "human", "")).await.unwrap_err();
        let nowhere = create(&mut client, registration("nowhere", "human", "")).await.unwrap_err();
        assert_eq!(there.code(), Code::PermissionDenied);
        assert_eq!((there.code(), there.message()), (nowhere.code(), nowhere.message()));
    }
    let mut client = admin(&f).await;
    assert_eq!(show(&mut client, "there").await.unwrap().state, "registered");
    assert_eq!(show(&mut client, "nowhere").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_sees_its_machines_and_a_human_itself() {
    let f = Fixture::new().await;
    let mut carol = Client::new(human(&f, "carol").await);
    register(&f, "etl", "pipeline", "carol").await;
    register(&f, "other", "pipeline", "admin").await;
    assert_eq!(show(&mut carol, "etl").await.unwrap().owner, "carol");
    assert_eq!(show(&mut carol, "carol").await.unwrap().kind, "human");
    assert_eq!(show(&mut carol, "other").await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_identity_was_last_served_is_shown_after_a_flush() {
    let f = Fixture::new().await;
    let mut carol = Client::new(human(&f, "carol").await);
    let mut client = admin(&f).await;
    let before = show(&mut client, "carol").await.unwrap();
    assert_eq!(before.last_used_at_ms, 0);
    carol.who_am_i(WhoAmIRequest {}).await.unwrap();
    f.node().vault.flush_usage().await.unwrap();
    let shown = show(&mut client, "carol").await.unwrap();
    assert!(shown.last_used_at_ms >= shown.created_at_ms, "{shown:?}");
    assert_eq!(shown.row_version, before.row_version, "a statistic changes no sealed row");
}

/// A second vault beside the fixture's, founded with a bootstrap certificate.
async fn bootstrapped(f: &Fixture) -> (TempDir, Node, Client) {
    let dir = TempDir::new().unwrap();
    let parts = Ingredients {
        location: location(Backend::Sqlite, dir.path()).await,
        hsm: Arc::new(MemoryHsm::new(pin())) as Arc<dyn Hsm>,
        ..f.parts.clone()
    };
    let (key_pem, request) = csr();
    let founding = Founding {
        trust_domain: "vault.test".parse().unwrap(),
        origin: "vault.test/log".to_owned(),
        dev: false,
        first: First::Bootstrap(Request::parse(request.as_bytes()).unwrap()),
    };
    let founded = found(&parts, &founding, pin()).await.unwrap();
    let node = Node::start(parts, pin()).await.unwrap();
    let login = Login { key_pem, certificate_pem: founded.certificate_pem };
    let identity = tonic::transport::Identity::from_pem(&login.certificate_pem, &login.key_pem);
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(&founded.root_pem))
        .identity(identity)
        .domain_name("localhost");
    let uri = format!("https://127.0.0.1:{}", node.grpc_addr.port());
    let endpoint = tonic::transport::Endpoint::from_shared(uri).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    (dir, node, Client::new(channel))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_certificate_registers_administrators_and_nobody_else() {
    let f = Fixture::new().await;
    let (_dir, node, mut client) = bootstrapped(&f).await;
    let first = create(&mut client, registration("carol", "human", "")).await.unwrap();
    assert_eq!(first.groups, ["administrators"]);
    assert_eq!(first.created_by, "bootstrap");
    for kind in ["pipeline", "agent", "service", "bootstrap"] {
        let owner = if kind == "bootstrap" { "" } else { "carol" };
        let refusal = create(&mut client, registration("etl", kind, owner)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{kind}");
    }
    assert_eq!(show(&mut client, "carol").await.unwrap_err().code(), Code::PermissionDenied);
    let suspend = SuspendIdentityRequest { name: "carol".into(), reason: String::new() };
    let refusal = client.suspend_identity(suspend).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    drop(client);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_whom_an_administrator_registers_is_no_administrator() {
    let f = Fixture::new().await;
    let carol = register(&f, "carol", "human", "").await;
    assert!(carol.groups.is_empty());
}
