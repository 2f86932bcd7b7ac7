//! The rules of approval.

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    PutDatabaseRoleRequest, ResumeIdentityRequest, SuspendIdentityRequest, TransferIdentityRequest,
    UpdateIdentityRequest,
};

use super::*;
use crate::support::logins::{login, machine, register, registration};
use crate::support::target::World;

/// Registers a human of a person, and connects as it.
pub(super) async fn account(s: &Stage, by: &Channel, name: &str, person: &str) -> Channel {
    let mut client = IdentityServiceClient::new(by.clone());
    let person = person.to_owned();
    let account =
        strongroom::proto::CreateIdentityRequest { person, ..registration(name, "human", "") };
    client.create_identity(account).await.unwrap();
    let channel = s.f.connect(&login(&s.f, name).await).await;
    step_up(&s.f, &channel, name, None).await;
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_they_asked_for_by_any_account() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let one = account(&s, &s.admin, "grace", "grace-hopper").await;
        let other = account(&s, &s.admin, "grace-admin", "grace-hopper").await;
        let two = s.f.connect(&login(&s.f, "grace").await).await;
        for name in ["carol", "grace", "grace-admin"] {
            s.join("security", name).await;
        }
        let requesters = vec!["carol".to_owned(), "grace".to_owned()];
        s.put(ElevationRole { requesters, ..role() }).await.unwrap();
        let asked = s.asked().await;
        assert_eq!(code(approve(&s.carol, &asked).await), Code::PermissionDenied);
        let asked = ask(&one, request()).await.unwrap();
        for account in [&one, &two, &other] {
            let refusal = approve(account, &asked).await.unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied);
            assert!(refusal.message().contains("whichever account"), "{refusal}");
            assert_eq!(code(deny(account, &asked).await), Code::PermissionDenied);
        }
        let after = show(&one, &asked.id).await.unwrap();
        assert_eq!((after.state.as_str(), after.votes.len()), ("awaiting-approval", 0));
        assert_eq!(approve(&s.dave, &asked).await.unwrap().state, "scheduled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_for_a_machine_that_they_own_or_owned_today_and_no_machine_approves() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.group("owners", &["erin"]).await;
        register(&s.f, "etl", "pipeline", "dave").await;
        let etl = s.f.connect(&login(&s.f, "etl").await).await;
        let robot = machine(&s.f, "robot").await;
        let frank = account(&s, &s.admin, "frank", "").await;
        for name in ["robot", "frank"] {
            s.join("security", name).await;
        }
        s.put(ElevationRole { requesters: vec!["etl".to_owned()], ..role() }).await.unwrap();
        let ask = async || ask(&etl, request()).await.unwrap();
        let asked = ask().await;
        assert_eq!(code(approve(&s.dave, &asked).await), Code::PermissionDenied);
        // One that may not vote is told no more than one that may not look.
        assert_eq!(code(approve(&robot, &asked).await), Code::NotFound);
        let transfer = async |owner: &str, group: &str| {
            let request = TransferIdentityRequest {
                name: "etl".to_owned(),
                owner: owner.to_owned(),
                owner_group: group.to_owned(),
                ..Default::default()
            };
            let mut client = IdentityServiceClient::new(s.admin.clone());
            client.transfer_identity(request).await.unwrap();
        };
        transfer("", "owners").await;
        for asked in [asked, ask().await] {
            for owner in [&s.dave, &s.erin] {
                assert_eq!(code(approve(owner, &asked).await), Code::PermissionDenied);
            }
        }
        transfer("carol", "").await;
        let asked = ask().await;
        for owner in [&s.dave, &s.erin] {
            assert_eq!(code(approve(owner, &asked).await), Code::PermissionDenied, "owned today");
        }
        assert_eq!(approve(&frank, &asked).await.unwrap().state, "scheduled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_that_who_asks_or_an_account_of_theirs_made() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        // Two administrators: what admin made, admin2 may have approved by others alone.
        let admin2 = human(&s.f, "admin2").await;
        s.join("administrators", "admin2").await;
        let made = account(&s, &admin2, "made", "").await;
        s.join("security", "made").await;
        let requesters = vec!["carol".to_owned(), "admin".to_owned(), "admin2".to_owned()];
        s.put(ElevationRole { requesters, ..role() }).await.unwrap();
        let theirs = async |by: &Channel, asked: &Elevation| {
            let refusal = approve(by, asked).await.unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied);
            assert!(refusal.message().contains("made or changed"), "{refusal}");
        };
        // Its account was made by who asks.
        theirs(&made, &ask(&admin2, request()).await.unwrap()).await;
        // Role, membership and account were made by who asks.
        theirs(&s.dave, &ask(&s.admin, request()).await.unwrap()).await;
        // The role was made by an account that who asks made.
        let by_hand = ElevationRole { name: "other".to_owned(), ..role() };
        s.join("administrators", "made").await;
        put(&made, ElevationRole { requesters: vec!["admin2".to_owned()], ..by_hand })
            .await
            .unwrap();
        let other = RequestElevationRequest { role: "other".to_owned(), ..request() };
        theirs(&s.dave, &ask(&admin2, other).await.unwrap()).await;
        assert_eq!(approve(&made, &s.asked().await).await.unwrap().state, "scheduled");
        // An account makes the next, and that approves.
        let puppet = account(&s, &made, "puppet", "").await;
        s.join("security", "puppet").await;
        theirs(&puppet, &ask(&admin2, request()).await.unwrap()).await;
        // An account that somebody else changed since is still one that who asks changed.
        for (by, purpose) in [(&admin2, "one"), (&s.admin, "two")] {
            let (name, purpose) = ("erin".to_owned(), Some(purpose.to_owned()));
            let change = UpdateIdentityRequest { name, purpose, ..Default::default() };
            IdentityServiceClient::new(by.clone()).update_identity(change).await.unwrap();
        }
        theirs(&s.erin, &ask(&admin2, request()).await.unwrap()).await;
        approve(&s.erin, &s.asked().await).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_come_in_order_and_one_person_counts_once() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let one = account(&s, &s.admin, "grace", "grace-hopper").await;
        let other = account(&s, &s.admin, "grace-too", "grace-hopper").await;
        s.group("boards", &["erin", "grace-too"]).await;
        s.join("security", "grace").await;
        let steps = vec![step(2, &["security"]), step(1, &["boards"])];
        s.put(ElevationRole { steps, ..role() }).await.unwrap();
        let asked = s.asked().await;
        let board = approve(&other, &asked).await.unwrap_err();
        assert_eq!(board.code(), Code::PermissionDenied, "its step is not yet");
        assert_eq!(approve(&s.dave, &asked).await.unwrap().step, 1);
        let twice = approve(&s.dave, &asked).await.unwrap_err();
        assert!(twice.message().contains("once"), "{twice}");
        let second = approve(&one, &asked).await.unwrap();
        assert_eq!((second.state.as_str(), second.step), ("awaiting-approval", 2));
        assert_eq!(code(approve(&other, &asked).await), Code::PermissionDenied, "same person");
        let done = approve(&s.erin, &asked).await.unwrap();
        assert_eq!((done.state.as_str(), done.votes.len()), ("scheduled", 3));
        assert_eq!(activate(&s.carol, &done).await.unwrap().state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approvers_may_shorten_and_never_widen_and_so_many_denials_end_it_as_the_role_says() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let twice = ElevationRole { steps: vec![step(2, &["security"])], denials: 2, ..role() };
        s.put(twice).await.unwrap();
        let asked = s.asked().await;
        assert_eq!(code(approve_for(&s.dave, &asked, 601).await), Code::InvalidArgument);
        assert_eq!(code(approve_for(&s.dave, &asked, -1).await), Code::InvalidArgument);
        let shorter = approve_for(&s.dave, &asked, 300).await.unwrap();
        assert_eq!((shorter.ttl_s, shorter.scope_hash.as_str()), (300, &*asked.scope_hash));
        assert_eq!(code(approve_for(&s.erin, &asked, 301).await), Code::InvalidArgument);
        let done = approve(&s.erin, &asked).await.unwrap();
        let active = activate(&s.carol, &done).await.unwrap();
        assert_eq!(active.ends_at_ms, active.activated_at_ms + 300_000);
        let asked = s.asked().await;
        assert_eq!(deny(&s.dave, &asked).await.unwrap().state, "awaiting-approval");
        assert_eq!(code(deny(&s.dave, &asked).await), Code::PermissionDenied, "one person once");
        assert_eq!(code(approve(&s.dave, &asked).await), Code::PermissionDenied);
        assert_eq!(deny(&s.erin, &asked).await.unwrap().state, "denied");
        assert_eq!(code(approve(&s.erin, &asked).await), Code::FailedPrecondition);
        // Who approved and denies then has thought better of it.
        let asked = s.asked().await;
        approve(&s.dave, &asked).await.unwrap();
        let denied = deny(&s.dave, &asked).await.unwrap();
        assert_eq!((denied.state.as_str(), denied.votes.len()), ("awaiting-approval", 1));
        assert_eq!(approve(&s.erin, &asked).await.unwrap().state, "awaiting-approval");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_holds_while_approver_and_role_are_as_they_were() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.group("team", &[]).await;
        let suspended = s.approved().await;
        let (open, approved) = (s.asked().await, s.approved().await);
        let resumed = s.approved().await;
        let (name, reason) = ("dave".to_owned(), String::new());
        let contain = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        identities.suspend_identity(contain).await.unwrap();
        let failed = activate(&s.carol, &suspended).await.unwrap();
        assert_eq!(failed.state, "activation-failed");
        assert!(failed.why.contains("suspended"), "{}", failed.why);
        // What they were contained for took their approvals with it.
        identities.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        let void = activate(&s.carol, &resumed).await.unwrap();
        assert_eq!(void.state, "activation-failed");
        assert!(void.why.contains("suspended"), "{}", void.why);
        assert_eq!(code(activate(&s.carol, &failed).await), Code::FailedPrecondition);
        s.put(ElevationRole { purpose: "another".to_owned(), ..role() }).await.unwrap();
        let refusal = approve(&s.erin, &open).await.unwrap_err();
        assert!(refusal.message().contains("changed since"), "{refusal}");
        assert_eq!(activate(&s.carol, &approved).await.unwrap().state, "activation-failed");
        // The hash of another request, or of none, approves nothing.
        let (one, other) = (s.asked().await, s.asked().await);
        for scope_hash in [other.scope_hash.clone(), String::new(), "00".repeat(32)] {
            let forged = Elevation { scope_hash, ..one.clone() };
            assert_eq!(code(approve(&s.erin, &forged).await), Code::FailedPrecondition);
        }
        // A requester that the role no longer names.
        let approved = approve(&s.erin, &one).await.unwrap();
        s.put(ElevationRole { requesters: vec!["dave".to_owned()], ..role() }).await.unwrap();
        assert_eq!(activate(&s.carol, &approved).await.unwrap().state, "activation-failed");
    }
}

