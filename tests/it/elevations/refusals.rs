//! What is refused, and changes nothing.

use std::time::Duration;

use strongroom::proto::ElevationWindow;

use super::*;

/// An emergency that could rid itself of who reviews it.
fn against(action: &str) -> ElevationRole {
    ElevationRole {
        resources: vec!["groups/security".into(), "identities/dave".into()],
        actions: vec![action.into()],
        ..glass::glass()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_loosens_the_rules_is_refused_when_it_is_saved() {
    let s = Stage::new(Backend::Sqlite).await;
    let window = |from: &str, to: &str| ElevationWindow {
        days: vec![],
        from: from.to_owned(),
        to: to.to_owned(),
    };
    for (what, bad) in [
        ("no approval", ElevationRole { steps: vec![step(0, &["security"])], ..role() }),
        ("no step", ElevationRole { steps: vec![], ..role() }),
        ("nobody approves", ElevationRole { steps: vec![step(1, &[])], ..role() }),
        ("more than 8 h", ElevationRole { max_ttl_s: 28_801, ..role() }),
        ("negative", ElevationRole { max_ttl_s: -1, ..role() }),
        (
            "its own approval",
            ElevationRole { actions: vec!["elevations.approve".into()], ..role() },
        ),
        ("no action", ElevationRole { actions: vec!["database.everything".into()], ..role() }),
        ("no pattern", ElevationRole { resources: vec!["database//x".into()], ..role() }),
        ("no ticket", ElevationRole { ticket_pattern: "anything".into(), ..role() }),
        ("no window", ElevationRole { windows: vec![window("22:00", "22:00")], ..role() }),
        ("reserved", ElevationRole { name: "roles".into(), ..role() }),
        ("no name", ElevationRole { name: "A".into(), ..role() }),
        ("against reviewers", against("groups.remove")),
        ("against reviewers", against("identities.suspend")),
        ("against reviewers", against("identities.retire")),
        ("what stands", against("groups.add")),
        ("long", ElevationRole { purpose: "x".repeat(1 << 20), ..role() }),
    ] {
        assert_eq!(code(s.put(bad).await), Code::InvalidArgument, "{what}");
    }
    assert_eq!(code(put(&s.carol, role()).await), Code::PermissionDenied);
    assert_eq!(s.put(role()).await.unwrap().version, 1, "nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_role_does_not_cover_is_refused() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let strict = ElevationRole {
            name: "strict".to_owned(),
            reason_required: true,
            ticket_pattern: "OPS-#".to_owned(),
            ..role()
        };
        s.put(strict).await.unwrap();
        let strict = RequestElevationRequest {
            role: "strict".to_owned(),
            ticket: "OPS-12".to_owned(),
            ..request()
        };
        ask(&s.carol, strict.clone()).await.unwrap();
        let day = 86_400_000;
        let start = |at_ms| RequestElevationRequest { start_ms: at_ms, ..request() };
        let now = strict_now(&s);
        let on = |resources: &[&str]| {
            let resources = resources.iter().map(|one| (*one).to_owned()).collect();
            RequestElevationRequest { resources, ..request() }
        };
        let many: Vec<_> = (0..17).map(|i| format!("database/a/r{i}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for (what, bad, expected) in [
            ("no reason", RequestElevationRequest { reason: " ".into(), ..strict.clone() }, 3),
            ("no ticket", RequestElevationRequest { ticket: String::new(), ..strict.clone() }, 3),
            (
                "odd ticket",
                RequestElevationRequest { ticket: "OPS-1x".into(), ..strict.clone() },
                3,
            ),
            ("1 MiB", RequestElevationRequest { reason: "x".repeat(1 << 20), ..request() }, 3),
            ("line", RequestElevationRequest { reason: "a\nb".into(), ..request() }, 3),
            ("U+2028", RequestElevationRequest { ticket: "a\u{2028}b".into(), ..request() }, 3),
            ("too long", RequestElevationRequest { ttl_s: 7_201, ..request() }, 3),
            ("negative", RequestElevationRequest { ttl_s: i64::MIN, ..request() }, 3),
            ("past", start(now - 1_000), 3),
            ("far", start(now + 8 * day), 3),
            ("overflow", start(i64::MAX), 3),
            ("nothing", on(&[]), 3),
            ("too much", on(&many), 3),
            ("beyond", on(&["pki/web"]), 7),
            ("wider", on(&["database/**", "groups/*"]), 7),
            ("a wildcard administers nothing", on(&["groups/**"]), 7),
            ("no role", RequestElevationRequest { role: "none".into(), ..request() }, 5),
            ("no name", RequestElevationRequest { role: "../x".into(), ..request() }, 3),
            ("no key", RequestElevationRequest { idempotency_key: "x".into(), ..request() }, 3),
        ] {
            assert_eq!(code(ask(&s.carol, bad).await), Code::from(expected), "{what}");
        }
        assert_eq!(code(ask(&s.dave, request()).await), Code::PermissionDenied, "not a requester");
        assert_eq!(list(&s.admin).await.len(), 1, "nothing of it was stored");
        for id in ["", "x", "00000000-0000-0000-0000-00000000000G"] {
            let odd = Elevation { id: id.to_owned(), ..Default::default() };
            assert_eq!(code(show(&s.carol, id).await), Code::InvalidArgument);
            assert_eq!(code(activate(&s.carol, &odd).await), Code::InvalidArgument);
        }
        let none =
            Elevation { id: "00000000-0000-7000-8000-000000000000".into(), ..Default::default() };
        assert_eq!(code(show(&s.carol, &none.id).await), Code::NotFound);
        assert_eq!(code(approve(&s.dave, &none).await), Code::NotFound);
    }
}

fn strict_now(s: &Stage) -> i64 {
    use strongroom::types::Clock as _;
    s.f.clock.now().0
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_more_than_twenty_open_or_asks_for_more_than_sixty_within_an_hour() {
    let s = Stage::new(Backend::Sqlite).await;
    for _ in 0..20 {
        s.asked().await;
    }
    assert_eq!(code(ask(&s.carol, request()).await), Code::ResourceExhausted);
    let mut last = show(&s.carol, &list(&s.carol).await[0]).await.unwrap();
    for _ in 20..60 {
        withdraw(&s.carol, &last).await.unwrap();
        last = s.asked().await;
    }
    withdraw(&s.carol, &last).await.unwrap();
    let often = ask(&s.carol, request()).await.unwrap_err();
    assert!(often.message().contains("within an hour"), "{often}");
    s.f.clock.advance(Duration::from_secs(3_601));
    s.asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_approved_or_activated_in_its_hour_is_not_any_more() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let now = strict_now(&s);
        let later = RequestElevationRequest { start_ms: now + 1_800_000, ..request() };
        let (open, later) = (s.asked().await, ask(&s.carol, later).await.unwrap());
        let later = approve(&s.dave, &later).await.unwrap();
        let early = activate(&s.carol, &later).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition);
        assert!(early.message().contains("starts at"), "{early}");
        s.f.clock.advance(Duration::from_secs(3_601));
        assert_eq!(code(approve(&s.dave, &open).await), Code::FailedPrecondition);
        s.f.clock.advance(Duration::from_mins(30));
        assert_eq!(code(activate(&s.carol, &later).await), Code::FailedPrecondition);
        for over in [&open, &later] {
            assert_ne!(show(&s.carol, &over.id).await.unwrap().state, "active");
        }
        // From its start on, and an hour.
        s.step_up().await;
        let now = strict_now(&s);
        let later = RequestElevationRequest { start_ms: now + 1_800_000, ..request() };
        let later = approve(&s.dave, &ask(&s.carol, later).await.unwrap()).await.unwrap();
        s.f.clock.advance(Duration::from_secs(1_800 + 3_590));
        assert_eq!(activate(&s.carol, &later).await.unwrap().state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_in_force_within_its_change_windows_alone() {
    let s = Stage::new(Backend::Sqlite).await;
    let minute = |offset: i64| {
        let minutes = (strict_now(&s) / 60_000 + offset).rem_euclid(1_440);
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    };
    let window = |from, to| ElevationRole {
        windows: vec![ElevationWindow { days: vec![], from: minute(from), to: minute(to) }],
        ..role()
    };
    s.put(window(-30, 10)).await.unwrap();
    let asked = ask(&s.carol, RequestElevationRequest { ttl_s: 3_600, ..request() }).await.unwrap();
    let approved = approve(&s.dave, &asked).await.unwrap();
    let active = activate(&s.carol, &approved).await.unwrap();
    let lasts_s = (active.ends_at_ms - active.activated_at_ms) / 1_000;
    assert!((539..=600).contains(&lasts_s), "it ends with the window: {lasts_s}");
    revoke(&s.carol, &active).await.unwrap();
    s.put(window(30, 60)).await.unwrap();
    let closed = activate(&s.carol, &s.approved().await).await.unwrap_err();
    assert_eq!(closed.code(), Code::FailedPrecondition);
    let outside = RequestElevationRequest { start_ms: strict_now(&s) + 60_000, ..request() };
    assert_eq!(code(ask(&s.carol, outside).await), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_of_a_mebibyte_is_refused_wherever_one_is_given_and_changes_nothing() {
    let s = Stage::new(Backend::Sqlite).await;
    let reason = || "x".repeat(1 << 20);
    let mut carol = Client::new(s.carol.clone());
    let mut dave = Client::new(s.dave.clone());
    let active = s.active().await;
    let asked = s.asked().await;
    let (id, scope_hash) = (asked.id.clone(), asked.scope_hash.clone());
    let approve = ApproveElevationRequest { id, scope_hash, ttl_s: 0, reason: reason() };
    assert_eq!(code(dave.approve_elevation(approve).await), Code::InvalidArgument);
    let deny = DenyElevationRequest { id: asked.id.clone(), reason: reason() };
    assert_eq!(code(dave.deny_elevation(deny).await), Code::InvalidArgument);
    let revoke = RevokeElevationRequest { id: active.id.clone(), reason: reason() };
    assert_eq!(code(carol.revoke_elevation(revoke).await), Code::InvalidArgument);
    let (id, verdict) = (active.id.clone(), "accepted".to_owned());
    let review = strongroom::proto::ReviewElevationRequest { id, verdict, note: reason() };
    assert_eq!(code(dave.review_elevation(review).await), Code::InvalidArgument);
    for (reason, ticket) in [(reason(), String::new()), (String::new(), reason())] {
        let id = active.id.clone();
        let extend =
            strongroom::proto::ExtendElevationRequest { id, reason, ticket, ..Default::default() };
        assert_eq!(code(carol.extend_elevation(extend).await), Code::InvalidArgument);
    }
    let after = show(&s.carol, &asked.id).await.unwrap();
    assert_eq!((after.state.as_str(), after.votes.len()), ("awaiting-approval", 0));
    assert_eq!(show(&s.carol, &active.id).await.unwrap().state, "active");
    assert_eq!(list(&s.carol).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_what_the_role_does_not_cover_is_told_what_it_does() {
    let s = Stage::new(Backend::Sqlite).await;
    let below = ElevationRole {
        name: "below".to_owned(),
        resources: vec!["database/analytics/*".to_owned()],
        ..role()
    };
    s.put(below).await.unwrap();
    let on = |resource: &str| RequestElevationRequest {
        role: "below".to_owned(),
        resources: vec![resource.to_owned()],
        ..request()
    };
    for (wanted, allowed) in [
        ("database/analytics", false),
        ("database/analytics/reader", true),
        ("database/analytics/*", true),
        ("database/analytics/a/b", false),
    ] {
        match ask(&s.carol, on(wanted)).await {
            Ok(_) => assert!(allowed, "{wanted}"),
            Err(refused) => {
                assert!(!allowed, "{wanted}: {refused}");
                assert_eq!(refused.code(), Code::PermissionDenied, "{wanted}");
                let says = format!("the role covers database/analytics/*; {wanted} is not within");
                assert!(refused.message().contains(&says), "{refused}");
            }
        }
    }
}
