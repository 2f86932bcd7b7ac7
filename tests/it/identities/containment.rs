//! Suspending: what it kills, at once, and what it must not.

use strongroom::proto::ResumeIdentityRequest;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{AddMemberRequest, RemoveMemberRequest};

use super::*;
use crate::support::logins::login;

async fn suspend(client: &mut Client, name: &str) -> Result<Identity, Status> {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: "a drill".to_owned() };
    Ok(client.suspend_identity(request).await?.into_inner().identity.unwrap())
}

async fn resume(client: &mut Client, name: &str) -> Result<Identity, Status> {
    let request = ResumeIdentityRequest { name: name.to_owned(), reason: String::new() };
    Ok(client.resume_identity(request).await?.into_inner().identity.unwrap())
}

async fn knock(client: &mut Client) -> Code {
    client.who_am_i(WhoAmIRequest {}).await.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_caller_is_refused_on_its_open_connection_at_once() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut carol = Client::new(human(&f, "carol").await);
        assert_eq!(knock(&mut carol).await, Code::Ok);
        let suspended = suspend(&mut client, "carol").await.unwrap();
        assert_eq!((suspended.state.as_str(), suspended.row_version), ("suspended", 3));
        assert_eq!(knock(&mut carol).await, Code::Unauthenticated);
        assert_eq!(suspended, show(&mut client, "carol").await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_resuming_the_old_certificate_stays_dead_and_a_new_one_lives() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    let old = login(&f, "carol").await;
    let mut carol = Client::new(f.connect(&old).await);
    suspend(&mut client, "carol").await.unwrap();
    assert_eq!(resume(&mut client, "carol").await.unwrap().state, "active");
    assert_eq!(knock(&mut carol).await, Code::Unauthenticated);
    let mut again = Client::new(f.connect(&old).await);
    assert_eq!(knock(&mut again).await, Code::Unauthenticated);
    let mut anew = Client::new(f.connect(&login(&f, "carol").await).await);
    assert_eq!(knock(&mut anew).await, Code::Ok);
    // Resuming who is active changes nothing.
    let version = show(&mut client, "carol").await.unwrap().row_version;
    assert_eq!(resume(&mut client, "carol").await.unwrap().row_version, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_holds_after_a_restart_for_the_first_request() {
    let mut f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    let old = login(&f, "carol").await;
    suspend(&mut client, "carol").await.unwrap();
    drop(client);
    f.restart().await;
    let mut carol = Client::new(f.connect(&old).await);
    assert_eq!(knock(&mut carol).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_on_one_node_is_in_force_on_the_other() {
    let f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    let certificate = login(&f, "carol").await;
    let mut carol = Client::new(f.connect_to(&other, &certificate).await);
    assert_eq!(knock(&mut carol).await, Code::Ok);
    suspend(&mut client, "carol").await.unwrap();
    // What the other node keeps is stale; the fence of its commit is not.
    assert_eq!(knock(&mut carol).await, Code::Unauthenticated);
    drop(carol);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_active_administrator_stays() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
        let add = |identity: &str| AddMemberRequest {
            group: "administrators".to_owned(),
            identity: identity.to_owned(),
        };
        let remove = |identity: &str| RemoveMemberRequest {
            group: "administrators".to_owned(),
            identity: identity.to_owned(),
        };
        let last = Code::FailedPrecondition;
        assert_eq!(suspend(&mut client, "admin").await.unwrap_err().code(), last);
        let refusal = groups.remove_member(remove("admin")).await.unwrap_err();
        assert_eq!(refusal.code(), last);
        // A second one that is suspended counts for nothing.
        register(&f, "carol", "human", "").await;
        groups.add_member(add("carol")).await.unwrap();
        suspend(&mut client, "carol").await.unwrap();
        assert_eq!(suspend(&mut client, "admin").await.unwrap_err().code(), last);
        let refusal = groups.remove_member(remove("admin")).await.unwrap_err();
        assert_eq!(refusal.code(), last);
        // With another one it may go, and then that one is the last.
        resume(&mut client, "carol").await.unwrap();
        let mut carol = Client::new(f.connect(&login(&f, "carol").await).await);
        suspend(&mut client, "admin").await.unwrap();
        assert_eq!(knock(&mut client).await, Code::Unauthenticated);
        assert_eq!(suspend(&mut carol, "carol").await.unwrap_err().code(), last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_expires_counts_for_nothing() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let brief = CreateIdentityRequest { ttl_s: 60, ..registration("carol", "human", "") };
    create(&mut client, brief).await.unwrap();
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let add = AddMemberRequest { group: "administrators".into(), identity: "carol".into() };
    groups.add_member(add).await.unwrap();
    f.clock.advance(std::time::Duration::from_secs(61));
    let refusal = suspend(&mut client, "admin").await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
}
