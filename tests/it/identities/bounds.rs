//! What one bad row, one start, one policy or one eager owner must not bring about.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use strongroom::Result as Answer;
use strongroom::engines::pki::{IssueLogin, LoginIssued, LoginTtl, Request};
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    AddMemberRequest, CreateGroupRequest, EntryFilter, IssueCredentialsRequest, Lifecycle,
    ListEntriesRequest, PutConnectionRequest, PutDatabaseRoleRequest, PutLifecycleRequest,
    RetireIdentityRequest, TransferIdentityRequest,
};
use strongroom::server::Node;
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, RequestContext};
use strongroom::vault::{Decision, Operation, Resource, Verb, View, WRITES};

use super::*;
use crate::support::hand::Hand;
use crate::support::logins::{fingerprint, login};
use crate::support::target::{World, ask, issue, until};

const DAY_S: i64 = 86_400;

fn hand(f: &Fixture) -> Hand {
    Hand::new(&f.parts.location)
}

async fn state(f: &Fixture, name: &str) -> String {
    hand(f).ask(&format!("SELECT state FROM identities WHERE name = '{name}'")).await.concat()
}

async fn epoch(f: &Fixture) -> String {
    hand(f).ask("SELECT '' || epoch FROM authority").await.concat()
}

async fn suspend(client: &mut Client, name: &str) -> Result<(), Status> {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    client.suspend_identity(request).await.map(drop)
}

async fn retire(client: &mut Client, name: &str) -> Result<(), Status> {
    let request = RetireIdentityRequest { name: name.to_owned(), reason: String::new() };
    client.retire_identity(request).await.map(drop)
}

async fn transfer(client: &mut Client, name: &str, to: (&str, &str)) -> Result<(), Status> {
    let request = TransferIdentityRequest {
        name: name.to_owned(),
        owner: to.0.to_owned(),
        owner_group: to.1.to_owned(),
        reason: "a drill".to_owned(),
    };
    client.transfer_identity(request).await.map(drop)
}

fn rests(kind: &str, life_s: i64, dormant_after_s: i64) -> Lifecycle {
    Lifecycle {
        kind: kind.to_owned(),
        max_ttl_s: life_s,
        max_age_s: life_s,
        rotation_s: life_s,
        dormant_after_s,
        ..Lifecycle::default()
    }
}

async fn put(client: &mut Client, lifecycle: Lifecycle) -> Result<(), Status> {
    let request = PutLifecycleRequest { lifecycle: Some(lifecycle) };
    client.put_lifecycle(request).await.map(drop)
}

