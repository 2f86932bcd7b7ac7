//! Emergencies, and what changes by two administrators alone.

use std::time::Duration;

use strongroom::proto::{
    ConfirmElevationRoleRequest, ConfirmElevationRoleResponse, GetElevationRoleRequest,
    GetElevationRoleResponse, ReviewElevationRequest,
};

use super::*;
use crate::support::factors::authenticator;
use crate::support::logins::{machine, registration};
use crate::support::target::until;

pub(super) async fn seen(channel: &Channel, name: &str) -> GetElevationRoleResponse {
    let request = GetElevationRoleRequest { name: name.to_owned() };
    Client::new(channel.clone()).get_role(request).await.unwrap().into_inner()
}

async fn confirm_version(
    channel: &Channel,
    name: &str,
    version: i64,
) -> Result<ConfirmElevationRoleResponse, Status> {
    let request = ConfirmElevationRoleRequest { name: name.to_owned(), version };
    Ok(Client::new(channel.clone()).confirm_role(request).await?.into_inner())
}

/// Confirms what is to change about a role.
pub(super) async fn confirm(
    channel: &Channel,
    name: &str,
) -> Result<ConfirmElevationRoleResponse, Status> {
    let version = seen(channel, name).await.role.unwrap().version;
    confirm_version(channel, name, version).await
}

pub(super) async fn review(
    channel: &Channel,
    of: &Elevation,
    verdict: &str,
) -> Result<Elevation, Status> {
    let (id, verdict, note) = (of.id.clone(), verdict.to_owned(), "looked at".to_owned());
    let request = ReviewElevationRequest { id, verdict, note };
    let reviewed = Client::new(channel.clone()).review_elevation(request).await?;
    Ok(reviewed.into_inner().elevation.unwrap())
}

pub(super) fn glass() -> ElevationRole {
    ElevationRole {
        name: "glass".to_owned(),
        max_ttl_s: 3_600,
        steps: vec![],
        reason_required: true,
        break_glass: true,
        reviewer_groups: vec!["security".to_owned()],
        ..role()
    }
}

