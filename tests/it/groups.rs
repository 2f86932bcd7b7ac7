//! Groups at the real socket: who may be in one, and what being in one gives.

use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    AddMemberRequest, CreateGroupRequest, GetGroupRequest, GetIdentityRequest, Group,
    ListGroupsRequest, RemoveMemberRequest, WhoAmIRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::identities::bad_names;
use crate::support::logins::{human, login, machine, register};
use crate::support::node::{BACKENDS, Fixture};

type Client = GroupServiceClient<Channel>;

async fn admin(f: &Fixture) -> Client {
    Client::new(f.connect(&f.admin).await)
}

fn group(name: &str) -> CreateGroupRequest {
    let (idempotency_key, purpose) = (String::new(), "a test".to_owned());
    CreateGroupRequest { idempotency_key, name: name.to_owned(), purpose }
}

async fn create(client: &mut Client, request: CreateGroupRequest) -> Result<Group, Status> {
    Ok(client.create_group(request).await?.into_inner().group.unwrap())
}

async fn add(client: &mut Client, group: &str, identity: &str) -> Result<bool, Status> {
    let (group, identity) = (group.to_owned(), identity.to_owned());
    Ok(client.add_member(AddMemberRequest { group, identity }).await?.into_inner().added)
}

async fn remove(client: &mut Client, group: &str, identity: &str) -> Result<bool, Status> {
    let (group, identity) = (group.to_owned(), identity.to_owned());
    Ok(client.remove_member(RemoveMemberRequest { group, identity }).await?.into_inner().removed)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_are_paged_by_name() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let team = create(&mut client, group("team")).await.unwrap();
        assert_eq!((team.created_by.as_str(), team.purpose.as_str()), ("admin", "a test"));
        for name in ["dave", "carol", "erin"] {
            register(&f, name, "human", "").await;
            assert!(add(&mut client, "team", name).await.unwrap());
            assert!(!add(&mut client, "team", name).await.unwrap(), "it is in it already");
        }
        assert!(remove(&mut client, "team", "dave").await.unwrap());
        assert!(!remove(&mut client, "team", "dave").await.unwrap(), "it is out already");
        assert!(add(&mut client, "team", "dave").await.unwrap(), "it may come back");
        let page =
            |page_token: String| GetGroupRequest { name: "team".into(), page_size: 2, page_token };
        let first = client.get_group(page(String::new())).await.unwrap().into_inner();
        let names: Vec<_> = first.members.iter().map(|member| member.identity.as_str()).collect();
        assert_eq!(names, ["carol", "dave"]);
        assert_eq!(first.members[0].added_by, "admin");
        let second = client.get_group(page(first.next_page_token)).await.unwrap().into_inner();
        assert_eq!(second.members[0].identity, "erin");
        assert_eq!((second.members.len(), second.next_page_token.as_str()), (1, ""));
        assert_eq!(second.group, Some(team));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_by_name_page_by_page() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let team = create(&mut client, group("team")).await.unwrap();
        create(&mut client, group("readers")).await.unwrap();
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListGroupsRequest { page_size: 2, page_token };
            let page = client.list_groups(request).await.unwrap().into_inner();
            assert!(page.groups.len() <= 2);
            names.extend(page.groups.into_iter().map(|group| (group.name.clone(), group)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let found: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, ["administrators", "readers", "team"]);
        assert_eq!(names[2].1, team);
        let bad = ListGroupsRequest { page_token: "x".into(), ..Default::default() };
        assert_eq!(client.list_groups(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_of_administrators_is_in_force_at_once() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let channel = human(&f, "carol").await;
    let (mut carol, mut me) = (Client::new(channel.clone()), IdentityServiceClient::new(channel));
    let denied = Code::PermissionDenied;
    assert_eq!(create(&mut carol, group("team")).await.unwrap_err().code(), denied);
    add(&mut client, "administrators", "carol").await.unwrap();
    assert!(me.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().administrator);
    create(&mut carol, group("team")).await.unwrap();
    remove(&mut client, "administrators", "carol").await.unwrap();
    assert_eq!(create(&mut carol, group("other")).await.unwrap_err().code(), denied);
    assert!(!me.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().administrator);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_never_become_administrators() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    for kind in ["pipeline", "agent", "model", "dataset", "service", "runner"] {
        register(&f, kind, kind, "admin").await;
        let refusal = add(&mut client, "administrators", kind).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{kind}");
        let name = kind.to_owned();
        let mut identities = IdentityServiceClient::new(f.connect(&f.admin).await);
        let shown = identities.get_identity(GetIdentityRequest { name }).await.unwrap();
        assert!(shown.into_inner().identity.unwrap().groups.is_empty(), "{kind}");
    }
    // Nor do they administer from any other group.
    create(&mut client, group("team")).await.unwrap();
    add(&mut client, "team", "pipeline").await.unwrap();
    let mut pipeline = Client::new(f.connect(&login(&f, "pipeline").await).await);
    let refusal = add(&mut pipeline, "team", "agent").await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_a_name_is_told_to_administrators_alone() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    create(&mut client, group("team")).await.unwrap();
    assert_eq!(create(&mut client, group("team")).await.unwrap_err().code(), Code::AlreadyExists);
    let taken = create(&mut client, group("administrators")).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert_eq!(add(&mut client, "none", "admin").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(add(&mut client, "team", "none").await.unwrap_err().code(), Code::NotFound);
    for name in bad_names().iter().map(String::as_str).chain(["a/b"]) {
        let invalid = Code::InvalidArgument;
        assert_eq!(create(&mut client, group(name)).await.unwrap_err().code(), invalid, "{name:?}");
        assert_eq!(add(&mut client, name, "admin").await.unwrap_err().code(), invalid, "{name:?}");
    }
    for mut client in [Client::new(human(&f, "carol").await), Client::new(machine(&f, "etl").await)]
    {
        let answers = [
            add(&mut client, "team", "admin").await.unwrap_err(),
            add(&mut client, "team", "none").await.unwrap_err(),
            add(&mut client, "none", "admin").await.unwrap_err(),
        ];
        for refusal in &answers {
            assert_eq!(refusal.code(), Code::PermissionDenied);
            assert_eq!(refusal.message(), answers[0].message());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_the_group_that_the_first_try_made() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let request =
        CreateGroupRequest { idempotency_key: "0123456789abcdef".to_owned(), ..group("team") };
    let first = create(&mut client, request.clone()).await.unwrap();
    assert_eq!(create(&mut client, request.clone()).await.unwrap(), first);
    let other = CreateGroupRequest { purpose: "another".into(), ..request };
    assert_eq!(create(&mut client, other).await.unwrap_err().code(), Code::InvalidArgument);
}
