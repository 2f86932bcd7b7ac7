//! Counted uses: what takes one, what does not, and what becomes of a spent token.

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    Entry, EntryFilter, IssueCredentialsRequest, IssueCredentialsResponse, ListEntriesRequest,
    ListLeasesRequest, RenewLeaseRequest, RevokeLeaseRequest,
};

use super::*;
use crate::support::postgres::Postgres;
use crate::support::target::{Proxy, Wire, World, ask, log_in, until};

fn counted(uses: i32) -> TokenOrder {
    TokenOrder { uses, ..with(0) }
}

pub(super) async fn issue(
    bearer: &Bearing,
    request: IssueCredentialsRequest,
) -> Result<IssueCredentialsResponse, Status> {
    let mut client = DatabaseServiceClient::new(bearer.clone());
    Ok(client.issue_credentials(request).await?.into_inner())
}

fn keyed(replace: bool) -> IssueCredentialsRequest {
    IssueCredentialsRequest { idempotency_key: "a-key-of-the-test".to_owned(), replace, ..ask() }
}

/// What the record says of tokens that were shown again.
pub(super) async fn findings(f: &Fixture) -> Vec<Entry> {
    entries(f, "", "SPENT").await
}

/// What the record says of an action, or of all, with an outcome.
pub(super) async fn entries(f: &Fixture, action: &str, outcome: &str) -> Vec<Entry> {
    f.node().vault.integrate().await.unwrap();
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    let (action, outcome) = (action.to_owned(), outcome.to_owned());
    let filter = Some(EntryFilter { action, outcome, ..Default::default() });
    let request = ListEntriesRequest { filter, page_size: 1_000, ..Default::default() };
    client.list_entries(request).await.unwrap().into_inner().entries
}