pub(super) fn emergency() -> RequestElevationRequest {
    RequestElevationRequest { role: "glass".to_owned(), ..request() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changes_by_two_administrators_alone() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let open = s.asked().await;
        let wanted = ElevationRole { purpose: "another".to_owned(), ..role() };
        let unchanged = put(&s.second, wanted.clone()).await.unwrap();
        assert_eq!(unchanged.purpose, "a test");
        let waits = seen(&s.carol, ROLE).await;
        let proposal = waits.proposal.unwrap();
        assert_eq!((proposal.proposed_by.as_str(), proposal.effective_at_ms), ("second", 0));
        assert_eq!(proposal.role.unwrap().purpose, "another");
        for other in [&s.second, &s.carol, &s.dave] {
            assert_eq!(code(confirm(other, ROLE).await), Code::PermissionDenied);
        }
        let version = waits.role.unwrap().version;
        assert_eq!(
            code(confirm_version(&s.third, ROLE, version - 1).await),
            Code::FailedPrecondition
        );
        let changed = confirm_version(&s.third, ROLE, version).await.unwrap();
        assert_eq!(changed.role.unwrap().purpose, "another");
        assert_eq!(code(confirm(&s.third, ROLE).await), Code::FailedPrecondition, "done");
        assert_eq!(code(approve(&s.dave, &open).await), Code::FailedPrecondition, "it changed");
        assert_eq!(put(&s.second, wanted).await.unwrap().purpose, "another");
        assert!(seen(&s.carol, ROLE).await.proposal.is_none(), "nothing to change");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_effect_a_day_after_it_was_wanted() {
    for backend in BACKENDS {
        let s = Stage::of(Fixture::earnest(backend).await).await;
        let another = || ElevationRole { purpose: "another".to_owned(), ..role() };
        let unproven = put(&s.second, another()).await.unwrap_err();
        assert!(unproven.message().contains("totp"), "{unproven}");
        let app = step_up(&s.f, &s.second, "second", None).await;
        put(&s.second, another()).await.unwrap();
        let young = confirm(&s.third, ROLE).await.unwrap_err();
        assert!(young.message().contains("a day older"), "{young}");
        s.f.clock.advance(Duration::from_hours(24) + Duration::from_mins(1));
        s.step_up().await;
        let young = confirm(&s.third, ROLE).await.unwrap_err();
        assert!(young.message().contains("a day older"), "than what was wanted: {young}");
        step_up(&s.f, &s.second, "second", Some(&app)).await;
        put(&s.second, ElevationRole { purpose: "other".to_owned(), ..role() }).await.unwrap();
        put(&s.second, another()).await.unwrap();
        let waits = confirm(&s.third, ROLE).await.unwrap();
        let proposal = waits.proposal.unwrap();
        assert_eq!(proposal.confirmed_by, "third");
        assert_eq!(proposal.effective_at_ms, proposal.proposed_at_ms + 86_400_000);
        assert_eq!(waits.role.unwrap().purpose, "a test");
        s.f.clock.advance(Duration::from_hours(24) + Duration::from_mins(1));
        until("it took effect", async || {
            seen(&s.carol, ROLE).await.role.unwrap().purpose == "another"
        })
        .await;
        assert!(seen(&s.carol, ROLE).await.proposal.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_emergency_named_people_go_first_and_are_reviewed_after() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let robot = machine(&s.f, "robot").await;
        let requesters = vec!["carol".to_owned(), "robot".to_owned()];
        put(&s.second, ElevationRole { requesters, ..glass() }).await.unwrap();
        assert_eq!(code(ask(&s.carol, emergency()).await), Code::PermissionDenied, "not yet");
        confirm(&s.third, "glass").await.unwrap();
        assert_eq!(code(ask(&s.dave, emergency()).await), Code::PermissionDenied, "not named");
        assert_eq!(code(ask(&robot, emergency()).await), Code::PermissionDenied, "no human");
        let silent = RequestElevationRequest { reason: String::new(), ..emergency() };
        assert_eq!(code(ask(&s.carol, silent).await), Code::InvalidArgument);
        let asked = ask(&s.carol, emergency()).await.unwrap();
        assert_eq!((asked.state.as_str(), asked.votes.len()), ("scheduled", 0));
        assert_eq!(code(review(&s.dave, &asked, "accepted").await), Code::FailedPrecondition);
        assert_eq!(code(activate(&s.carol, &asked).await), Code::FailedPrecondition, "no factor");
        authenticator(&s.f, &s.carol, "carol").await;
        let active = activate(&s.carol, &asked).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
        assert_eq!(active.review_due_at_ms, active.activated_at_ms + 86_400_000);
        assert_eq!(code(review(&s.carol, &active, "accepted").await), Code::PermissionDenied);
        assert_eq!(code(review(&s.second, &active, "accepted").await), Code::PermissionDenied);
        assert_eq!(code(review(&s.dave, &active, "fine").await), Code::InvalidArgument);
        assert_eq!(code(review(&s.dave, &active, "accepted").await), Code::FailedPrecondition);
        revoke(&s.carol, &active).await.unwrap();
        let reviewed = review(&s.dave, &active, "accepted").await.unwrap();
        assert_eq!((reviewed.review_verdict.as_str(), reviewed.review_due_at_ms), ("accepted", 0));
        assert_eq!((reviewed.reviewed_by.as_str(), &*reviewed.review_note), ("dave", "looked at"));
        assert_eq!(code(review(&s.erin, &active, "violation").await), Code::FailedPrecondition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_breaks_the_glass_again_with_an_overdue_review() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        put(&s.second, glass()).await.unwrap();
        confirm(&s.third, "glass").await.unwrap();
        // The clock is turned first: whoever connects later would be younger than the test's own.
        let carols = authenticator(&s.f, &s.carol, "carol").await;
        let first = activate(&s.carol, &ask(&s.carol, emergency()).await.unwrap()).await.unwrap();
        revoke(&s.carol, &first).await.unwrap();
        let second = ask(&s.carol, emergency()).await.unwrap();
        withdraw(&s.carol, &second).await.unwrap();
        s.f.clock.advance(Duration::from_hours(23));
        withdraw(&s.carol, &ask(&s.carol, emergency()).await.unwrap()).await.unwrap();
        s.f.clock.advance(Duration::from_mins(30));
        let in_time = ask(&s.carol, emergency()).await.unwrap();
        s.f.clock.advance(Duration::from_mins(32));
        assert_eq!(code(ask(&s.carol, emergency()).await), Code::FailedPrecondition);
        step_up(&s.f, &s.carol, "carol", Some(&carols)).await;
        let overdue = activate(&s.carol, &in_time).await.unwrap_err();
        assert!(overdue.message().contains("overdue"), "asked for before: {overdue}");
        s.step_up().await;
        review(&s.dave, &first, "violation").await.unwrap();
        let active = activate(&s.carol, &in_time).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_review_is_of_the_person_whichever_account_broke_the_glass() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let mut accounts = Vec::new();
        for name in ["grace", "grace-too", "frank"] {
            let person = if name == "frank" { "" } else { "grace-hopper" }.to_owned();
            let human = registration(name, "human", "");
            let human = strongroom::proto::CreateIdentityRequest { person, ..human };
            let mut identities = IdentityServiceClient::new(s.admin.clone());
            identities.create_identity(human).await.unwrap();
            accounts.push(s.f.connect(&issued(&s.admin, name).await).await);
        }
        let [grace, other, frank] = <[Channel; 3]>::try_from(accounts).unwrap();
        let requesters = ["grace", "grace-too", "frank"].map(str::to_owned).to_vec();
        s.put(ElevationRole { requesters, ..glass() }).await.unwrap();
        authenticator(&s.f, &grace, "grace").await;
        let active = activate(&grace, &ask(&grace, emergency()).await.unwrap()).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
        revoke(&grace, &active).await.unwrap();
        withdraw(&other, &ask(&other, emergency()).await.unwrap()).await.unwrap();
        s.f.clock.advance(Duration::from_hours(24) + Duration::from_mins(1));
        for account in [&grace, &other] {
            let overdue = ask(account, emergency()).await.unwrap_err();
            assert!(overdue.message().contains("overdue"), "{overdue}");
        }
        ask(&frank, emergency()).await.unwrap();
        s.step_up().await;
        review(&s.dave, &active, "accepted").await.unwrap();
        ask(&other, emergency()).await.unwrap();
    }
}
