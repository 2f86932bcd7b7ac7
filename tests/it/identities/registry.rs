//! What an identity is registered with, how that changes, and how it leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, CreateGroupRequest, IssueLoginCertificateRequest,
    ListIdentitiesRequest, RemoveMemberRequest, ResumeIdentityRequest, RetireIdentityRequest,
    TransferIdentityRequest, UpdateIdentityRequest, add_grant_request,
};

use super::*;
use crate::support::logins::login;

const DAY: Duration = Duration::from_hours(24);

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn update(client: &mut Client, request: UpdateIdentityRequest) -> Result<Identity, Status> {
    let updated = client.update_identity(request).await?;
    Ok(updated.into_inner().identity.unwrap())
}

async fn transfer(client: &mut Client, name: &str, to: (&str, &str)) -> Result<Identity, Status> {
    let request = TransferIdentityRequest {
        name: name.to_owned(),
        owner: to.0.to_owned(),
        owner_group: to.1.to_owned(),
        reason: "a drill".to_owned(),
    };
    Ok(client.transfer_identity(request).await?.into_inner().identity.unwrap())
}

async fn suspend(client: &mut Client, name: &str) -> Result<(), Status> {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    client.suspend_identity(request).await.map(drop)
}

async fn resume(client: &mut Client, name: &str) -> Result<Identity, Status> {
    let request = ResumeIdentityRequest { name: name.to_owned(), reason: String::new() };
    Ok(client.resume_identity(request).await?.into_inner().identity.unwrap())
}

async fn retire(client: &mut Client, name: &str) -> Result<Identity, Status> {
    let request = RetireIdentityRequest { name: name.to_owned(), reason: "left".to_owned() };
    Ok(client.retire_identity(request).await?.into_inner().identity.unwrap())
}

async fn issue_cert(client: &mut Client, name: &str) -> Result<(), Status> {
    let request = IssueLoginCertificateRequest {
        name: name.to_owned(),
        csr_pem: csr().1,
        ..IssueLoginCertificateRequest::default()
    };
    client.issue_login_certificate(request).await.map(drop)
}

async fn team(f: &Fixture, name: &str, members: &[&str]) -> GroupServiceClient<Channel> {
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let request = CreateGroupRequest { name: name.to_owned(), ..CreateGroupRequest::default() };
    groups.create_group(request).await.unwrap();
    for member in members {
        let add = AddMemberRequest { group: name.to_owned(), identity: (*member).to_owned() };
        groups.add_member(add).await.unwrap();
    }
    groups
}