/// Asks for what stands on a machine and on a role of a database.
async fn on_resources(s: &Stage) -> Elevation {
    let resources = vec!["identities/etl".to_owned(), "database/analytics/reader".to_owned()];
    ask(&s.carol, RequestElevationRequest { role: "wide".into(), resources, ..request() })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_changed_since_voids_what_was_asked_for_and_what_was_approved() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let another = PutDatabaseRoleRequest { max_ttl_s: 7_200, ..w.role() };
        let mut database = w.database_client();
        let s = Stage::of(w.f).await;
        register(&s.f, "etl", "pipeline", "dave").await;
        let wide = ElevationRole {
            name: "wide".to_owned(),
            resources: vec!["identities/*".to_owned(), "database/**".to_owned()],
            actions: vec!["identities.show".to_owned(), "database.credentials".to_owned()],
            ..role()
        };
        s.put(wide).await.unwrap();
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        for what in ["purpose", "owner", "database role"] {
            let (open, approved) = (on_resources(&s).await, on_resources(&s).await);
            let approved = approve(&s.erin, &approved).await.unwrap();
            let name = "etl".to_owned();
            match what {
                "purpose" => {
                    let purpose = Some("another".to_owned());
                    let change = UpdateIdentityRequest { name, purpose, ..Default::default() };
                    identities.update_identity(change).await.map(drop).unwrap();
                }
                "owner" => {
                    let owner = "carol".to_owned();
                    let change = TransferIdentityRequest { name, owner, ..Default::default() };
                    identities.transfer_identity(change).await.map(drop).unwrap();
                }
                _ => database.put_role(another.clone()).await.map(drop).unwrap(),
            }
            let refused = approve(&s.erin, &open).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{what}");
            assert!(refused.message().contains("changed since"), "{what}: {refused}");
            let failed = activate(&s.carol, &approved).await.unwrap();
            assert_eq!(failed.state, "activation-failed", "{what}");
            assert!(failed.why.contains("changed since"), "{what}: {}", failed.why);
        }
        // Asked for anew, it stands on what is there now.
        let anew = approve(&s.erin, &on_resources(&s).await).await.unwrap();
        assert_eq!(activate(&s.carol, &anew).await.unwrap().state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_of_all_that_is_asked_for_approve_where_the_role_says_so() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        for (name, owner) in [("one", "dave"), ("two", "dave"), ("three", "erin")] {
            register(&s.f, name, "pipeline", owner).await;
        }
        let owners = ElevationRole {
            resources: vec!["identities/*".to_owned()],
            actions: vec!["identities.show".to_owned()],
            steps: vec![ElevationStep { approvals: 1, groups: vec![], owners: true }],
            ..role()
        };
        s.put(owners).await.unwrap();
        let ask = async |names: &[&str]| {
            let resources = names.iter().map(|name| format!("identities/{name}")).collect();
            ask(&s.carol, RequestElevationRequest { resources, ..request() }).await
        };
        let asked = ask(&["one", "two"]).await.unwrap();
        assert_eq!(code(approve(&s.erin, &asked).await), Code::NotFound);
        assert_eq!(approve(&s.dave, &asked).await.unwrap().state, "scheduled");
        let mixed = ask(&["one", "three"]).await.unwrap();
        for owner in [&s.dave, &s.erin] {
            assert_eq!(code(approve(owner, &mixed).await), Code::NotFound, "not all are theirs");
        }
        assert_eq!(code(ask(&["none"]).await), Code::FailedPrecondition);
    }
}
