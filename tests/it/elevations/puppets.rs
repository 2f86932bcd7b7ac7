//! Accounts that somebody makes or takes over, to be another than who wants something.

use std::time::Duration;

use strongroom::proto::{ResumeIdentityRequest, SuspendIdentityRequest};

use super::glass::{confirm, emergency, glass, review, seen};
use super::rules::account;
use super::*;
use crate::support::factors::{enrolled, invite_as};
use crate::support::logins::login;
use crate::support::target::until;

const DAY: Duration = Duration::from_hours(24);
const LATER: Duration = Duration::from_mins(1);

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, because: &str) {
    let refusal = answer.unwrap_err();
    assert!(refusal.message().contains(because), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changes_by_two_people_and_not_by_one_with_a_puppet() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let wanted = || ElevationRole { purpose: "another".to_owned(), ..role() };
        put(&s.second, wanted()).await.unwrap();
        // A login that was signed for a key of who wants it.
        let signed = s.f.connect(&login(&s.f, "third").await).await;
        refused(confirm(&signed, ROLE).await, "totp");
        // An administrator that who wants it made, and one which that one made.
        let puppet = account(&s, &s.second, "puppet", "").await;
        s.join("administrators", "puppet").await;
        refused(confirm(&puppet, ROLE).await, "made or changed");
        let next = account(&s, &puppet, "next", "").await;
        s.join("administrators", "next").await;
        refused(confirm(&next, ROLE).await, "made or changed");
        // A membership that who wants it made, and a factor that they vouched for.
        let frank = account(&s, &s.admin, "frank", "").await;
        let group = || "administrators".to_owned();
        let member = AddMemberRequest { group: group(), identity: "frank".to_owned() };
        GroupServiceClient::new(s.second.clone()).add_member(member).await.unwrap();
        refused(confirm(&frank, ROLE).await, "made or changed");
        let grace = lasting(&s.f, &s.admin, "grace").await;
        s.join("administrators", "grace").await;
        enrolled(&s.f, &grace, &invite_as(&s.second, "grace").await).await;
        refused(confirm(&grace, ROLE).await, "made or changed");
        assert_eq!(seen(&s.carol, ROLE).await.role.unwrap().purpose, "a test");
        // Nor the other way round: by who made the account that wants it, or vouched for its factor.
        let other = || ElevationRole { purpose: "other".to_owned(), ..role() };
        put(&puppet, other()).await.unwrap();
        refused(confirm(&s.second, ROLE).await, "made or changed");
        put(&grace, wanted()).await.unwrap();
        refused(confirm(&s.second, ROLE).await, "made or changed");
        put(&s.second, wanted()).await.unwrap();
        // Nor is anything confirmed that somebody wants no more.
        let contain = SuspendIdentityRequest { name: "second".into(), ..Default::default() };
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        identities.suspend_identity(contain).await.unwrap();
        refused(confirm(&s.third, ROLE).await, "suspended since");
        put(&frank, wanted()).await.unwrap();
        let changed = confirm(&s.third, ROLE).await.unwrap().role.unwrap();
        assert_eq!(changed.purpose, "another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_no_effect_that_somebody_wanted_or_confirmed_who_was_suspended_since() {
    for (backend, who) in BACKENDS.into_iter().flat_map(|it| [(it, "second"), (it, "third")]) {
        let s = Stage::of(Fixture::earnest(backend).await).await;
        let app = step_up(&s.f, &s.second, "second", None).await;
        s.f.clock.advance(DAY + LATER);
        s.step_up().await;
        step_up(&s.f, &s.second, "second", Some(&app)).await;
        put(&s.second, ElevationRole { purpose: "another".to_owned(), ..role() }).await.unwrap();
        confirm(&s.third, ROLE).await.unwrap();
        let (name, reason) = (who.to_owned(), String::new());
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        let contain = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        identities.suspend_identity(contain).await.unwrap();
        identities.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        s.f.clock.advance(DAY + LATER);
        until("it was dropped", async || seen(&s.carol, ROLE).await.proposal.is_none()).await;
        assert_eq!(seen(&s.carol, ROLE).await.role.unwrap().purpose, "a test");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_breaks_the_glass_with_a_factor_of_today() {
    for backend in BACKENDS {
        let s = Stage::of(Fixture::earnest(backend).await).await;
        let app = step_up(&s.f, &s.second, "second", None).await;
        s.f.clock.advance(DAY + LATER);
        s.step_up().await;
        step_up(&s.f, &s.second, "second", Some(&app)).await;
        let requesters = vec!["carol".to_owned(), "dave".to_owned()];
        let reviewer_groups = vec!["administrators".to_owned()];
        put(&s.second, ElevationRole { requesters, reviewer_groups, ..glass() }).await.unwrap();
        confirm(&s.third, "glass").await.unwrap();
        // Later no connection is made: it would be younger than the test's own clock.
        s.f.clock.advance(DAY + LATER);
        until("it took effect", async || seen(&s.carol, "glass").await.proposal.is_none()).await;
        s.step_up().await;
        enrolled(&s.f, &s.carol, &invite_as(&s.admin, "carol").await).await;
        let taken_over = ask(&s.carol, emergency()).await.unwrap();
        refused(activate(&s.carol, &taken_over).await, "a day older");
        let asked = ask(&s.dave, emergency()).await.unwrap();
        let active = activate(&s.dave, &asked).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
        revoke(&s.dave, &active).await.unwrap();
        // Nor is it reviewed by one who joined since.
        s.join("administrators", "erin").await;
        refused(review(&s.erin, &active, "accepted").await, "a day older");
        review(&s.third, &active, "accepted").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_is_reviewed_by_others_and_not_by_accounts_of_who_had_it() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.put(ElevationRole { requesters: vec!["second".to_owned()], ..glass() }).await.unwrap();
        let puppet = account(&s, &s.second, "puppet", "").await;
        s.join("security", "puppet").await;
        let asked = ask(&s.second, emergency()).await.unwrap();
        // A factor that a puppet vouches for is one's own.
        s.join("administrators", "puppet").await;
        enrolled(&s.f, &s.second, &invite_as(&puppet, "second").await).await;
        refused(activate(&s.second, &asked).await, "your own making");
        step_up(&s.f, &s.second, "second", None).await;
        let active = activate(&s.second, &asked).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
        revoke(&s.second, &active).await.unwrap();
        refused(review(&puppet, &active, "accepted").await, "made or changed");
        let signed = s.f.connect(&login(&s.f, "dave").await).await;
        refused(review(&signed, &active, "accepted").await, "totp");
        let reviewed = review(&s.dave, &active, "violation").await.unwrap();
        assert_eq!(reviewed.review_verdict, "violation");
    }
}