/// A row in the table of members that nobody sealed.
async fn forge_administrator(f: &Fixture, name: &str) {
    let hand = hand(f);
    let mac = hand.literal(&[0]);
    hand.run(&format!(
        "INSERT INTO members (id, group_id, identity_id, active, changed_at, changed_by, \
         row_version, seal_version, mac) SELECT 'ffffffff-0000-7000-8000-0000000000ff', g.id, \
         i.id, 1, 0, '', 1, 1, {mac} FROM groups g, identities i \
         WHERE g.name = 'administrators' AND i.name = '{name}'"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_row_keeps_nobody_from_being_contained() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut client = Client::new(w.admin.clone());
        register(&w.f, "dave", "human", "").await;
        register(&w.f, "other", "service", "admin").await;
        let mut groups = GroupServiceClient::new(w.admin.clone());
        let add = AddMemberRequest { group: "administrators".into(), identity: "dave".into() };
        groups.add_member(add).await.unwrap();
        w.issue().await.unwrap();
        hand(&w.f)
            .run("UPDATE credentials SET issued_at = issued_at + 1 WHERE kind = 'lease'")
            .await;
        forge_administrator(&w.f, "nightly-etl").await;
        suspend(&mut client, "nightly-etl").await.unwrap();
        assert_eq!(state(&w.f, "nightly-etl").await, "suspended", "{backend:?}");
        retire(&mut client, "nightly-etl").await.unwrap();
        assert_eq!(state(&w.f, "nightly-etl").await, "retired");
        suspend(&mut client, "other").await.unwrap();
        suspend(&mut client, "dave").await.unwrap();
        // Nobody is an administrator by a row that nobody sealed.
        let last = suspend(&mut client, "admin").await.unwrap_err();
        assert_eq!(last.code(), Code::FailedPrecondition, "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_target_or_lease_holds_up_the_end_of_no_other() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut databases = w.database_client();
        let other = PutConnectionRequest { name: "other".into(), ..w.connection() };
        databases.put_connection(other).await.unwrap();
        let role = PutDatabaseRoleRequest { connection: "other".into(), ..w.role() };
        databases.put_role(role).await.unwrap();
        w.grant("nightly-etl", |grant| strongroom::proto::AddGrantRequest {
            resource: "database/other/reader".into(),
            ..grant
        })
        .await
        .unwrap();
        w.issue().await.unwrap();
        let there = IssueCredentialsRequest { connection: "other".into(), ..ask() };
        let bad = issue(&w.etl, there.clone()).await.unwrap();
        let good = issue(&w.etl, there).await.unwrap();
        hand(&w.f)
            .run(&format!(
                "UPDATE db_targets SET tested_at = tested_at + 1 WHERE id = \
                 (SELECT target FROM db_connections WHERE name = 'analytics'); \
                 UPDATE credentials SET issued_at = issued_at + 1 WHERE id = '{}'",
                bad.lease_id
            ))
            .await;
        // Rights moved, so that the targets are looked at.
        register(&w.f, "somebody", "service", "admin").await;
        w.advance(601);
        let ended = format!("SELECT state FROM credentials WHERE id = '{}'", good.lease_id);
        until("the good one ends", async || hand(&w.f).ask(&ended).await.concat() == "ended").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_identity_holds_up_the_end_of_no_other() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        for (name, ttl_s) in [("bad", 3_000), ("over", 3_600)] {
            let over = CreateIdentityRequest { ttl_s, ..registration(name, "agent", "admin") };
            create(&mut admin(&f).await, over).await.unwrap();
        }
        hand(&f).run("UPDATE identities SET changed_at = changed_at + 1 WHERE name = 'bad'").await;
        f.clock.advance(Duration::from_hours(2));
        until("it is suspended", async || {
            // The worker waits for a whole minute after its start.
            f.clock.advance(Duration::from_secs(5));
            state(&f, "over").await == "suspended"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_in_which_nobody_was_served_makes_nobody_dormant() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        for (name, kind) in [("etl", "pipeline"), ("idle", "runner")] {
            let year =
                CreateIdentityRequest { ttl_s: 365 * DAY_S, ..registration(name, kind, "admin") };
            create(&mut admin(&f).await, year).await.unwrap();
            login(&f, name).await;
        }
        f.clock.advance(Duration::from_hours(20));
        f.admin = login(&f, "admin").await;
        f.clock.advance(Duration::from_hours(5));
        let etl = login(&f, "etl").await;
        Client::new(f.connect(&etl).await).who_am_i(WhoAmIRequest {}).await.unwrap();
        for kind in ["pipeline", "runner"] {
            put(&mut admin(&f).await, rests(kind, DAY_S, DAY_S)).await.unwrap();
        }
        f.node().vault.flush_usage().await.unwrap();
        f.node.take().unwrap().stop().await.unwrap();
        f.clock.advance(Duration::from_hours(100 * 24));
        f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(state(&f, "idle").await, "active", "not at once");
        f.clock.advance(Duration::from_hours(2));
        // Kinds are looked at in their order: runners come last.
        until("it is suspended", async || state(&f, "idle").await == "suspended").await;
        assert_eq!(state(&f, "etl").await, "active", "{backend:?}");
    }
}

/// Signs a login, and puts a policy between preparing and committing it.
struct Overtaken {
    login: IssueLogin,
    put: Mutex<Option<(Client, Lifecycle)>>,
}

#[async_trait]
impl Verb for Overtaken {
    const ACTION: &'static str = <IssueLogin as Verb>::ACTION;
    type Prepared = <IssueLogin as Verb>::Prepared;
    type Output = LoginIssued;

    async fn resources(&self, view: &View) -> Answer<Vec<Resource>> {
        self.login.resources(view).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Answer<Self::Prepared> {
        let prepared = self.login.prepare(view, decision).await?;
        let between = self.put.lock().take();
        if let Some((mut client, lifecycle)) = between {
            put(&mut client, lifecycle).await.unwrap();
        }
        Ok(prepared)
    }
}

#[async_trait]
impl Operation for Overtaken {
    const NEEDS: Needs = WRITES;

    fn needs(&self, prepared: &Self::Prepared) -> Needs {
        self.login.needs(prepared)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        decision: &Decision,
    ) -> Answer<LoginIssued> {
        self.login.commit(ctx, tx, prepared, decision).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_a_policy_overtakes_is_bounded_by_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        register(&f, "etl", "service", "admin").await;
        login(&f, "etl").await;
        let vault = &f.node().vault;
        let print = fingerprint(&f.admin.certificate_pem);
        let caller = vault.authenticate_certificate(print, |_| true).await.unwrap();
        let ctx = vault.context(Caller::Identity(caller), None).unwrap();
        let op = Overtaken {
            login: IssueLogin {
                authorities: f.node().life.authorities().clone(),
                limits: LoginTtl::default(),
                name: "etl".parse().unwrap(),
                request: Request::parse(csr().1.as_bytes()).unwrap(),
                ttl: None,
                retry: None,
            },
            put: Mutex::new(Some((admin(&f).await, rests("service", 3_600, 0)))),
        };
        let issued = vault.run(&ctx, op).await.unwrap();
        let lives = issued.row.expires_at.since(issued.row.issued_at);
        assert!(lives <= Duration::from_hours(1), "{backend:?}: {lives:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_changes_nothing_disturbs_nobody_and_one_that_does_names_both() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let mut carol = Client::new(human(&f, "carol").await);
        register(&f, "etl", "pipeline", "carol").await;
        register(&f, "gone", "pipeline", "carol").await;
        retire(&mut client, "gone").await.unwrap();
        let before = epoch(&f).await;
        transfer(&mut carol, "etl", ("carol", "")).await.unwrap();
        let retired = transfer(&mut carol, "gone", ("admin", "")).await.unwrap_err();
        assert_eq!(retired.code(), Code::FailedPrecondition);
        let unfit = transfer(&mut carol, "etl", ("gone", "")).await.unwrap_err();
        let unknown = transfer(&mut carol, "etl", ("nobody", "")).await.unwrap_err();
        assert_eq!(
            (unfit.code(), unfit.message()),
            (unknown.code(), unknown.message()),
            "who may not list learns no names"
        );
        let unknown = transfer(&mut client, "etl", ("nobody", "")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        assert_eq!(epoch(&f).await, before, "{backend:?}: nothing moved");
        // However often it goes to and fro, both are remembered once.
        for _ in 0..10 {
            transfer(&mut client, "etl", ("admin", "")).await.unwrap();
            transfer(&mut client, "etl", ("carol", "")).await.unwrap();
        }
        put(&mut client, rests("agent", 3_600, 0)).await.unwrap();
        f.node().vault.integrate().await.unwrap();
        let mut record = RecordServiceClient::new(f.connect(&f.admin).await);
        for (action, said) in [
            ("identities.transfer", "owner: carol; was: admin"),
            ("identities.put-policy", "agent: max_ttl_s 3600"),
            ("identities.put-policy", "was: max_ttl_s 2592000"),
        ] {
            let filter = EntryFilter { action: action.to_owned(), ..EntryFilter::default() };
            let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
            let page = record.list_entries(request).await.unwrap().into_inner();
            let found = page.entries.iter().any(|entry| entry.detail.contains(said));
            assert!(found, "{said}: {:?}", page.entries);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn humans_cannot_be_bounded_so_that_no_administrator_stays() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    for life_s in [60, 3_599] {
        let refused = put(&mut client, rests("human", life_s, 0)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    put(&mut client, rests("human", 3_600, 0)).await.unwrap();
    let dave = login_as_administrator(&f, "dave").await;
    suspend(&mut Client::new(dave), "admin").await.unwrap();
}

async fn login_as_administrator(f: &Fixture, name: &str) -> Channel {
    let channel = human(f, name).await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let add = AddMemberRequest { group: "administrators".into(), identity: name.to_owned() };
    groups.add_member(add).await.unwrap();
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_owns_machines_stays_small_enough_to_be_looked_through() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    for name in ["crowd", "team"] {
        let request = CreateGroupRequest { name: name.to_owned(), ..Default::default() };
        groups.create_group(request).await.unwrap();
    }
    register(&f, "carol", "human", "").await;
    for i in 0..256 {
        let name = format!("m-{i}");
        create(&mut client, registration(&name, "service", "admin")).await.unwrap();
        let add = AddMemberRequest { group: "crowd".into(), identity: name };
        groups.add_member(add).await.unwrap();
    }
    let carol =
        |group: &str| AddMemberRequest { group: group.to_owned(), identity: "carol".to_owned() };
    groups.add_member(carol("crowd")).await.unwrap();
    groups.add_member(carol("team")).await.unwrap();
    register(&f, "etl", "pipeline", "admin").await;
    let refused = transfer(&mut client, "etl", ("", "crowd")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let of_crowd = CreateIdentityRequest {
        owner: String::new(),
        owner_group: "crowd".to_owned(),
        ..registration("new", "pipeline", "")
    };
    let refused = create(&mut client, of_crowd).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let leave = strongroom::proto::RemoveMemberRequest {
        group: "crowd".to_owned(),
        identity: "m-0".to_owned(),
    };
    groups.remove_member(leave).await.unwrap();
    transfer(&mut client, "etl", ("", "crowd")).await.unwrap();
    let back = AddMemberRequest { group: "crowd".to_owned(), identity: "m-0".to_owned() };
    let refused = groups.add_member(back).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}
