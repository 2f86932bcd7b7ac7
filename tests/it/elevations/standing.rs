//! Elevations that may make what stands by itself: told, shown, reviewed.

use std::time::Duration;

use super::glass::{emergency, glass, review};
use super::*;
use crate::support::factors::authenticator;

/// A role under which people are put into a group.
pub(super) fn gatherer() -> ElevationRole {
    ElevationRole {
        name: "gatherer".to_owned(),
        resources: vec!["groups/team".to_owned()],
        actions: vec!["groups.add".to_owned()],
        standing: true,
        reviewer_groups: vec!["security".to_owned()],
        ..role()
    }
}

async fn gathers(s: &Stage) -> Elevation {
    let (role, resources) = ("gatherer".to_owned(), vec!["groups/team".to_owned()]);
    ask(&s.carol, RequestElevationRequest { role, resources, ..request() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn approvers_see_that_it_may_make_what_stands_and_what_it_was_asked_for_on() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.group("team", &[]).await;
        s.put(gatherer()).await.unwrap();
        s.put(ElevationRole { requesters: vec!["second".to_owned()], ..glass() }).await.unwrap();
        let seen = show(&s.dave, &gathers(&s).await.id).await.unwrap();
        assert!(seen.standing && !seen.break_glass);
        let tables: Vec<_> = seen.stands_on.iter().map(|it| it.table.as_str()).collect();
        assert_eq!(tables, ["elevation_roles", "groups"]);
        assert!(seen.stands_on.iter().all(|it| it.version > 0 && !it.id.is_empty()));
        let plain = show(&s.dave, &s.asked().await.id).await.unwrap();
        assert!(!plain.standing && !plain.break_glass);
        let glass = ask(&s.second, emergency()).await.unwrap();
        assert!(glass.break_glass && !glass.standing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_made_something_that_stands_is_reviewed_within_a_day() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.group("team", &[]).await;
        let unreviewed = ElevationRole { reviewer_groups: vec![], ..gatherer() };
        assert_eq!(code(s.put(unreviewed).await), Code::InvalidArgument);
        let idle = ElevationRole { reviewer_groups: vec!["security".to_owned()], ..role() };
        assert_eq!(code(s.put(idle).await), Code::InvalidArgument);
        s.put(gatherer()).await.unwrap();
        let approved = approve(&s.dave, &gathers(&s).await).await.unwrap();
        let active = activate(&s.carol, &approved).await.unwrap();
        assert_eq!(active.review_due_at_ms, active.activated_at_ms + 86_400_000);
        assert_eq!(code(review(&s.erin, &active, "accepted").await), Code::FailedPrecondition);
        revoke(&s.carol, &active).await.unwrap();
        assert_eq!(code(review(&s.carol, &active, "accepted").await), Code::PermissionDenied);
        let reviewed = review(&s.erin, &active, "accepted").await.unwrap();
        assert_eq!((reviewed.review_verdict.as_str(), reviewed.review_due_at_ms), ("accepted", 0));
        // What makes nothing that stands has none.
        let plain = s.active().await;
        assert_eq!(plain.review_due_at_ms, 0);
        revoke(&s.carol, &plain).await.unwrap();
        assert_eq!(code(review(&s.erin, &plain, "accepted").await), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_an_overdue_review_of_it_breaks_no_glass() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.group("team", &[]).await;
        s.put(gatherer()).await.unwrap();
        s.put(glass()).await.unwrap();
        authenticator(&s.f, &s.carol, "carol").await;
        let approved = approve(&s.dave, &gathers(&s).await).await.unwrap();
        let active = activate(&s.carol, &approved).await.unwrap();
        revoke(&s.carol, &active).await.unwrap();
        withdraw(&s.carol, &ask(&s.carol, emergency()).await.unwrap()).await.unwrap();
        s.f.clock.advance(Duration::from_hours(24) + Duration::from_mins(1));
        let overdue = ask(&s.carol, emergency()).await.unwrap_err();
        assert!(overdue.message().contains("overdue"), "{overdue}");
        s.step_up().await;
        review(&s.erin, &active, "accepted").await.unwrap();
        ask(&s.carol, emergency()).await.unwrap();
    }
}
