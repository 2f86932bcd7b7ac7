//! Grants at the real socket: which may exist, who may give them, when they hold.

use std::time::Duration;

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, Conditions, CreateGroupRequest, GetGrantRequest,
    GetIdentityRequest, Grant, ListGrantsRequest, RemoveGrantRequest, add_grant_request,
    list_grants_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::identities::bad_names;
use crate::support::logins::{human, machine, register};
use crate::support::node::{BACKENDS, Fixture};

type Client = GrantServiceClient<Channel>;

const READER: &str = "database/analytics/reader";
const CREDS: &str = "database.credentials";

async fn admin(f: &Fixture) -> Client {
    Client::new(f.connect(&f.admin).await)
}

fn to(name: &str, action: &str, resource: &str) -> AddGrantRequest {
    AddGrantRequest {
        subject: Some(add_grant_request::Subject::Identity(name.to_owned())),
        action: action.to_owned(),
        resource: resource.to_owned(),
        ..AddGrantRequest::default()
    }
}

fn to_group(name: &str, action: &str, resource: &str) -> AddGrantRequest {
    let subject = Some(add_grant_request::Subject::Group(name.to_owned()));
    AddGrantRequest { subject, ..to("", action, resource) }
}

async fn add(client: &mut Client, request: AddGrantRequest) -> Result<Grant, Status> {
    Ok(client.add_grant(request).await?.into_inner().grant.unwrap())
}

async fn get(client: &mut Client, id: &str) -> Result<Grant, Status> {
    let found = client.get_grant(GetGrantRequest { id: id.to_owned() }).await?;
    Ok(found.into_inner().grant.unwrap())
}

async fn remove(client: &mut Client, id: &str) -> Result<Grant, Status> {
    let request = RemoveGrantRequest { id: id.to_owned(), reason: "over".to_owned() };
    Ok(client.remove_grant(request).await?.into_inner().grant.unwrap())
}

async fn list(client: &mut Client, request: ListGrantsRequest) -> Result<Vec<String>, Status> {
    let page = client.list_grants(request).await?.into_inner();
    Ok(page.grants.into_iter().map(|grant| grant.resource).collect())
}

