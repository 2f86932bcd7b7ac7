//! Lists of identities: pages, their tokens, what they are narrowed by.

use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{
    AddMemberRequest, CreateGroupRequest, ListIdentitiesRequest, ListIdentitiesResponse,
};

use super::*;
use crate::support::logins::login;

async fn list(
    client: &mut Client,
    request: ListIdentitiesRequest,
) -> Result<ListIdentitiesResponse, Status> {
    client.list_identities(request).await.map(tonic::Response::into_inner)
}

fn names(page: &ListIdentitiesResponse) -> Vec<&str> {
    page.identities.iter().map(|identity| identity.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_gap_or_overlap() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        for name in ["carol", "dave", "erin"] {
            register(&f, name, "human", "").await;
        }
        let mut client = admin(&f).await;
        let (mut token, mut seen, mut sizes) = (String::new(), Vec::new(), Vec::new());
        loop {
            let request = ListIdentitiesRequest {
                page_size: 3,
                page_token: token,
                ..ListIdentitiesRequest::default()
            };
            let page = list(&mut client, request).await.unwrap();
            seen.extend(names(&page).into_iter().map(str::to_owned));
            sizes.push(page.identities.len());
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ["admin", "carol", "dave", "erin"]);
        assert_eq!(sizes, [3, 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_narrowed_by_kind_owner_state_and_tier() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    register(&f, "etl", "pipeline", "carol").await;
    let agent =
        CreateIdentityRequest { tier: "high".into(), ..registration("bot", "agent", "admin") };
    create(&mut client, agent).await.unwrap();
    let suspend = SuspendIdentityRequest { name: "etl".into(), reason: String::new() };
    client.suspend_identity(suspend).await.unwrap();
    let all = ListIdentitiesRequest::default;
    for (request, expected) in [
        (all(), vec!["admin", "bot", "carol", "etl"]),
        (ListIdentitiesRequest { kind: "human".into(), ..all() }, vec!["admin", "carol"]),
        (ListIdentitiesRequest { owner: "carol".into(), ..all() }, vec!["carol", "etl"]),
        (ListIdentitiesRequest { state: "suspended".into(), ..all() }, vec!["etl"]),
        (ListIdentitiesRequest { tier: "high".into(), ..all() }, vec!["bot"]),
        (ListIdentitiesRequest { kind: "model".into(), ..all() }, vec![]),
    ] {
        let page = list(&mut client, request.clone()).await.unwrap();
        assert_eq!(names(&page), expected, "{request:?}");
    }
    for (request, code) in [
        (ListIdentitiesRequest { kind: "Human".into(), ..all() }, Code::InvalidArgument),
        (ListIdentitiesRequest { state: "dead".into(), ..all() }, Code::InvalidArgument),
        (ListIdentitiesRequest { tier: "' OR 1=1".into(), ..all() }, Code::InvalidArgument),
        (ListIdentitiesRequest { owner: "*".into(), ..all() }, Code::InvalidArgument),
        (ListIdentitiesRequest { owner: "nobody".into(), ..all() }, Code::NotFound),
    ] {
        assert_eq!(
            list(&mut client, request.clone()).await.unwrap_err().code(),
            code,
            "{request:?}"
        );
    }
}

fn labelled(name: &str, owner: &str, label: (&str, &str), days: i64) -> CreateIdentityRequest {
    let labels = [(label.0.to_owned(), label.1.to_owned())].into();
    CreateIdentityRequest { labels, ttl_s: days * 86_400, ..registration(name, "pipeline", owner) }
}

/// Four machines, of a human and of a group that has the human's name; answers when they were made.
async fn four_machines(f: &Fixture) -> i64 {
    let mut client = admin(f).await;
    register(f, "carol", "human", "").await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let team = CreateGroupRequest { name: "carol".into(), ..Default::default() };
    groups.create_group(team).await.unwrap();
    let add = AddMemberRequest { group: "carol".into(), identity: "carol".into() };
    groups.add_member(add).await.unwrap();
    for request in [
        labelled("data/a", "carol", ("env", "prod"), 10),
        labelled("data/b", "carol", ("env", "dev"), 20),
        labelled("data-c", "admin", ("env", "prod"), 30),
    ] {
        create(&mut client, request).await.unwrap();
    }
    let grouped = CreateIdentityRequest {
        owner_group: "carol".into(),
        ..labelled("web/d", "", ("env", "prod"), 40)
    };
    create(&mut client, grouped).await.unwrap().created_at_ms
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_narrowed_by_label_group_prefix_end_and_use_on_the_server() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let (now, day) = (four_machines(&f).await, 86_400_000);
        f.clock.advance(std::time::Duration::from_hours(5));
        let mut used = Client::new(f.connect(&login(&f, "data/a").await).await);
        used.who_am_i(WhoAmIRequest {}).await.unwrap();
        f.node().vault.flush_usage().await.unwrap();
        let all = || ListIdentitiesRequest { kind: "pipeline".into(), ..Default::default() };
        let label = |value: &str| [("env".to_owned(), value.to_owned())].into();
        for (request, expected) in [
            (
                ListIdentitiesRequest { labels: label("prod"), ..all() },
                vec!["data-c", "data/a", "web/d"],
            ),
            (ListIdentitiesRequest { labels: label("pro"), ..all() }, vec![]),
            (ListIdentitiesRequest { owner: "carol".into(), ..all() }, vec!["data/a", "data/b"]),
            (ListIdentitiesRequest { owner_group: "carol".into(), ..all() }, vec!["web/d"]),
            (
                ListIdentitiesRequest { prefix: "data".into(), ..all() },
                vec!["data-c", "data/a", "data/b"],
            ),
            (ListIdentitiesRequest { prefix: "data/".into(), ..all() }, vec!["data/a", "data/b"]),
            (ListIdentitiesRequest { prefix: "data/b".into(), ..all() }, vec!["data/b"]),
            (
                ListIdentitiesRequest { expiring_before_ms: now + 25 * day, ..all() },
                vec!["data/a", "data/b"],
            ),
            (ListIdentitiesRequest { search: "A/".into(), ..all() }, vec!["data/a", "data/b"]),
            (ListIdentitiesRequest { search: "Dev".into(), ..all() }, vec!["data/b"]),
            (
                ListIdentitiesRequest { search: "a TEST".into(), prefix: "web".into(), ..all() },
                vec!["web/d"],
            ),
            (ListIdentitiesRequest { search: "%".into(), ..all() }, vec![]),
            (
                ListIdentitiesRequest { unused_since_ms: now + 3_600_000, ..all() },
                vec!["data-c", "data/b", "web/d"],
            ),
            (ListIdentitiesRequest { unused_since_ms: now - day, ..all() }, vec![]),
            (ListIdentitiesRequest { state: "active".into(), ..all() }, vec!["data/a"]),
            (
                ListIdentitiesRequest { labels: label("prod"), owner: "carol".into(), ..all() },
                vec!["data/a"],
            ),
        ] {
            let mut seen = Vec::new();
            let mut next = ListIdentitiesRequest { page_size: 1, ..request.clone() };
            loop {
                let page = list(&mut client, next.clone()).await.unwrap();
                seen.extend(names(&page).into_iter().map(str::to_owned));
                next.page_token = page.next_page_token;
                if next.page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, expected, "{backend:?} {request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_not_canonical_is_refused() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let all = ListIdentitiesRequest::default;
    let label = |value: &str| [("env".to_owned(), value.to_owned())].into();
    let invalid = Code::InvalidArgument;
    for request in [
        ListIdentitiesRequest { labels: label("PROD"), ..all() },
        ListIdentitiesRequest { prefix: "Data".into(), ..all() },
        ListIdentitiesRequest { prefix: "%".into(), ..all() },
        ListIdentitiesRequest { search: "a".repeat(129), ..all() },
        ListIdentitiesRequest { search: "a\u{202e}b".into(), ..all() },
        ListIdentitiesRequest { prefix: "a".repeat(256), ..all() },
        ListIdentitiesRequest { expiring_before_ms: -1, ..all() },
        ListIdentitiesRequest { unused_since_ms: i64::MIN, ..all() },
        ListIdentitiesRequest { owner: "carol".into(), owner_group: "carol".into(), ..all() },
        ListIdentitiesRequest { person: "*".into(), ..all() },
    ] {
        let refusal = list(&mut client, request.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), invalid, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_serves_its_caller_and_its_list_alone() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let add = AddMemberRequest { group: "administrators".into(), identity: "carol".into() };
    groups.add_member(add).await.unwrap();
    let mut carol = Client::new(f.connect(&login(&f, "carol").await).await);
    let first = ListIdentitiesRequest { page_size: 1, ..ListIdentitiesRequest::default() };
    let token = list(&mut client, first.clone()).await.unwrap().next_page_token;
    assert!(!token.is_empty());
    let next = ListIdentitiesRequest { page_token: token.clone(), ..first.clone() };
    assert_eq!(names(&list(&mut client, next.clone()).await.unwrap()), ["carol"]);
    let invalid = Code::InvalidArgument;
    assert_eq!(list(&mut carol, next.clone()).await.unwrap_err().code(), invalid);
    let narrowed = ListIdentitiesRequest { kind: "human".into(), ..next.clone() };
    assert_eq!(list(&mut client, narrowed).await.unwrap_err().code(), invalid);
    let flipped = if token.starts_with('a') { 'b' } else { 'a' };
    for bad in [
        format!("{flipped}{}", &token[1..]),
        token[..token.len() - 1].to_owned(),
        format!("{token}a"),
        token.to_uppercase(),
        "carol".to_owned(),
        "' OR 1=1 --".to_owned(),
    ] {
        let request = ListIdentitiesRequest { page_token: bad.clone(), ..first.clone() };
        assert_eq!(list(&mut client, request).await.unwrap_err().code(), invalid, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_no_negative_size_and_is_capped() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    for page_size in [-1, i32::MIN] {
        let request = ListIdentitiesRequest { page_size, ..ListIdentitiesRequest::default() };
        let refusal = list(&mut client, request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
    let request = ListIdentitiesRequest { page_size: i32::MAX, ..ListIdentitiesRequest::default() };
    assert_eq!(names(&list(&mut client, request).await.unwrap()), ["admin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_list_lists() {
    let f = Fixture::new().await;
    for mut client in [Client::new(human(&f, "carol").await), Client::new(machine(&f, "etl").await)]
    {
        let refusal = list(&mut client, ListIdentitiesRequest::default()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
}
