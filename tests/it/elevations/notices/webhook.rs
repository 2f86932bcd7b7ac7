//! What is told, to whom, in which form.

use strongroom::proto::{ReviewElevationRequest, SuspendIdentityRequest};

use super::*;
use crate::support::factors::authenticator;
use crate::support::receiver::Authority;

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_an_elevation_is_told_in_order_and_signed() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        let active = s.active().await;
        revoke(&s.admin, &active).await.unwrap();
        withdraw(&s.carol, &s.asked().await).await.unwrap();
        deny(&s.erin, &s.asked().await).await.unwrap();
        settled(&s.f).await;
        assert_eq!(
            receiver.kinds(),
            [
                "elevation-role.created",
                "elevation.requested",
                "elevation.approved",
                "elevation.activated",
                "elevation.revoked",
                "elevation.requested",
                "elevation.withdrawn",
                "elevation.requested",
                "elevation.denied",
            ]
        );
        let all = receiver.came();
        assert_eq!(all.len(), 9, "each once");
        for (place, one) in all.iter().enumerate() {
            let said = one.json();
            assert_eq!(said["sequence"], place + 1);
            assert!(one.id().starts_with(&format!("ntc_{}_", place + 1)), "{}", one.id());
            assert_eq!(said["vault"], "vault.test");
            assert_eq!(one.head, "POST /in?a=b HTTP/1.1");
            assert!(verifies(one, KEY), "{}", one.id());
        }
        let asked = all[1].json();
        assert_eq!(people(&asked), ["security:dave", "security:erin"]);
        let data = &asked["data"];
        assert_eq!((&data["requester"], &data["role"]), (&"carol".into(), &ROLE.into()));
        assert_eq!((&data["reason"], &data["elevation"]), (&"a test".into(), &active.id.into()));
        let activated = all[3].json();
        assert_eq!(people(&activated), [":carol"]);
        assert_eq!(activated["data"]["approved_by"][0], "dave");
        assert!(activated["data"]["ends_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(all[4].json()["data"]["by"], "admin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_fits_its_body_id_time_and_key_alone() {
    let receiver = Receiver::new().await;
    let f = told(Fixture::new().await, vec![posts_to(&receiver)]).await;
    let s = Stage::of(f).await;
    s.asked().await;
    let asked = receiver.waits_for("elevation.requested").await;
    assert!(verifies(&asked, KEY));
    let mut other = asked.clone();
    other.body.push(b' ');
    assert!(!verifies(&other, KEY), "the body");
    for (name, value) in [("webhook-id", "ntc_1_x"), ("webhook-timestamp", "1")] {
        let mut other = asked.clone();
        other.headers.insert(name.to_owned(), value.to_owned());
        assert!(!verifies(&other, KEY), "{name}");
    }
    assert!(!verifies(&asked, &KEY.replace("MDEy", "MDEz")), "the key");
    for one in receiver.came() {
        let all = format!("{one:?}{}", String::from_utf8_lossy(&one.body));
        assert!(!all.contains(&KEY[6..30]) && !all.contains("0123456789abcdef"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_is_told_to_owners_and_reviewers_at_once_and_when_its_review_is_overdue() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        let glass = ElevationRole {
            resources: vec!["identities/carol".to_owned()],
            actions: vec!["identities.show".to_owned()],
            ..glass::glass()
        };
        s.put(glass).await.unwrap();
        let confirmed = receiver.waits_for("elevation-role.changed").await.json();
        assert_eq!(confirmed["data"]["requester"], "second");
        assert_eq!(confirmed["data"]["approved_by"][0], "third");
        let carol = &s.carol;
        authenticator(&s.f, carol, "carol").await;
        let resources = vec!["identities/carol".to_owned()];
        let asked = ask(carol, RequestElevationRequest { resources, ..glass::emergency() });
        let asked = asked.await.unwrap();
        activate(carol, &asked).await.unwrap();
        let broken = receiver.waits_for("elevation.emergency-activated").await.json();
        let all = ["administrators:admin", "administrators:second", "administrators:third"];
        let all = [&[":carol", "security:dave", "security:erin"][..], &all].concat();
        assert_eq!(people(&broken), all);
        assert_eq!(broken["data"]["break_glass"], true);
        assert!(broken["subject"].as_str().unwrap().contains("EMERGENCY"), "{broken}");
        s.f.clock.advance(Duration::from_hours(25));
        let overdue = receiver.waits_for("elevation.review-overdue").await.json();
        let told = people(&overdue);
        assert!(told.contains(&"administrators:admin".to_owned()), "{told:?}");
        assert!(told.contains(&"security:erin".to_owned()), "{told:?}");
        s.step_up().await;
        let (id, verdict, note) = (asked.id, "violation".to_owned(), "why?".to_owned());
        let request = ReviewElevationRequest { id, verdict, note };
        Client::new(s.dave.clone()).review_elevation(request).await.unwrap();
        let reviewed = receiver.waits_for("elevation.reviewed").await.json();
        assert_eq!(reviewed["data"]["verdict"], "violation");
        settled(&s.f).await;
        let overdue = |kind: &&String| kind.as_str() == "elevation.review-overdue";
        assert_eq!(receiver.kinds().iter().filter(overdue).count(), 1, "once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_to_stand_under_an_elevation_is_told() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        s.group("dba", &[]).await;
        let resources = vec!["groups/dba".to_owned()];
        let standing = ElevationRole {
            name: "gatherer".to_owned(),
            resources: resources.clone(),
            actions: vec!["groups.add".to_owned()],
            standing: true,
            reviewer_groups: vec!["security".to_owned()],
            ..role()
        };
        put(&s.admin, standing).await.unwrap();
        let role = "gatherer".to_owned();
        let request = RequestElevationRequest { role, resources, ..request() };
        let asked = ask(&s.carol, request).await.unwrap();
        activate(&s.carol, &approve(&s.dave, &asked).await.unwrap()).await.unwrap();
        let add = AddMemberRequest { group: "dba".to_owned(), identity: "erin".to_owned() };
        GroupServiceClient::new(s.carol.clone()).add_member(add).await.unwrap();
        let made = receiver.waits_for("elevation.standing-made").await.json();
        assert_eq!(made["data"]["detail"], "groups.add on groups/dba");
        assert_eq!(made["data"]["role"], "gatherer");
        let told = people(&made);
        assert!(told.contains(&":carol".to_owned()), "{told:?}");
        assert!(told.contains(&"administrators:second".to_owned()), "{told:?}");
        assert!(told.contains(&"security:erin".to_owned()), "who reviews it: {told:?}");
        // It was approved: it is told as in force, and not as an emergency.
        let activated = receiver.waits_for("elevation.activated").await.json();
        assert_eq!(activated["data"]["standing"], true);
        assert!(activated["data"]["review_due"].is_string(), "{activated}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_what_an_emergency_reaches_hears_of_it_as_it_is_asked_for() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        human(&s.f, "frank").await;
        register(&s.f, "etl", "pipeline", "frank").await;
        let resources = vec!["identities/etl".to_owned()];
        let actions = vec!["identities.show".to_owned()];
        let of_machines = resources.clone();
        s.put(ElevationRole { resources: of_machines, actions, ..glass::glass() }).await.unwrap();
        ask(&s.carol, RequestElevationRequest { resources, ..glass::emergency() }).await.unwrap();
        let asked = receiver.waits_for("elevation.emergency-requested").await.json();
        let told = people(&asked);
        for who in [":frank", "security:dave", "administrators:admin"] {
            assert!(told.contains(&who.to_owned()), "{who}: {told:?}");
        }
        assert!(asked["subject"].as_str().unwrap().contains("EMERGENCY"), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_has_to_show_a_certificate_of_its_name_by_the_authority_that_was_named() {
    let (ours, others) = (Authority::new(&["127.0.0.1"]), Authority::new(&["127.0.0.1"]));
    let misnamed = Authority::new(&["hooks.example.org"]);
    let mut f = Fixture::new().await;
    let mut receivers = Vec::new();
    for (name, shown, trusted) in [
        ("good", &ours, &ours.ca),
        ("other", &ours, &others.ca),
        ("misnamed", &misnamed, &misnamed.ca),
    ] {
        let address = ([127, 0, 0, 1], 0).into();
        let receiver = Receiver::at(address, Some(shown.server())).await;
        let roots = Roots::Own(trusted.clone().into_bytes());
        let wire = Wire::new("127.0.0.1", receiver.address.port(), false, &roots).unwrap();
        let way = Way::Webhook(WebhookSink::new(wire, true, "/".to_owned(), key()));
        f.parts.sinks.push(sink(name, way));
        receivers.push(receiver);
    }
    let sinks = f.parts.sinks.clone();
    let s = Stage::of(told(f, sinks).await).await;
    s.asked().await;
    receivers[0].waits_for("elevation.requested").await;
    let tried = "SELECT COUNT(*) FROM notice_sinks WHERE tries > 0";
    until("the others are tried", async || number(&s.f, tried).await == 2).await;
    assert!(receivers[1].came().is_empty() && receivers[2].came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_breaks_the_glass_where_nobody_else_hears_of_it() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.group("alone", &["carol"]).await;
        let reviewer_groups = vec!["alone".to_owned()];
        s.put(ElevationRole { reviewer_groups, ..glass::glass() }).await.unwrap();
        let refused = ask(&s.carol, glass::emergency()).await.unwrap_err();
        assert!(refused.message().contains("nobody would hear of it"), "{refused}");
        register(&s.f, "robot", "pipeline", "admin").await;
        s.join("alone", "robot").await;
        s.join("alone", "erin").await;
        let asked = ask(&s.carol, glass::emergency()).await.unwrap();
        suspend(&s, "erin").await;
        authenticator(&s.f, &s.carol, "carol").await;
        let refused = activate(&s.carol, &asked).await.unwrap_err();
        assert!(refused.message().contains("nobody would hear of it"), "{refused}");
        s.join("alone", "dave").await;
        let active = activate(&s.carol, &asked).await.unwrap();
        assert_eq!(active.state, "active", "{}", active.why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_take_no_humans_place_and_who_is_suspended_is_told_nothing() {
    // The embedded store alone: two hundred are registered one by one.
    let receiver = Receiver::new().await;
    let f = told(Fixture::new().await, vec![posts_to(&receiver)]).await;
    let s = Stage::of(f).await;
    // As many as are named of a group, all before the first human by name.
    for number in 0..200 {
        let name = format!("a{number:03}");
        register(&s.f, &name, "pipeline", "admin").await;
        s.join("security", &name).await;
    }
    suspend(&s, "erin").await;
    s.asked().await;
    let asked = receiver.waits_for("elevation.requested").await.json();
    assert_eq!(people(&asked), ["security:dave"]);
}

async fn suspend(s: &Stage, name: &str) {
    let request = SuspendIdentityRequest { name: name.to_owned(), ..Default::default() };
    let mut identities = IdentityServiceClient::new(s.admin.clone());
    identities.suspend_identity(request).await.unwrap();
}
