//! What hangs on elevations ends with the first of them to end, whatever else stands.

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::{
    IssueCredentialsRequest, RemoveGrantRequest, RenewLeaseRequest, SuspendIdentityRequest,
    TokenOrder, WatchElevationsRequest, WhoAmIRequest,
};

use super::force::{Scene, reader};
use super::*;
use crate::support::hand::Hand;
use crate::support::logins::{login, register};
use crate::support::target::ask as credentials;
use crate::support::target::issue;
use crate::support::tokens::{bearing, create};

/// A robot of carol's that may be elevated, with its connection.
async fn robot(s: &Scene) -> Channel {
    register(&s.w.f, "robot", "pipeline", "carol").await;
    s.w.f.connect(&login(&s.w.f, "robot").await).await
}

/// A token for the robot, made by a token of carol's that was made while she is elevated.
async fn minted(s: &Scene) -> String {
    use strongroom::proto::MintTokenRequest;
    use strongroom::proto::token_service_client::TokenServiceClient;

    let scope = vec!["tokens/robot:tokens.mint".to_owned()];
    let order = TokenOrder { ttl_s: 300, scope, ..Default::default() };
    let carols = bearing(&s.carol, &create(&s.carol, order).await.unwrap().bearer);
    let order = Some(TokenOrder { ttl_s: 300, ..Default::default() });
    let request = MintTokenRequest { identity: "robot".into(), order, ..Default::default() };
    TokenServiceClient::new(carols).mint_token(request).await.unwrap().into_inner().bearer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_by_an_elevation_alone_ends_with_it() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let grant = s.w.grant("carol", |grant| grant).await.unwrap();
        let short = IssueCredentialsRequest { ttl_s: 60, ..credentials() };
        let lease = issue(&s.carol, short.clone()).await.unwrap();
        let kept = issue(&s.carol, short).await.unwrap();
        let renew = async |id: &str| {
            let request = RenewLeaseRequest { id: id.to_owned(), ttl_s: 300 };
            let renewed = LeaseServiceClient::new(s.carol.clone()).renew_lease(request).await;
            renewed.unwrap().into_inner().lease.unwrap()
        };
        let first = s.carol().await;
        // What a grant allows is renewed by that, and ends with nothing.
        renew(&kept.lease_id).await;
        let request = RemoveGrantRequest { id: grant.id, ..Default::default() };
        GrantServiceClient::new(s.w.admin.clone()).remove_grant(request).await.unwrap();
        assert!(renew(&lease.lease_id).await.expires_at_ms <= first.ends_at_ms);
        revoke(&s.w.admin, &first).await.unwrap();
        crate::support::target::until("it is over", async || {
            s.w.lease(&lease.lease_id).await.end_reason == "elevation-ended"
        })
        .await;
        assert_eq!(s.w.lease(&kept.lease_id).await.state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_under_two_elevations_ends_with_the_first_of_them_to_end() {
    for backend in BACKENDS {
        for ends in ["carol's", "the robot's"] {
            let s = Scene::new(backend).await;
            let robot = robot(&s).await;
            let carols = s.carol().await;
            let name = "robots".to_owned();
            let requesters = vec!["robot".to_owned()];
            let robots = s.elevate(&robot, ElevationRole { name, requesters, ..reader() }).await;
            let bearer = bearing(&robot, &minted(&s).await);
            let mut database =
                strongroom::proto::database_service_client::DatabaseServiceClient::new(bearer);
            let lease = database.issue_credentials(credentials()).await.unwrap().into_inner();
            revoke(&s.w.admin, if ends == "carol's" { &carols } else { &robots }).await.unwrap();
            s.gone(&lease, &["elevation-ended", "parent-ended"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_is_dead_with_the_suspension_of_who_was_elevated() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let robot = robot(&s).await;
        s.carol().await;
        let mut minted = IdentityServiceClient::new(bearing(&robot, &minted(&s).await));
        minted.who_am_i(WhoAmIRequest {}).await.unwrap();
        let request = SuspendIdentityRequest { name: "carol".into(), ..Default::default() };
        let mut admin = IdentityServiceClient::new(s.w.admin.clone());
        admin.suspend_identity(request).await.unwrap();
        assert_eq!(code(minted.who_am_i(WhoAmIRequest {}).await), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_row_hides_no_other_and_keeps_nothing_in_force() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.put(ElevationRole { name: "other".to_owned(), ..role() }).await.unwrap();
        let other = RequestElevationRequest { role: "other".to_owned(), ..request() };
        let mut client = Client::new(s.admin.clone());
        let mut watch =
            client.watch_elevations(WatchElevationsRequest {}).await.unwrap().into_inner();
        let mut next = async || {
            let seen = tokio::time::timeout(std::time::Duration::from_secs(20), watch.message());
            seen.await.unwrap().unwrap().unwrap().elevation.unwrap().id
        };
        let (active, altered) = (s.active().await, ask(&s.carol, other.clone()).await.unwrap());
        while next().await != altered.id {}
        let hand = Hand::new(&s.f.parts.location);
        let alter = async |table: &str, which: &str| {
            let sql = format!("UPDATE {table} SET changed_at = changed_at + 1 WHERE {which}");
            hand.run(&sql).await;
        };
        alter("elevations", &format!("id = '{}'", altered.id)).await;
        alter("elevation_roles", &format!("name = '{ROLE}'")).await;
        // What stands on a role that nobody vouches for is left out; the rest is told as ever.
        let told = ask(&s.carol, other).await.unwrap();
        assert_eq!(next().await, told.id);
        assert_eq!(list(&s.admin).await, std::slice::from_ref(&told.id));
        assert_eq!(code(show(&s.carol, &active.id).await), Code::PermissionDenied);
        let over = revoke(&s.admin, &active).await.unwrap();
        assert_eq!((over.id.as_str(), over.why.as_str()), (&*active.id, "revoked"));
        let row = format!("SELECT state FROM elevations WHERE id = '{}'", active.id);
        assert_eq!(hand.ask(&row).await, ["revoked"]);
    }
}
