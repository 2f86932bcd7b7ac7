//! Every kind of notice that the other tests await none of, in one scene of three days.

use strongroom::proto::{ExtendElevationRequest, SuspendIdentityRequest};

use super::super::glass::{confirm, emergency, glass, seen};
use super::*;

const DAY: Duration = Duration::from_mins(24 * 60 + 1);

/// Approves with both, one step after the other.
async fn both(s: &Stage, asked: &Elevation) -> Elevation {
    approve(&s.dave, asked).await.unwrap();
    approve(&s.erin, asked).await.unwrap()
}

/// The first notice of a kind; it is told to somebody.
async fn awaited(receiver: &Receiver, kind: &str, to: &str) -> Value {
    let notice = receiver.waits_for(kind).await.json();
    let told = people(&notice);
    assert!(told.contains(&to.to_owned()), "{kind}: {to} of {told:?}");
    notice
}

/// What becomes of elevations of a role with two steps.
async fn of_elevations(s: &Stage, receiver: &Receiver) {
    let by_two = || RequestElevationRequest { role: "two".to_owned(), ..request() };
    let asked = ask(&s.carol, by_two()).await.unwrap();
    let active = activate(&s.carol, &both(s, &asked).await).await.unwrap();
    let step = awaited(receiver, "elevation.step-approved", "boards:erin").await;
    assert_eq!((&step["data"]["elevation"], &step["data"]["step"]), (&asked.id.into(), &2.into()));
    let more = ExtendElevationRequest { id: active.id.clone(), ttl_s: 60, ..Default::default() };
    let more = Client::new(s.carol.clone()).extend_elevation(more).await.unwrap().into_inner();
    let more = both(s, &more.elevation.unwrap()).await;
    activate(&s.carol, &more).await.unwrap();
    let prolonged = awaited(receiver, "elevation.prolonged", ":carol").await;
    assert_eq!(prolonged["data"]["elevation"], active.id.as_str());
    let open = ask(&s.carol, by_two()).await.unwrap();
    s.f.clock.advance(Duration::from_secs(3_601));
    let ended = awaited(receiver, "elevation.ended", ":carol").await;
    assert_eq!(ended["data"]["elevation"], active.id.as_str());
    let expired = awaited(receiver, "elevation.expired", ":carol").await;
    assert_eq!(expired["data"]["elevation"], open.id.as_str());
}

/// What becomes of roles, and at last of an approval whose approver is suspended.
async fn of_roles(s: &Stage, receiver: &Receiver, seconds: &App) {
    step_up(&s.f, &s.second, "second", Some(seconds)).await;
    put(&s.second, glass()).await.unwrap();
    let proposed = awaited(receiver, "elevation-role.proposed", "administrators:third").await;
    assert_eq!(proposed["data"]["role"], "glass");
    confirm(&s.third, "glass").await.unwrap();
    let confirmed = awaited(receiver, "elevation-role.confirmed", "administrators:second").await;
    assert_eq!(confirmed["data"]["approved_by"][0], "third");
    s.f.clock.advance(DAY);
    until("it took effect", async || seen(&s.carol, "glass").await.proposal.is_none()).await;
    ask(&s.carol, emergency()).await.unwrap();
    awaited(receiver, "elevation.emergency-requested", "security:dave").await;
    s.step_up().await;
    step_up(&s.f, &s.second, "second", Some(seconds)).await;
    put(&s.second, ElevationRole { purpose: "another".to_owned(), ..role() }).await.unwrap();
    confirm(&s.third, ROLE).await.unwrap();
    let approved = s.approved().await;
    for name in ["third", "dave"] {
        let request = SuspendIdentityRequest { name: name.to_owned(), ..Default::default() };
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        identities.suspend_identity(request).await.unwrap();
    }
    assert_eq!(activate(&s.carol, &approved).await.unwrap().state, "activation-failed");
    let failed = awaited(receiver, "elevation.activation-failed", ":carol").await;
    assert!(failed["data"]["why"].as_str().unwrap().contains("suspended"), "{failed}");
    s.f.clock.advance(DAY);
    let dropped = awaited(receiver, "elevation-role.dropped", "administrators:second").await;
    assert!(dropped["data"]["why"].as_str().unwrap().contains("suspended"), "{dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_ends_failures_and_roles_are_told_to_whom_they_concern() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::earnest(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        let seconds = step_up(&s.f, &s.second, "second", None).await;
        s.group("boards", &["erin"]).await;
        let steps = vec![step(1, &["security"]), step(1, &["boards"])];
        let two = ElevationRole { name: "two".to_owned(), steps, ..role() };
        put(&s.second, two).await.unwrap();
        s.f.clock.advance(DAY);
        s.step_up().await;
        of_elevations(&s, &receiver).await;
        s.step_up().await;
        of_roles(&s, &receiver, &seconds).await;
    }
}