fn of_group(name: &str, group: &str) -> CreateIdentityRequest {
    CreateIdentityRequest {
        owner: String::new(),
        owner_group: group.to_owned(),
        ..registration(name, "pipeline", "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_keeps_needs_labels_and_person_and_a_machine_always_ends() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let carol = CreateIdentityRequest {
            person: "p-4711".into(),
            labels: labels(&[("team", "data"), ("site", "eu.1")]),
            ..registration("carol", "human", "")
        };
        let carol = create(&mut client, carol).await.unwrap();
        assert_eq!((carol.person.as_str(), carol.state.as_str()), ("p-4711", "registered"));
        let dave = create(&mut client, registration("dave", "human", "")).await.unwrap();
        assert_eq!(dave.person, dave.id, "a person of its own");
        let etl = CreateIdentityRequest {
            needs: "reads analytics".into(),
            labels: labels(&[("env", "prod")]),
            ttl_s: 0,
            ..registration("data/etl", "pipeline", "carol")
        };
        let etl = create(&mut client, etl).await.unwrap();
        assert_eq!((etl.needs.as_str(), etl.person.as_str()), ("reads analytics", ""));
        assert_eq!(etl.labels, labels(&[("env", "prod")]));
        let lasts = etl.expires_at_ms - etl.created_at_ms;
        assert_eq!(lasts, i64::try_from(90 * DAY.as_millis()).unwrap());
        assert_eq!(show(&mut client, "data/etl").await.unwrap(), etl);
        // A second account of one person is found by it.
        let second = CreateIdentityRequest {
            person: "p-4711".into(),
            ..registration("carol-admin", "human", "")
        };
        create(&mut client, second).await.unwrap();
        let request =
            ListIdentitiesRequest { person: "p-4711".into(), ..ListIdentitiesRequest::default() };
        let page = client.list_identities(request).await.unwrap().into_inner();
        let names: Vec<_> = page.identities.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["carol", "carol-admin"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_canonical_in_a_registration_or_a_change_changes_nothing() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    register(&f, "carol", "human", "").await;
    register(&f, "etl", "pipeline", "carol").await;
    team(&f, "empty", &[]).await;
    team(&f, "robots", &["etl"]).await;
    let many: BTreeMap<_, _> = (0..33).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    let base = || registration("new", "pipeline", "carol");
    let human = || registration("new", "human", "");
    let (invalid, failed) = (Code::InvalidArgument, Code::FailedPrecondition);
    for (request, code) in [
        (CreateIdentityRequest { labels: labels(&[("Team", "data")]), ..base() }, invalid),
        (CreateIdentityRequest { labels: labels(&[("team", "a b")]), ..base() }, invalid),
        (CreateIdentityRequest { labels: labels(&[("team", "")]), ..base() }, invalid),
        (CreateIdentityRequest { labels: labels(&[("a\"b", "x")]), ..base() }, invalid),
        (CreateIdentityRequest { labels: many, ..base() }, invalid),
        (CreateIdentityRequest { needs: "a\u{202e}b".into(), ..base() }, invalid),
        (CreateIdentityRequest { person: "p-1".into(), ..base() }, invalid),
        (CreateIdentityRequest { person: "P 1".into(), ..human() }, invalid),
        (CreateIdentityRequest { person: "a/b".into(), ..human() }, invalid),
        (CreateIdentityRequest { owner_group: "empty".into(), ..base() }, invalid),
        (CreateIdentityRequest { owner_group: "empty".into(), ..human() }, invalid),
        (of_group("new", "empty"), failed),
        (of_group("new", "robots"), failed),
        (of_group("new", "nobody"), Code::NotFound),
    ] {
        let refusal = create(&mut client, request.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{request:?}: {refusal}");
    }
    assert_eq!(show(&mut client, "new").await.unwrap_err().code(), Code::NotFound);
    let before = show(&mut client, "etl").await.unwrap();
    let base = || UpdateIdentityRequest { name: "etl".into(), ..UpdateIdentityRequest::default() };
    for (request, code) in [
        (UpdateIdentityRequest { tier: Some("LOW".into()), ..base() }, invalid),
        (UpdateIdentityRequest { purpose: Some(String::new()), ..base() }, invalid),
        (UpdateIdentityRequest { ttl_s: Some(0), ..base() }, invalid),
        (UpdateIdentityRequest { ttl_s: Some(-1), ..base() }, invalid),
        (UpdateIdentityRequest { ttl_s: Some(366 * 86_400), ..base() }, invalid),
        (UpdateIdentityRequest { set_labels: labels(&[("a", "B")]), ..base() }, invalid),
        (
            UpdateIdentityRequest {
                set_labels: labels(&[("a", "b")]),
                remove_labels: vec!["a".into()],
                ..base()
            },
            invalid,
        ),
        (UpdateIdentityRequest { name: "nobody".into(), ..base() }, Code::NotFound),
        (UpdateIdentityRequest { name: "Etl".into(), ..base() }, invalid),
    ] {
        let refusal = update(&mut client, request.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{request:?}: {refusal}");
    }
    assert_eq!(update(&mut client, base()).await.unwrap(), before, "nothing asked, nothing done");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names_and_leaves_the_rest() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        register(&f, "carol", "human", "").await;
        let request = CreateIdentityRequest {
            labels: labels(&[("env", "dev"), ("team", "data")]),
            ..registration("etl", "pipeline", "carol")
        };
        let before = create(&mut client, request).await.unwrap();
        let request = UpdateIdentityRequest {
            name: "etl".into(),
            tier: Some("critical".into()),
            needs: Some("production".into()),
            set_labels: labels(&[("env", "prod")]),
            remove_labels: vec!["team".into(), "never-there".into()],
            ttl_s: Some(86_400),
            ..UpdateIdentityRequest::default()
        };
        let after = update(&mut client, request.clone()).await.unwrap();
        assert_eq!(after.labels, labels(&[("env", "prod")]));
        assert_eq!((after.tier.as_str(), after.needs.as_str()), ("critical", "production"));
        assert_eq!(after.expires_at_ms - after.changed_at_ms, 86_400_000);
        assert_eq!((after.purpose, after.owner), (before.purpose, before.owner));
        assert_eq!(after.row_version, before.row_version + 1);
        assert_eq!(show(&mut client, "etl").await.unwrap().labels, labels(&[("env", "prod")]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_tells_what_an_update_or_a_transfer_changed_and_what_it_was() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        register(&f, "carol", "human", "").await;
        let request = CreateIdentityRequest {
            labels: labels(&[("env", "dev"), ("team", "data")]),
            ..registration("etl", "pipeline", "carol")
        };
        let before = create(&mut client, request).await.unwrap();
        let base =
            || UpdateIdentityRequest { name: "etl".into(), ..UpdateIdentityRequest::default() };
        let request = UpdateIdentityRequest {
            tier: Some("critical".into()),
            purpose: Some("\"; was: nothing".into()),
            set_labels: labels(&[("env", "prod"), ("site", "eu")]),
            remove_labels: vec!["team".into()],
            ..base()
        };
        update(&mut client, request.clone()).await.unwrap();
        let ended = UpdateIdentityRequest { ttl_s: Some(3_600), ..base() };
        let after = update(&mut client, ended).await.unwrap();
        let same = update(&mut client, request).await.unwrap();
        assert_eq!(same.row_version, after.row_version);
        transfer(&mut client, "etl", ("admin", "")).await.unwrap();
        let end = |of: &Identity| strongroom::types::UnixMillis(of.expires_at_ms).to_string();
        // Of what is given its place in one step, the lanes tell the order, not the time.
        let mut told = details(&f, "identities.update").await;
        told.sort_unstable();
        assert_eq!(
            told,
            [
                format!("end {}; was: end {}", end(&after), end(&before)),
                "nothing changed".to_owned(),
                "purpose \"\\\"; was: nothing\", tier critical, label env \"prod\", \
                 label site \"eu\", label team none; was: purpose \"a test\", tier low, \
                 label env \"dev\", label site none, label team \"data\""
                    .to_owned(),
            ]
        );
        assert_eq!(details(&f, "identities.transfer").await, ["owner: admin; was: carol"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_end_brings_nothing_back_that_the_old_one_ended() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let mut etl = Client::new(machine(&f, "etl").await);
    let end = |ttl_s| UpdateIdentityRequest {
        name: "etl".into(),
        ttl_s: Some(ttl_s),
        ..UpdateIdentityRequest::default()
    };
    update(&mut client, end(60)).await.unwrap();
    etl.who_am_i(WhoAmIRequest {}).await.unwrap();
    f.clock.advance(Duration::from_secs(61));
    assert_eq!(etl.who_am_i(WhoAmIRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    update(&mut client, end(86_400)).await.unwrap();
    assert_eq!(etl.who_am_i(WhoAmIRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let anew = f.connect(&login(&f, "etl").await).await;
    Client::new(anew).who_am_i(WhoAmIRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_active_from_its_first_credential_on() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        register(&f, "carol", "human", "").await;
        assert_eq!(show(&mut client, "carol").await.unwrap().state, "registered");
        // What was never issued anything goes back to where it was.
        suspend(&mut client, "carol").await.unwrap();
        let refusal = issue_cert(&mut client, "carol").await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "nobody answers for her");
        assert_eq!(resume(&mut client, "carol").await.unwrap().state, "registered");
        issue_cert(&mut client, "carol").await.unwrap();
        let active = show(&mut client, "carol").await.unwrap();
        assert_eq!((active.state.as_str(), active.changed_by.as_str()), ("active", "admin"));
        issue_cert(&mut client, "carol").await.unwrap();
        assert_eq!(show(&mut client, "carol").await.unwrap().row_version, active.row_version);
        suspend(&mut client, "carol").await.unwrap();
        assert_eq!(resume(&mut client, "carol").await.unwrap().state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_answers_for_a_machine_while_one_active_human_is_in_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut carol = Client::new(human(&f, "carol").await);
        register(&f, "dave", "human", "").await;
        register(&f, "robot", "agent", "admin").await;
        let mut groups = team(&f, "data", &["carol", "dave", "robot"]).await;
        let etl = create(&mut client, of_group("etl", "data")).await.unwrap();
        assert_eq!((etl.owner.as_str(), etl.owner_group.as_str()), ("", "data"));
        assert!(etl.owner_active);
        // A human of the group acts as its owner; who is not in it does not.
        issue_cert(&mut carol, "etl").await.unwrap();
        assert_eq!(show(&mut carol, "etl").await.unwrap().owner_group, "data");
        let mut erin = Client::new(human(&f, "erin").await);
        assert_eq!(issue_cert(&mut erin, "etl").await.unwrap_err().code(), Code::PermissionDenied);
        let mut robot = Client::new(f.connect(&login(&f, "robot").await).await);
        assert_eq!(show(&mut robot, "etl").await.unwrap_err().code(), Code::PermissionDenied);
        // One of two humans is enough, whichever it is.
        suspend(&mut client, "carol").await.unwrap();
        issue_cert(&mut client, "etl").await.unwrap();
        let remove = RemoveMemberRequest { group: "data".into(), identity: "dave".into() };
        groups.remove_member(remove).await.unwrap();
        let refusal = issue_cert(&mut client, "etl").await.unwrap_err();
        assert_eq!(
            refusal.code(),
            Code::PermissionDenied,
            "a machine in the group answers nothing"
        );
        assert!(!show(&mut client, "etl").await.unwrap().owner_active);
        let add = AddMemberRequest { group: "data".into(), identity: "erin".into() };
        groups.add_member(add).await.unwrap();
        issue_cert(&mut erin, "etl").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_for_the_owner_and_administrators_and_remembers_who_had_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut carol = Client::new(human(&f, "carol").await);
        let mut dave = Client::new(human(&f, "dave").await);
        register(&f, "gone", "human", "").await;
        suspend(&mut client, "gone").await.unwrap();
        register(&f, "etl", "pipeline", "carol").await;
        team(&f, "data", &["dave"]).await;
        team(&f, "empty", &[]).await;
        for (to, code) in [
            (("", ""), Code::InvalidArgument),
            (("dave", "data"), Code::InvalidArgument),
            (("nobody", ""), Code::FailedPrecondition),
            (("gone", ""), Code::FailedPrecondition),
            (("etl", ""), Code::FailedPrecondition),
            (("", "empty"), Code::FailedPrecondition),
        ] {
            assert_eq!(transfer(&mut carol, "etl", to).await.unwrap_err().code(), code, "{to:?}");
        }
        let denied = Code::PermissionDenied;
        assert_eq!(transfer(&mut dave, "etl", ("dave", "")).await.unwrap_err().code(), denied);
        let mine = transfer(&mut carol, "carol", ("dave", "")).await.unwrap_err();
        assert_eq!(mine.code(), denied);
        let theirs = transfer(&mut client, "carol", ("dave", "")).await.unwrap_err();
        assert_eq!(theirs.code(), Code::FailedPrecondition);
        let now = transfer(&mut carol, "etl", ("", "data")).await.unwrap();
        assert_eq!((now.owner_group.as_str(), now.owned_since_ms), ("data", now.changed_at_ms));
        let former: Vec<_> = now.former_owners.iter().map(|one| one.owner.as_str()).collect();
        assert_eq!(former, ["carol"]);
        assert_eq!(now.former_owners[0].until_ms, now.changed_at_ms);
        assert_eq!(transfer(&mut carol, "etl", ("carol", "")).await.unwrap_err().code(), denied);
        let same = transfer(&mut client, "etl", ("", "data")).await.unwrap();
        assert_eq!(same.row_version, now.row_version, "nothing changed hands");
        let back = transfer(&mut dave, "etl", ("carol", "")).await.unwrap();
        let former: Vec<_> =
            back.former_owners.iter().map(|one| one.owner_group.as_str()).collect();
        assert_eq!(former, ["", "data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_for_something_is_not_retired_before_it_is_transferred() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut carol = Client::new(human(&f, "carol").await);
        register(&f, "etl", "pipeline", "carol").await;
        register(&f, "bot", "agent", "carol").await;
        let refusal = retire(&mut client, "carol").await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert!(refusal.message().contains('2'), "{refusal}");
        carol.who_am_i(WhoAmIRequest {}).await.unwrap();
        // Suspended owners are listed by what they leave behind, and it can be given away.
        suspend(&mut client, "carol").await.unwrap();
        let orphaned = ListIdentitiesRequest { orphaned: true, ..Default::default() };
        let page = client.list_identities(orphaned.clone()).await.unwrap().into_inner();
        let names: Vec<_> = page.identities.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["bot", "etl"], "not who left them behind");
        assert!(!page.identities[0].owner_active);
        let later = UpdateIdentityRequest {
            name: "etl".into(),
            ttl_s: Some(200 * 86_400),
            ..UpdateIdentityRequest::default()
        };
        let refusal = update(&mut client, later.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "it receives nothing new");
        let refusal = issue_cert(&mut client, "etl").await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        transfer(&mut client, "etl", ("admin", "")).await.unwrap();
        update(&mut client, later).await.unwrap();
        retire(&mut client, "bot").await.unwrap();
        let page = client.list_identities(orphaned).await.unwrap().into_inner();
        assert!(page.identities.is_empty(), "all is seen to: {:?}", page.identities);
        assert_eq!(retire(&mut client, "carol").await.unwrap().state, "retired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_retired_never_comes_back_and_its_name_neither() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut carol = Client::new(human(&f, "carol").await);
        let retired = retire(&mut client, "carol").await.unwrap();
        assert_eq!(retire(&mut client, "carol").await.unwrap(), retired, "once is enough");
        let dead = carol.who_am_i(WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(dead.code(), Code::Unauthenticated);
        let failed = Code::FailedPrecondition;
        assert_eq!(resume(&mut client, "carol").await.unwrap_err().code(), failed);
        assert_eq!(suspend(&mut client, "carol").await.unwrap_err().code(), failed);
        let denied = Code::PermissionDenied;
        assert_eq!(issue_cert(&mut client, "carol").await.unwrap_err().code(), denied);
        let again = UpdateIdentityRequest { name: "carol".into(), ..Default::default() };
        assert_eq!(update(&mut client, again).await.unwrap_err().code(), failed);
        let mut grants = GrantServiceClient::new(f.connect(&f.admin).await);
        let grant = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity("carol".into())),
            action: "pki.sign".into(),
            resource: "pki/x".into(),
            ..AddGrantRequest::default()
        };
        assert_eq!(grants.add_grant(grant).await.unwrap_err().code(), failed);
        let mut groups = team(&f, "data", &[]).await;
        let add = AddMemberRequest { group: "data".into(), identity: "carol".into() };
        assert_eq!(groups.add_member(add).await.unwrap_err().code(), failed);
        let machine = create(&mut client, registration("etl", "pipeline", "carol")).await;
        assert_eq!(machine.unwrap_err().code(), failed);
        let taken = create(&mut client, registration("carol", "human", "")).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists);
        let last = retire(&mut client, "admin").await.unwrap_err();
        assert_eq!(last.code(), failed, "the last administrator stays");
        drop((client, carol, grants, groups));
        f.restart().await;
        let mut client = admin(&f).await;
        assert_eq!(show(&mut client, "carol").await.unwrap().state, "retired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retirement_that_races_with_registrations_leaves_nothing_without_an_owner() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let channel = f.connect(&f.admin).await;
        let (mut first, mut last) = (0, 0);
        for round in 0..24_u64 {
            let owner = format!("carol-{round}");
            register(&f, &owner, "human", "").await;
            let mut racing = tokio::task::JoinSet::new();
            for i in 0..4 {
                let (mut client, owner) = (Client::new(channel.clone()), owner.clone());
                racing.spawn(async move {
                    let request = registration(&format!("etl-{round}-{i}"), "pipeline", &owner);
                    create(&mut client, request).await.map(drop)
                });
            }
            // Every other time it has a start of its own.
            let ahead = if round % 2 == 0 { 0 } else { 10 };
            tokio::time::sleep(Duration::from_millis(ahead)).await;
            let retired = retire(&mut client, &owner).await.is_ok();
            let made = racing.join_all().await.into_iter().flatten().count();
            assert!(!retired || made == 0, "{backend:?}: retired with {made} machines");
            if retired { first += 1 } else { last += 1 }
        }
        assert!(last > 0, "{backend:?}: {first} retired, {last} not");
    }
}