/// Asks for an identity, which is what the grants of these tests are about.
async fn looks_at(channel: &Channel, name: &str) -> Code {
    let request = GetIdentityRequest { name: name.to_owned() };
    let answer = IdentityServiceClient::new(channel.clone()).get_identity(request).await;
    answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_shows_who_gave_it_when_why_and_when_it_was_last_used() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let carol = human(&f, "carol").await;
        let conditions = Conditions {
            networks: vec!["127.0.0.0/8".into()],
            max_ttl_s: 600,
            ..Conditions::default()
        };
        let request = AddGrantRequest {
            conditions: Some(conditions.clone()),
            reason: "an audit".into(),
            ticket: "OPS-1".into(),
            ttl_s: 3_600,
            ..to("carol", "identities.show", "identities/admin")
        };
        let given = add(&mut client, request).await.unwrap();
        assert_eq!(get(&mut client, &given.id).await.unwrap(), given);
        assert_eq!((given.created_by.as_str(), given.reason.as_str()), ("admin", "an audit"));
        assert_eq!((given.ticket.as_str(), given.last_used_at_ms), ("OPS-1", 0));
        assert_eq!(given.expires_at_ms - given.created_at_ms, 3_600_000);
        assert_eq!(given.conditions, Some(conditions));
        assert_eq!(looks_at(&carol, "admin").await, Code::Ok);
        f.node().vault.flush_usage().await.unwrap();
        let used = get(&mut client, &given.id).await.unwrap();
        assert!(used.last_used_at_ms >= given.created_at_ms);
        let removed = remove(&mut client, &given.id).await.unwrap();
        assert_eq!(removed, used, "it answers the grant as it was");
        assert_eq!(looks_at(&carol, "admin").await, Code::PermissionDenied);
        // It ended, and stays to be seen.
        let ended = get(&mut client, &given.id).await.unwrap();
        assert!(ended.ended_at_ms >= given.created_at_ms);
        assert_eq!(ended.ended_by, "admin");
        assert_eq!(remove(&mut client, &given.id).await.unwrap_err().code(), Code::NotFound);
        let left = list(&mut client, ListGrantsRequest::default()).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_holds_from_its_beginning_to_before_its_end() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let carol = human(&f, "carol").await;
    let now = f.node().vault.now().unwrap().0;
    let conditions = Conditions { not_before_ms: now + 60_000, ..Conditions::default() };
    let request = AddGrantRequest {
        conditions: Some(conditions),
        ttl_s: 120,
        ..to("carol", "identities.show", "identities/admin")
    };
    add(&mut client, request).await.unwrap();
    assert_eq!(looks_at(&carol, "admin").await, Code::PermissionDenied, "it has not begun");
    f.clock.advance(Duration::from_secs(61));
    assert_eq!(looks_at(&carol, "admin").await, Code::Ok);
    assert_eq!(looks_at(&carol, "carol2").await, Code::PermissionDenied);
    f.clock.advance(Duration::from_mins(1));
    assert_eq!(looks_at(&carol, "admin").await, Code::PermissionDenied, "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_from_elsewhere_does_not_count_here() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let carol = human(&f, "carol").await;
    let conditions = Conditions { networks: vec!["10.0.0.0/8".into()], ..Conditions::default() };
    let request = AddGrantRequest {
        conditions: Some(conditions),
        ..to("carol", "identities.show", "identities/admin")
    };
    add(&mut client, request).await.unwrap();
    assert_eq!(looks_at(&carol, "admin").await, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_must_not_exist_are_refused_to_administrators_too() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    register(&f, "etl", "pipeline", "carol").await;
    let with =
        |conditions| AddGrantRequest { conditions: Some(conditions), ..to("etl", CREDS, READER) };
    let networks =
        |one: &str| with(Conditions { networks: vec![one.into()], ..Conditions::default() });
    let invalid = Code::InvalidArgument;
    let mut table = vec![
        (to("carol", "identities.show", "identities/*"), invalid),
        (to("carol", "identities.show", "identities/**"), invalid),
        (to("carol", "groups.add", "groups/team*"), invalid),
        (to_group("administrators", "grants.add", "grants/**"), invalid),
        (to("etl", "identities.show", "identities/carol"), invalid),
        (to("etl", "groups.add", "groups/team"), invalid),
        (to("carol", "identities.issue-cert", "identities/etl"), invalid),
        (to("carol", "identities.whoami", "identities/etl"), invalid),
        (to("etl", "database.drop", READER), invalid),
        (to("etl", "Database.credentials", READER), invalid),
        (to("etl", "", READER), invalid),
        (to("etl", CREDS, "pki/web"), invalid),
        (to("etl", CREDS, "database"), invalid),
        (to("carol", "identities.list", "identities/x"), invalid),
        (to("nobody", CREDS, READER), Code::NotFound),
        (to_group("nobody", CREDS, READER), Code::NotFound),
        (to_group("a/b", CREDS, READER), invalid),
        (AddGrantRequest { subject: None, ..to("", CREDS, READER) }, invalid),
        (AddGrantRequest { ttl_s: -1, ..to("etl", CREDS, READER) }, invalid),
        (AddGrantRequest { ttl_s: i64::MAX, ..to("etl", CREDS, READER) }, invalid),
        (AddGrantRequest { reason: "a\u{2028}b".into(), ..to("etl", CREDS, READER) }, invalid),
        (AddGrantRequest { ticket: "\u{1b}[31m".into(), ..to("etl", CREDS, READER) }, invalid),
        (with(Conditions { max_ttl_s: -1, ..Conditions::default() }), invalid),
        (with(Conditions { not_before_ms: -1, ..Conditions::default() }), invalid),
        (networks("10.0.0.1/8"), invalid),
        (networks("everywhere"), invalid),
        (
            with(Conditions { networks: vec!["10.0.0.0/8".into(); 65], ..Conditions::default() }),
            invalid,
        ),
    ];
    for resource in
        ["", "*", "**", "database//reader", "database/../x", "database/a'b", "Database/x"]
    {
        table.push((to("etl", CREDS, resource), invalid));
    }
    table.extend(bad_names().iter().map(|name| (to(name, CREDS, READER), invalid)));
    for (request, code) in table {
        let refusal = add(&mut client, request.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{request:?}: {refusal}");
    }
    let given = list(&mut client, ListGrantsRequest::default()).await.unwrap();
    assert!(given.is_empty(), "{given:?}");
    // A list has no name but its noun's, and may be granted on exactly that.
    add(&mut client, to("carol", "identities.list", "identities")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn others_give_under_their_prefix_what_they_hold_and_no_more() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let mut carol = Client::new(human(&f, "data/carol").await);
    register(&f, "data/etl", "pipeline", "data/carol").await;
    register(&f, "web/etl", "pipeline", "data/carol").await;
    for name in ["data/etl", "web/etl", "administrators"] {
        add(&mut client, to("data/carol", "grants.add", &format!("grants/{name}"))).await.unwrap();
    }
    let held = AddGrantRequest { ttl_s: 3_600, ..to("data/carol", CREDS, "database/analytics/*") };
    add(&mut client, held).await.unwrap();
    let denied = Code::PermissionDenied;
    for (request, code) in [
        (to("data/etl", CREDS, READER), denied),
        (AddGrantRequest { ttl_s: 7_200, ..to("data/etl", CREDS, READER) }, denied),
        (AddGrantRequest { ttl_s: 60, ..to("data/etl", CREDS, "database/**") }, denied),
        (AddGrantRequest { ttl_s: 60, ..to("data/etl", "pki.sign", "pki/web") }, denied),
        (AddGrantRequest { ttl_s: 60, ..to("web/etl", CREDS, READER) }, denied),
        (AddGrantRequest { ttl_s: 60, ..to("data/carol", CREDS, READER) }, denied),
        (AddGrantRequest { ttl_s: 60, ..to_group("administrators", CREDS, READER) }, denied),
        (AddGrantRequest { ttl_s: 60, ..to("data/etl", CREDS, READER) }, Code::Ok),
    ] {
        let answer = add(&mut carol, request.clone()).await;
        let got = answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok);
        assert_eq!(got, code, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_to_a_group_holds_for_its_members_while_they_are_in_it() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let team = CreateGroupRequest { name: "team".into(), ..CreateGroupRequest::default() };
    groups.create_group(team).await.unwrap();
    let carol = human(&f, "carol").await;
    let given = add(&mut client, to_group("team", "identities.show", "identities/admin")).await;
    let given = given.unwrap();
    assert_eq!(looks_at(&carol, "admin").await, Code::PermissionDenied);
    let member = AddMemberRequest { group: "team".into(), identity: "carol".into() };
    groups.add_member(member).await.unwrap();
    assert_eq!(looks_at(&carol, "admin").await, Code::Ok);
    remove(&mut client, &given.id).await.unwrap();
    assert_eq!(looks_at(&carol, "admin").await, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_look_learns_nothing_about_what_was_granted() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "there", "human", "").await;
    let given = add(&mut client, to("there", CREDS, READER)).await.unwrap();
    for mut other in [Client::new(human(&f, "carol").await), Client::new(machine(&f, "etl").await)]
    {
        let nowhere = "01890000-0000-7000-8000-000000000000";
        let there = get(&mut other, &given.id).await.unwrap_err();
        let none = get(&mut other, nowhere).await.unwrap_err();
        assert_eq!(there.code(), Code::PermissionDenied);
        assert_eq!((there.code(), there.message()), (none.code(), none.message()));
        let there = remove(&mut other, &given.id).await.unwrap_err();
        let none = remove(&mut other, nowhere).await.unwrap_err();
        assert_eq!(there.code(), Code::PermissionDenied);
        assert_eq!((there.code(), there.message()), (none.code(), none.message()));
        let refusal = list(&mut other, ListGrantsRequest::default()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
    let none = get(&mut client, "01890000-0000-7000-8000-000000000000").await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    for bad in ["", "x", &given.id.to_uppercase(), &given.id.replace('-', ""), "' OR 1=1"] {
        let refusal = get(&mut client, bad).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{bad:?}");
    }
    assert_eq!(get(&mut client, &given.id).await.unwrap(), given);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_listed_oldest_first_by_subject_and_action() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        register(&f, "carol", "human", "").await;
        register(&f, "dave", "human", "").await;
        for (name, action, resource) in [
            ("carol", CREDS, "database/z/z"),
            ("dave", CREDS, "database/b/b"),
            ("carol", "pki.sign", "pki/web"),
        ] {
            f.clock.advance(Duration::from_millis(2));
            add(&mut client, to(name, action, resource)).await.unwrap();
        }
        let all = ListGrantsRequest::default;
        let of = |name: &str| Some(list_grants_request::Subject::Identity(name.to_owned()));
        for (request, expected) in [
            (all(), vec!["database/z/z", "database/b/b", "pki/web"]),
            (ListGrantsRequest { subject: of("carol"), ..all() }, vec!["database/z/z", "pki/web"]),
            (ListGrantsRequest { action: "pki.sign".into(), ..all() }, vec!["pki/web"]),
            (ListGrantsRequest { subject: of("dave"), action: "pki.sign".into(), ..all() }, vec![]),
        ] {
            assert_eq!(list(&mut client, request.clone()).await.unwrap(), expected, "{request:?}");
        }
        let first = ListGrantsRequest { page_size: 2, ..all() };
        let page = client.list_grants(first.clone()).await.unwrap().into_inner();
        let next = ListGrantsRequest { page_token: page.next_page_token, ..first };
        assert_eq!(list(&mut client, next.clone()).await.unwrap(), ["pki/web"]);
        let narrowed = ListGrantsRequest { subject: of("carol"), ..next };
        let refusal = list(&mut client, narrowed).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        let unknown = ListGrantsRequest { action: "database.drop".into(), ..all() };
        let refusal = list(&mut client, unknown).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_the_grant_that_the_first_try_gave() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "etl", "pipeline", "admin").await;
    let idempotency_key = "0123456789abcdef".to_owned();
    let request = AddGrantRequest { idempotency_key, ..to("etl", CREDS, READER) };
    let first = add(&mut client, request.clone()).await.unwrap();
    assert_eq!(add(&mut client, request.clone()).await.unwrap(), first);
    let other = AddGrantRequest { ttl_s: 60, ..request };
    assert_eq!(add(&mut client, other).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(list(&mut client, ListGrantsRequest::default()).await.unwrap().len(), 1);
}
