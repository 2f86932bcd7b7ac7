//! While an elevation is in force, and only then, decisions carry it; what it made ends with it.

use std::time::Duration;

use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    EntryFilter, GetGroupRequest, IssueCredentialsResponse, ListEntriesRequest, RenewLeaseRequest,
    ResumeIdentityRequest, SuspendIdentityRequest, TailEntriesRequest, WhoAmIRequest,
};

use super::*;
use crate::support::logins::{login, register};
use crate::support::postgres::Postgres;
use crate::support::restored::restored;
use crate::support::target::{Proxy, Wire, World, ask as credentials, issue, until};
use crate::support::tokens::{bearing, token};

/// A vault with a target database, where carol may be elevated to read it.
pub(super) struct Scene {
    pub(super) w: World,
    pub(super) carol: Channel,
    pub(super) dave: Channel,
}

impl Scene {
    pub(super) async fn new(backend: Backend) -> Self {
        Self::of(World::new(backend).await).await
    }

    async fn of(w: World) -> Self {
        let World { f, etl, admin, port, database, tag } = w;
        let Stage { f, carol, dave, .. } = Stage::of(f).await;
        Self { w: World { f, etl, admin, port, database, tag }, carol, dave }
    }

    /// Lets somebody ask for a role, be approved, and activate.
    pub(super) async fn elevate(&self, who: &Channel, role: ElevationRole) -> Elevation {
        let (resources, ttl_s) = (role.resources.clone(), 600);
        let name = put(&self.w.admin, role).await.unwrap().name;
        let request = RequestElevationRequest { role: name, resources, ttl_s, ..request() };
        let asked = ask(who, request).await.unwrap();
        let approved = approve(&self.dave, &asked).await.unwrap();
        let active = activate(who, &approved).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
        active
    }

    pub(super) async fn carol(&self) -> Elevation {
        self.elevate(&self.carol, reader()).await
    }

    pub(super) async fn gone(&self, lease: &IssueCredentialsResponse, because: &[&str]) {
        until("the lease is over", async || self.w.lease(&lease.lease_id).await.state == "revoked")
            .await;
        let reason = self.w.lease(&lease.lease_id).await.end_reason;
        assert!(because.contains(&reason.as_str()), "{reason}");
        assert!(self.w.roles(Postgres::shared()).await.is_empty(), "its role is gone");
    }
}

/// A role that reads the database and looks at a group.
pub(super) fn reader() -> ElevationRole {
    ElevationRole {
        name: "reader".to_owned(),
        resources: vec!["database/analytics/reader".to_owned(), "groups/security".to_owned()],
        ..role()
    }
}

async fn look(who: &Channel) -> Result<(), Status> {
    let request = GetGroupRequest { name: "security".to_owned(), ..Default::default() };
    GroupServiceClient::new(who.clone()).get_group(request).await.map(drop)
}