/// Whether an answer says that the token is spent.
pub(super) fn is_spent(refusal: &Status) -> bool {
    refusal.code() == Code::Unauthenticated && refusal.message().contains("spent")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_use_pays_for_one_credential_and_its_second_is_a_finding_with_both_sources() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let token = mint(&world.admin, "nightly-etl", counted(1)).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        // Looking takes nothing.
        for _ in 0..2 {
            assert_eq!(knock(&bearer).await, Code::Ok);
            assert_eq!(inspect(&bearer, "").await.unwrap().uses_left, 1);
            renew(&bearer, "", 0).await.unwrap();
        }
        let issued = issue(&bearer, ask()).await.unwrap();
        drop(log_in(&issued, world.port).await.unwrap());
        for refusal in [
            issue(&bearer, ask()).await.unwrap_err(),
            issue(&bearer, keyed(false)).await.unwrap_err(),
            inspect(&bearer, "").await.unwrap_err(),
        ] {
            assert!(is_spent(&refusal), "{refusal}");
        }
        assert_eq!(knock(&bearer).await, Code::Unauthenticated);
        let found = findings(&world.f).await;
        assert_eq!(found.len(), 4);
        for entry in found {
            assert_eq!((entry.decision.as_str(), entry.reason.as_str()), ("deny", "token_spent"));
            assert_eq!(entry.source, "127.0.0.1");
            assert!(entry.detail.contains("spent from 127.0.0.1"), "{}", entry.detail);
            assert_eq!(entry.subject_id, entry.credential_id);
        }
        // Spending ended nothing.
        assert_eq!(world.lease(&issued.lease_id).await.state, "active");
        assert_eq!(world.leases().await.len(), 1);
        // Revoking the spent token ends it.
        let accessor = findings(&world.f).await.remove(0).credential_id;
        revoke(&plain(&world.admin), &accessor).await.unwrap();
        world.all_over().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flood_of_refusals_hides_that_a_spent_token_is_shown_again() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let nobody = world.f.connect_as_nobody().await;
        let spent = mint(&world.admin, "nightly-etl", counted(1)).await.unwrap();
        let spent = bearing(&nobody, &spent);
        issue(&spent, ask()).await.unwrap();
        let other = mint(&world.admin, "nightly-etl", with(0)).await.unwrap();
        let other = bearing(&nobody, &other);
        let elsewhere = IssueCredentialsRequest { role: "writer".to_owned(), ..ask() };
        let flood = (0..40).map(|_| issue(&other, elsewhere.clone()));
        for refusal in futures_util::future::join_all(flood).await {
            assert_eq!(refusal.unwrap_err().code(), Code::PermissionDenied);
        }
        assert!(is_spent(&issue(&spent, ask()).await.unwrap_err()));
        assert_eq!(findings(&world.f).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_renews_and_revokes_its_own_lease_and_is_good_for_nothing_else() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let token = mint(&world.admin, "nightly-etl", counted(2)).await.unwrap();
        let nobody = world.f.connect_as_nobody().await;
        let bearer = bearing(&nobody, &token);
        let one = issue(&bearer, ask()).await.unwrap();
        let two = issue(&bearer, ask()).await.unwrap();
        assert!(one.lease_handle.starts_with("srh_"));
        let handle = bearing(&nobody, &one.lease_handle);
        let mut leases = LeaseServiceClient::new(handle.clone());
        let renewal = |id: &str| RenewLeaseRequest { id: id.to_owned(), ttl_s: 1_200 };
        let end = |id: &str| RevokeLeaseRequest { id: id.to_owned(), ..Default::default() };
        let before = world.lease(&one.lease_id).await.expires_at_ms;
        for _ in 0..2 {
            leases.renew_lease(renewal(&one.lease_id)).await.unwrap();
        }
        assert!(world.lease(&one.lease_id).await.expires_at_ms > before);
        for refusal in [
            leases.renew_lease(renewal(&two.lease_id)).await.unwrap_err(),
            leases.revoke_lease(end(&two.lease_id)).await.unwrap_err(),
            leases.list_leases(ListLeasesRequest::default()).await.unwrap_err(),
            issue(&handle, ask()).await.unwrap_err(),
            inspect(&handle, "").await.unwrap_err(),
            child(&handle, with(0)).await.unwrap_err(),
        ] {
            assert!(matches!(refusal.code(), Code::PermissionDenied | Code::InvalidArgument));
        }
        assert_eq!(knock(&handle).await, Code::PermissionDenied);
        let forged = guess(&one.lease_handle);
        assert_eq!(knock(&bearing(&nobody, &forged)).await, Code::Unauthenticated);
        for prefix in ["srt_", "srs_", "srw_", "sri_", "srj_"] {
            let other = bearing(&nobody, &retyped(&one.lease_handle, prefix));
            assert_eq!(knock(&other).await, Code::Unauthenticated);
        }
        for _ in 0..2 {
            let revoked = leases.revoke_lease(end(&one.lease_id)).await.unwrap().into_inner();
            assert_eq!(revoked.lease.unwrap().state, "revoked");
        }
        assert_eq!(world.lease(&two.lease_id).await.state, "active");
        // A suspension ends handles too.
        let request = SuspendIdentityRequest { name: "nightly-etl".into(), reason: String::new() };
        let mut identities = IdentityServiceClient::new(world.admin.clone());
        identities.suspend_identity(request).await.unwrap();
        let mut leases = LeaseServiceClient::new(bearing(&nobody, &two.lease_handle));
        let refusal = leases.renew_lease(renewal(&two.lease_id)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_take_no_use_and_the_third_by_policy_revokes() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let nobody = world.f.connect_as_nobody().await;
        let token = mint(&world.admin, "nightly-etl", counted(1)).await.unwrap();
        let bearer = bearing(&nobody, &token);
        let elsewhere = IssueCredentialsRequest { role: "writer".to_owned(), ..ask() };
        for _ in 0..2 {
            let refusal = issue(&bearer, elsewhere.clone()).await.unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied);
        }
        // What is wrong with the request itself is no refusal.
        let wrong = IssueCredentialsRequest { ttl_s: -1, ..ask() };
        for _ in 0..5 {
            let refusal = issue(&bearer, wrong.clone()).await.unwrap_err();
            assert_eq!(refusal.code(), Code::InvalidArgument);
        }
        assert_eq!(inspect(&bearer, "").await.unwrap().uses_left, 1);
        assert_eq!(
            issue(&bearer, elsewhere.clone()).await.unwrap_err().code(),
            Code::PermissionDenied
        );
        for _ in 0..2 {
            let refusal = issue(&bearer, ask()).await.unwrap_err();
            assert_eq!(refusal.code(), Code::Unauthenticated);
            assert!(!is_spent(&refusal));
        }
        assert_eq!(world.leases().await.len(), 0);
        // What it paid for before the third refusal ends with it.
        let token = mint(&world.admin, "nightly-etl", counted(2)).await.unwrap();
        let bearer = bearing(&nobody, &token);
        issue(&bearer, ask()).await.unwrap();
        for _ in 0..3 {
            issue(&bearer, elsewhere.clone()).await.unwrap_err();
        }
        world.all_over().await;
        // Where uses are not counted, nothing is counted.
        let token = mint(&world.admin, "nightly-etl", with(0)).await.unwrap();
        let bearer = bearing(&nobody, &token);
        for _ in 0..4 {
            issue(&bearer, elsewhere.clone()).await.unwrap_err();
        }
        issue(&bearer, ask()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_costs_the_use_and_the_same_call_resumes_when_it_is_proven_gone() {
    for backend in BACKENDS {
        let proxy = Proxy::to(Postgres::shared().port()).await;
        let world = World::over(backend, Postgres::shared(), proxy.port).await;
        let token = mint(&world.admin, "nightly-etl", counted(1)).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        proxy.set(Wire::Cut);
        let refusal = issue(&bearer, keyed(true)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unavailable);
        // Until it is known that nothing came of it, it waits; another key is a second use.
        let waiting = issue(&bearer, keyed(true)).await.unwrap_err();
        assert_eq!(waiting.code(), Code::Unavailable, "{waiting}");
        let other = IssueCredentialsRequest {
            idempotency_key: "another-key-of-the-test".to_owned(),
            ..keyed(true)
        };
        assert!(is_spent(&issue(&bearer, other).await.unwrap_err()));
        assert!(is_spent(&issue(&bearer, ask()).await.unwrap_err()));
        proxy.set(Wire::Whole);
        world.advance(61);
        until("the first is proven gone", async || {
            world.leases().await.iter().all(|lease| lease.state == "revoked")
        })
        .await;
        let issued = issue(&bearer, keyed(true)).await.unwrap();
        drop(log_in(&issued, world.port).await.unwrap());
        let all = world.leases().await;
        let names: std::collections::HashSet<_> = all.iter().map(|one| &one.accessor).collect();
        assert!(all.len() > 1 && names.len() == all.len(), "a new name each time: {all:?}");
        let active = all.into_iter().filter(|lease| lease.state == "active");
        assert_eq!(active.map(|lease| lease.id).collect::<Vec<_>>(), vec![issued.lease_id.clone()]);
        // Nor does the same call yield a second one while that lives.
        let again = issue(&bearer, keyed(false)).await.unwrap();
        assert!(again.replayed && again.password.is_empty() && again.lease_handle.is_empty());
        assert_eq!(again.lease_id, issued.lease_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_replaced_after_the_first_lease_has_ended() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let token = mint(&world.admin, "nightly-etl", counted(1)).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let lost = issue(&bearer, keyed(true)).await.unwrap();
        let second = parking_lot::Mutex::new(None);
        until("it is replaced", async || {
            let active = world.leases().await.into_iter().filter(|it| it.state != "revoked");
            assert!(active.count() <= 1, "one lease a use");
            match issue(&bearer, keyed(true)).await {
                Ok(issued) => *second.lock() = Some(issued),
                Err(refusal) => assert_eq!(refusal.code(), Code::Unavailable, "{refusal}"),
            }
            second.lock().is_some()
        })
        .await;
        let second = second.into_inner().unwrap();
        assert_ne!(second.lease_id, lost.lease_id);
        assert_ne!(second.username, lost.username, "a new name");
        assert!(log_in(&lost, world.port).await.is_err());
        drop(log_in(&second, world.port).await.unwrap());
        assert_eq!(world.lease(&lost.lease_id).await.end_reason, "replaced");
        // The token's end is the end of it.
        world.advance(301);
        let refusal = issue(&bearer, keyed(true)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
    }
}
