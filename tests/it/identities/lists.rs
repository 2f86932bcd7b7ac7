//! Lists of identities: pages, their tokens, what they are narrowed by.

use strongroom::proto::{ListIdentitiesRequest, ListIdentitiesResponse};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_serves_its_caller_and_its_list_alone() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    let mut groups =
        strongroom::proto::group_service_client::GroupServiceClient::new(f.connect(&f.admin).await);
    let add = strongroom::proto::AddMemberRequest {
        group: "administrators".into(),
        identity: "carol".into(),
    };
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