async fn join(who: &Channel) -> Result<(), Status> {
    let (group, identity) = ("security".to_owned(), "carol".to_owned());
    GroupServiceClient::new(who.clone())
        .add_member(AddMemberRequest { group, identity })
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_carry_an_elevation_while_it_is_in_force_and_only_then() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        assert_eq!(code(issue(&s.carol, credentials()).await), Code::PermissionDenied);
        assert_eq!(code(look(&s.carol).await), Code::PermissionDenied);
        let active = s.carol().await;
        let lease = issue(&s.carol, credentials()).await.unwrap();
        look(&s.carol).await.unwrap();
        assert_eq!(code(issue(&s.dave, credentials()).await), Code::PermissionDenied);
        let me = IdentityServiceClient::new(s.carol.clone()).who_am_i(WhoAmIRequest {}).await;
        let me = me.unwrap().into_inner();
        let seen = me.permissions.iter().find(|one| one.action == "database.credentials").unwrap();
        assert_eq!(seen.expires_at_ms, active.ends_at_ms);
        assert!(s.w.lease(&lease.lease_id).await.expires_at_ms <= active.ends_at_ms);
        // The record says by what, and by whom it was approved.
        s.w.f.node().vault.integrate().await.unwrap();
        let filter = Some(EntryFilter { action: "groups.show".into(), ..Default::default() });
        let request = ListEntriesRequest { filter, ..Default::default() };
        let entries = RecordServiceClient::new(s.w.admin.clone()).list_entries(request).await;
        let entries = entries.unwrap().into_inner().entries;
        let by = &entries.iter().find(|entry| entry.outcome == "ok").unwrap().decided_by;
        assert!(by.contains(&active.id) && by.contains("approved by"), "{by}");
        let over = revoke(&s.w.admin, &active).await.unwrap();
        assert_eq!((over.state.as_str(), over.why.as_str()), ("revoking", "revoked"));
        assert_eq!(code(issue(&s.carol, credentials()).await), Code::PermissionDenied);
        assert_eq!(code(look(&s.carol).await), Code::PermissionDenied);
        s.gone(&lease, &["elevation-ended"]).await;
        until("it is shown as revoked", async || {
            show(&s.carol, &active.id).await.unwrap().state == "revoked"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_ends_an_elevation_and_expires_what_nobody_used() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let active = s.carol().await;
        let lease = issue(&s.carol, credentials()).await.unwrap();
        let (open, later) =
            (ask(&s.carol, request()).await.unwrap(), ask(&s.carol, request()).await);
        let later = approve(&s.dave, &later.unwrap()).await.unwrap();
        s.w.advance(601);
        assert_eq!(code(look(&s.carol).await), Code::PermissionDenied);
        assert_eq!(code(issue(&s.carol, credentials()).await), Code::PermissionDenied);
        s.gone(&lease, &["expired", "elevation-ended"]).await;
        let state = async |of: &Elevation, is: &str| {
            until(is, async || show(&s.carol, &of.id).await.unwrap().state == is).await;
        };
        state(&active, "ended").await;
        s.w.advance(3_600);
        state(&open, "expired").await;
        state(&later, "expired").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_may_do_anyway_is_done_without_the_elevation_and_outlives_it() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        s.w.grant("carol", |grant| grant).await.unwrap();
        let active = s.carol().await;
        let lease = issue(&s.carol, credentials()).await.unwrap();
        let over = revoke(&s.carol, &active).await.unwrap();
        assert_eq!(over.state, "ended", "nothing hangs on it");
        assert_eq!(s.w.lease(&lease.lease_id).await.state, "active");
        issue(&s.carol, credentials()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_who_is_elevated_ends_with_the_elevation_and_what_it_was_used_for_too() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        s.w.grant("carol", |grant| grant).await.unwrap();
        let before = bearing(&s.carol, &token(&s.carol, 3_600).await.bearer);
        let active = s.carol().await;
        let made = token(&s.carol, 3_600).await;
        assert!(made.token.unwrap().expires_at_ms <= active.ends_at_ms);
        let made = bearing(&s.carol, &made.bearer);
        let knock = async |with: &crate::support::tokens::Bearing| {
            IdentityServiceClient::new(with.clone()).who_am_i(WhoAmIRequest {}).await.is_ok()
        };
        assert!(knock(&made).await && knock(&before).await);
        let mut database =
            strongroom::proto::database_service_client::DatabaseServiceClient::new(made.clone());
        let lease = database.issue_credentials(credentials()).await.unwrap().into_inner();
        revoke(&s.carol, &active).await.unwrap();
        assert!(!knock(&made).await && knock(&before).await);
        s.gone(&lease, &["elevation-ended", "parent-ended"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elevated_call_makes_nothing_that_stands_unless_the_role_says_so() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let joins = ElevationRole {
            name: "joins".to_owned(),
            resources: vec!["groups/security".to_owned()],
            actions: vec!["groups.*".to_owned()],
            ..role()
        };
        let active = s.elevate(&s.carol, joins.clone()).await;
        look(&s.carol).await.unwrap();
        let refusal = join(&s.carol).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert!(refusal.message().contains("stands by itself"), "{refusal}");
        revoke(&s.carol, &active).await.unwrap();
        let (name, reviewer_groups) = ("joins-for-good".to_owned(), vec!["security".to_owned()]);
        let for_good = ElevationRole { name, standing: true, reviewer_groups, ..joins };
        s.elevate(&s.carol, for_good).await;
        join(&s.carol).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_never_administer_also_when_they_are_elevated() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        register(&s.w.f, "robot", "pipeline", "carol").await;
        let robot = s.w.f.connect(&login(&s.w.f, "robot").await).await;
        let robots = ElevationRole { requesters: vec!["robot".to_owned()], ..reader() };
        s.elevate(&robot, robots).await;
        assert_eq!(code(look(&robot).await), Code::PermissionDenied);
        issue(&robot, credentials()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stands_on_an_elevation_is_cut_with_it() {
    for (backend, by) in [
        (Backend::Sqlite, "revoking"),
        (Backend::Postgres, "revoking"),
        (Backend::Sqlite, "the clock"),
        (Backend::Postgres, "the clock"),
        (Backend::Sqlite, "suspending"),
        (Backend::Postgres, "suspending"),
    ] {
        let s = Scene::new(backend).await;
        let tails = ElevationRole {
            name: "tails".to_owned(),
            resources: vec!["records/log".to_owned()],
            actions: vec!["records.tail".to_owned()],
            ..role()
        };
        let active = s.elevate(&s.carol, tails).await;
        let mut client = RecordServiceClient::new(s.carol.clone());
        let request = TailEntriesRequest { filter: None, last: 0 };
        let mut stream = client.tail_entries(request).await.unwrap().into_inner();
        match by {
            "revoking" => drop(revoke(&s.w.admin, &active).await.unwrap()),
            "suspending" => {
                let request =
                    SuspendIdentityRequest { name: "carol".into(), reason: String::new() };
                let mut admin = IdentityServiceClient::new(s.w.admin.clone());
                admin.suspend_identity(request).await.unwrap();
            }
            _ => s.w.advance(601),
        }
        let end = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status.code()),
                }
            }
        });
        // Who is suspended is nobody any more.
        let suspended = by == "suspending";
        let cut = if suspended { Code::Unauthenticated } else { Code::PermissionDenied };
        assert_eq!(end.await.unwrap(), Some(cut), "{by}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_who_is_elevated_ends_it_and_resuming_brings_it_not_back() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let active = s.carol().await;
        let approved = approve(&s.dave, &ask(&s.carol, request()).await.unwrap()).await.unwrap();
        let lease = issue(&s.carol, credentials()).await.unwrap();
        let mut admin = IdentityServiceClient::new(s.w.admin.clone());
        let (name, reason) = ("carol".to_owned(), String::new());
        let suspend = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        admin.suspend_identity(suspend).await.unwrap();
        admin.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        let carol = s.w.f.connect(&login(&s.w.f, "carol").await).await;
        assert_eq!(code(look(&carol).await), Code::PermissionDenied);
        until("it is over", async || show(&carol, &active.id).await.unwrap().state == "ended")
            .await;
        assert_eq!(activate(&carol, &approved).await.unwrap().state, "activation-failed");
        s.gone(&lease, &["identity-suspended", "revoked"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elevation_and_its_approvals_from_before_a_restore_are_void() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let void = s.carol().await;
        let open = ask(&s.carol, request()).await.unwrap();
        let approved = approve(&s.dave, &ask(&s.carol, request()).await.unwrap()).await.unwrap();
        look(&s.carol).await.unwrap();
        restored(&s.w.f).await;
        assert_eq!(code(look(&s.carol).await), Code::PermissionDenied);
        assert_eq!(code(approve(&s.dave, &open).await), Code::FailedPrecondition);
        assert_eq!(activate(&s.carol, &approved).await.unwrap().state, "activation-failed");
        // What is void keeps nobody from the next.
        let next = approve(&s.dave, &ask(&s.carol, request()).await.unwrap()).await.unwrap();
        assert_eq!(activate(&s.carol, &next).await.unwrap().state, "active");
        let void = show(&s.carol, &void.id).await.unwrap();
        assert!(["ended", "revoking"].contains(&void.state.as_str()), "{}", void.state);
        assert_eq!(void.why, "the vault was restored since");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elevation_is_revoking_until_what_was_made_under_it_is_gone_outside() {
    for backend in BACKENDS {
        let proxy = Proxy::to(Postgres::shared().port()).await;
        let s = Scene::of(World::over(backend, Postgres::shared(), proxy.port).await).await;
        let active = s.carol().await;
        let lease = issue(&s.carol, credentials()).await.unwrap();
        proxy.set(Wire::Cut);
        revoke(&s.carol, &active).await.unwrap();
        let state = async || show(&s.carol, &active.id).await.unwrap().state;
        until("a try failed", async || s.w.lease(&lease.lease_id).await.revoke_attempts > 0).await;
        assert_eq!(state().await, "revoking");
        proxy.set(Wire::Whole);
        s.w.advance(600);
        s.gone(&lease, &["elevation-ended"]).await;
        until("it is over", async || state().await == "ended").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_time_is_for_what_is_made_then_and_no_lease_is_renewed_beyond_the_elevation() {
    for backend in BACKENDS {
        let s = Scene::new(backend).await;
        let active = s.carol().await;
        let lease = issue(&s.carol, credentials()).await.unwrap();
        let renew = async |ttl_s| {
            let request = RenewLeaseRequest { id: lease.lease_id.clone(), ttl_s };
            let renewed = LeaseServiceClient::new(s.carol.clone()).renew_lease(request).await?;
            Ok::<_, Status>(renewed.into_inner().lease.unwrap().expires_at_ms)
        };
        assert_eq!(code(renew(3_000).await), Code::InvalidArgument);
        assert!(renew(0).await.unwrap() <= active.ends_at_ms);
        let (id, ttl_s) = (active.id.clone(), 1_200);
        let more = strongroom::proto::ExtendElevationRequest { id, ttl_s, ..Default::default() };
        let more = Client::new(s.carol.clone()).extend_elevation(more).await.unwrap().into_inner();
        let more = approve(&s.dave, &more.elevation.unwrap()).await.unwrap();
        activate(&s.carol, &more).await.unwrap();
        assert!(
            issue(&s.carol, credentials()).await.unwrap().expires_at_ms > active.ends_at_ms - 1
        );
        s.w.advance(500);
        revoke(&s.carol, &show(&s.carol, &active.id).await.unwrap()).await.unwrap();
        let refused = code(renew(600).await);
        assert!([Code::FailedPrecondition, Code::PermissionDenied].contains(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elevation_begins_and_ends_on_every_node_at_once() {
    let s = Scene::new(Backend::Postgres).await;
    let other = s.w.f.second_node().await;
    let there = s.w.f.connect_to(&other, &login(&s.w.f, "carol").await).await;
    for _ in 0..4 {
        assert_eq!(code(look(&there).await), Code::PermissionDenied);
        let active = s.carol().await;
        look(&there).await.unwrap();
        let lease = issue(&there, credentials()).await.unwrap();
        revoke(&s.carol, &active).await.unwrap();
        assert_eq!(code(look(&there).await), Code::PermissionDenied);
        assert_eq!(code(issue(&there, credentials()).await), Code::PermissionDenied);
        s.gone(&lease, &["elevation-ended"]).await;
    }
    drop(there);
    other.stop().await.unwrap();
}
