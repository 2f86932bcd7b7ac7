//! The root key and the keys of identities, rotated at the real socket, on both stores.

pub(crate) mod authorities;
mod identity;
mod kills;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strongroom::hsm::{Hsm, KeyKind};
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::root_service_client::RootServiceClient;
use strongroom::proto::{
    Entry, EntryFilter, GetRootRequest, ListEntriesRequest, PutSecretRequest, RetireRootRequest,
    RootKey, RotateRootRequest, ScheduleRootRequest,
};
use strongroom::server::Node;
use tonic::Code;
use tonic::transport::Channel;

use crate::keyring::fixture::Token;
use crate::secrets::{Place, client, get, put, request};
use crate::support::hand::Hand;
use crate::support::logins::register;
use crate::support::node::{BACKENDS, Backend, Fixture, pin};
use crate::support::target::until;

async fn admin(f: &Fixture) -> Channel {
    f.connect(&f.admin).await
}

async fn root(admin: &Channel) -> RootKey {
    let mut client = RootServiceClient::new(admin.clone());
    client.get_root(GetRootRequest {}).await.unwrap().into_inner().root.unwrap()
}

pub(crate) async fn rotate(admin: &Channel, expected_version: i64) -> Result<RootKey, Code> {
    let mut client = RootServiceClient::new(admin.clone());
    let rotated = client.rotate_root(RotateRootRequest { expected_version }).await;
    rotated.map(|it| it.into_inner().root.unwrap()).map_err(|status| status.code())
}

pub(crate) async fn retire(admin: &Channel, version: i64) -> Result<RootKey, Code> {
    let mut client = RootServiceClient::new(admin.clone());
    let retired = client.retire_root(RetireRootRequest { version }).await;
    retired.map(|it| it.into_inner().root.unwrap()).map_err(|status| status.code())
}

async fn schedule(admin: &Channel, rotate_every_s: i64) -> Result<RootKey, Code> {
    let mut client = RootServiceClient::new(admin.clone());
    let set = client.schedule_root(ScheduleRootRequest { rotate_every_s }).await;
    set.map(|it| it.into_inner().root.unwrap()).map_err(|status| status.code())
}

/// The versions and their states, the newest first.
fn states(root: &RootKey) -> Vec<(i64, &str)> {
    root.versions.iter().map(|it| (it.version, it.state.as_str())).collect()
}

pub(crate) async fn moved(admin: &Channel, from: i64) {
    until("all of it is moved", async || {
        let root = root(admin).await;
        let old = root.versions.iter().find(|it| it.version == from).unwrap();
        old.wraps == 0 && old.replaced.as_ref().is_some_and(|by| by.state == "moved")
    })
    .await;
}

async fn entries(f: &Fixture, action: &str) -> Vec<Entry> {
    f.node().vault.integrate().await.unwrap();
    let filter = EntryFilter { action: action.to_owned(), ..Default::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(admin(f).await);
    client.list_entries(request).await.unwrap().into_inner().entries
}

fn label(f: &Fixture, version: i64) -> String {
    format!("strongroom/{}/root/{version}", f.node().vault.installation().id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_root_wraps_the_rest_in_the_background_and_the_old_one_is_destroyed_at_its_end() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        put(&mut p.alice(), "team/one", b"canary", 0).await.unwrap();
        let a = admin(&p.f).await;
        assert_eq!(states(&root(&a).await), [(1, "current")]);
        assert_eq!(retire(&a, 1).await.unwrap_err(), Code::FailedPrecondition, "it is current");
        assert_eq!(rotate(&a, 7).await.unwrap_err(), Code::Aborted);
        let rotated = rotate(&a, 1).await.unwrap();
        assert_eq!(states(&rotated), [(2, "current"), (1, "retiring")]);
        let by = rotated.versions[1].replaced.clone().unwrap();
        assert_eq!((by.from_version, by.to_version, by.started_by.as_str()), (1, 2, "admin"));
        assert_eq!(by.total, 2, "the keys of alice and of the vault");
        moved(&a, 1).await;
        assert_eq!(root(&a).await.versions[0].wraps, 2);
        assert_eq!(get(&mut p.alice(), "team/one", 0).await, Ok(b"canary".to_vec()));
        // What is cached nowhere opens as well, and the node starts by the new one.
        p.f.restart().await;
        let alice = crate::support::logins::login(&p.f, "alice").await;
        let mut again = client(&p.f.connect(&alice).await);
        assert_eq!(get(&mut again, "team/one", 0).await, Ok(b"canary".to_vec()));
        let a = admin(&p.f).await;
        let retired = retire(&a, 1).await.unwrap();
        assert_eq!(states(&retired), [(2, "current"), (1, "retired")]);
        assert_eq!(p.f.hsm.lookup_key(&label(&p.f, 1)).await.unwrap(), None);
        assert!(p.f.hsm.lookup_key(&label(&p.f, 2)).await.unwrap().is_some());
        for (version, told) in [
            (1, Code::FailedPrecondition),
            (2, Code::FailedPrecondition),
            (9, Code::NotFound),
            (-1, Code::NotFound),
        ] {
            assert_eq!(retire(&a, version).await.unwrap_err(), told, "{version}");
        }
        p.f.restart().await;
        let mut again = client(&p.f.connect(&alice).await);
        assert_eq!(get(&mut again, "team/one", 0).await, Ok(b"canary".to_vec()));
        let told = |all: Vec<Entry>| all.into_iter().map(|it| it.detail).collect::<Vec<_>>();
        let done = entries(&p.f, "root.rotate").await;
        let begins = |it: &Entry| it.detail.starts_with("root 1 -> 2 ceremony ");
        assert!(done.iter().any(|it| it.outcome == "ok" && begins(it)), "{done:?}");
        assert_eq!(told(entries(&p.f, "root.finish").await), ["root 1 -> 2: 2 wraps moved"]);
        let retired = told(entries(&p.f, "root.retire").await);
        assert!(retired.iter().any(|it| it.starts_with("root 1 ceremony ")), "{retired:?}");
    }
}

/// Machines of alice's, each with a secret and so with a key: several parts of a rotation.
const OWNERS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_refused_while_the_root_rotates_and_everything_opens_at_any_time() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let a = admin(&p.f).await;
        for n in 0..OWNERS {
            register(&p.f, &format!("m{n}"), "pipeline", "alice").await;
            let owner = format!("m{n}");
            let secret = PutSecretRequest { owner, ..request(&format!("team/m{n}"), b"1", 0) };
            p.alice().put_secret(secret).await.unwrap();
        }
        let over = AtomicBool::new(false);
        let callers = (0..4).map(|caller| {
            let (mut alice, over) = (p.alice(), &over);
            async move {
                let (mut calls, mut version) = (0, 1);
                for n in (caller..OWNERS).step_by(4).cycle() {
                    let path = format!("team/m{n}");
                    assert!(get(&mut alice, &path, 0).await.is_ok());
                    if n < 4 {
                        let value = format!("{}", version + 1);
                        version = put(&mut alice, &path, value.as_bytes(), version).await.unwrap();
                    }
                    calls += 1;
                    if over.load(Ordering::Relaxed) && calls > OWNERS / 4 {
                        return version;
                    }
                }
                version
            }
        });
        let rotations = async {
            for version in 1..4 {
                rotate(&a, version).await.unwrap();
                moved(&a, version).await;
                retire(&a, version).await.unwrap();
            }
            over.store(true, Ordering::Relaxed);
        };
        let (written, ()) = tokio::join!(futures_util::future::join_all(callers), rotations);
        for (n, version) in written.into_iter().enumerate() {
            let read = get(&mut p.alice(), &format!("team/m{n}"), 0).await;
            assert_eq!(read, Ok(version.to_string().into_bytes()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_retired_while_a_wrap_is_left_and_what_does_not_open_holds_up_itself_alone() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        put(&mut p.alice(), "team/one", b"canary", 0).await.unwrap();
        let a = admin(&p.f).await;
        let hand = Hand::new(&p.f.parts.location);
        let old = label(&p.f, 1);
        // Somebody put a wrap there that is none: of a key that does not exist.
        hand.run(&format!(
            "INSERT INTO key_wraps (key_id, recipient, suite, blob) \
             VALUES ('00000000-0000-0000-0000-000000000000', '{old}', 1, {})",
            hand.literal(&[7; 104])
        ))
        .await;
        rotate(&a, 0).await.unwrap();
        until("the others are moved", async || root(&a).await.versions[1].wraps == 1).await;
        assert_eq!(retire(&a, 1).await.unwrap_err(), Code::FailedPrecondition);
        assert!(p.f.hsm.lookup_key(&old).await.unwrap().is_some());
        assert_eq!(get(&mut p.alice(), "team/one", 0).await, Ok(b"canary".to_vec()));
        hand.run(&format!("DELETE FROM key_wraps WHERE recipient = '{old}'")).await;
        assert_eq!(states(&retire(&a, 1).await.unwrap()), [(2, "current"), (1, "retired")]);
        // A wrap of before, put back, is for a key that nobody has.
        hand.run(&format!("UPDATE key_wraps SET recipient = '{old}'")).await;
        p.f.node.take().unwrap().stop().await.unwrap();
        assert!(Node::start(p.f.parts.clone(), pin()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_retires_a_version_at_once_hears_nothing_of_the_keeper_s_last_step() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        put(&mut p.alice(), "team/one", b"canary", 0).await.unwrap();
        let a = admin(&p.f).await;
        for version in 1..4 {
            rotate(&a, version).await.unwrap();
            let ends = tokio::time::Instant::now() + Duration::from_secs(30);
            // From the moment when nothing is left the keeper writes that down, in a commit of its own.
            while let Err(code) = retire(&a, version).await {
                assert_eq!(code, Code::FailedPrecondition);
                assert!(tokio::time::Instant::now() < ends, "the wraps are not moved");
            }
        }
        assert_eq!(get(&mut p.alice(), "team/one", 0).await, Ok(b"canary".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_uses_a_new_root_at_once_and_opens_what_either_wrapped() {
    let p = Place::new(Backend::Postgres).await;
    put(&mut p.alice(), "team/one", b"canary", 0).await.unwrap();
    let other = p.f.second_node().await;
    let a = admin(&p.f).await;
    let grant = "secrets/etl/*";
    p.grant("etl", "put", grant).await;
    let etl = crate::support::logins::login(&p.f, "etl").await;
    let mut there = client(&p.f.connect_to(&other, &etl).await);
    rotate(&a, 1).await.unwrap();
    // Its first key, made by the node that nobody told.
    put(&mut there, "etl/one", b"there", 0).await.unwrap();
    let hand = Hand::new(&p.f.parts.location);
    let newest = "SELECT w.recipient FROM key_wraps w JOIN identity_keys k ON k.id = w.key_id \
                  ORDER BY k.created_at DESC, k.id DESC LIMIT 1";
    assert_eq!(hand.ask(newest).await, [label(&p.f, 2)]);
    moved(&a, 1).await;
    retire(&a, 1).await.unwrap();
    assert_eq!(get(&mut there, "etl/one", 0).await, Ok(b"there".to_vec()));
    let alice = crate::support::logins::login(&p.f, "alice").await;
    let mut there = client(&p.f.connect_to(&other, &alice).await);
    assert_eq!(get(&mut there, "team/one", 0).await, Ok(b"canary".to_vec()));
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_ended_and_numbers_that_were_used_are_not_used_again() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        let token = Token::over(Arc::clone(&f.hsm) as Arc<dyn Hsm>);
        f.parts.hsm = Arc::clone(&token) as Arc<dyn Hsm>;
        f.restart().await;
        let a = admin(&f).await;
        // A key of a store that was lost: it may open a backup, and stays.
        f.hsm.create_key(&label(&f, 2), KeyKind::HmacSha256).await.unwrap();
        token.room.store(0, Ordering::SeqCst);
        assert_eq!(rotate(&a, 0).await.unwrap_err(), Code::Unavailable);
        assert_eq!(root(&a).await.pending.unwrap().to_version, 3);
        token.room.store(usize::MAX, Ordering::SeqCst);
        assert_eq!(rotate(&a, 0).await.unwrap_err(), Code::Aborted, "the first is not ended yet");
        // As if the HSM had made it all the same.
        f.hsm.create_key(&label(&f, 3), KeyKind::HmacSha256).await.unwrap();
        f.clock.advance(Duration::from_secs(31));
        until("it is ended", async || root(&a).await.pending.is_none()).await;
        assert_eq!(f.hsm.lookup_key(&label(&f, 3)).await.unwrap(), None);
        assert!(f.hsm.lookup_key(&label(&f, 2)).await.unwrap().is_some());
        assert_eq!(states(&rotate(&a, 1).await.unwrap()), [(4, "current"), (1, "retiring")]);
        moved(&a, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_before_the_first_round_is_not_taken_for_cut_off() {
    let mut f = Fixture::on(Backend::Sqlite).await;
    let token = Token::over(Arc::clone(&f.hsm) as Arc<dyn Hsm>);
    f.parts.hsm = Arc::clone(&token) as Arc<dyn Hsm>;
    f.restart().await;
    // Rounds are a second apart: one of them comes while the key is made.
    *token.lingers.lock() = Duration::from_millis(2_500);
    let rotated = rotate(&admin(&f).await, 1).await.unwrap();
    assert_eq!(states(&rotated), [(2, "current"), (1, "retiring")]);
    assert!(f.hsm.lookup_key(&label(&f, 2)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_rotates_the_root_when_its_time_has_come() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let a = admin(&f).await;
        for bad in [1, 3_599, -1, 11 * 365 * 86_400, i64::MAX, i64::MIN] {
            assert_eq!(schedule(&a, bad).await.unwrap_err(), Code::InvalidArgument, "{bad}");
        }
        let set = schedule(&a, 3_600).await.unwrap().schedule.unwrap();
        assert_eq!(set.rotate_every_s, 3_600);
        f.clock.advance(Duration::from_secs(3_601));
        until("it was rotated", async || root(&a).await.versions.len() == 2).await;
        let shown = root(&a).await;
        assert_eq!(shown.versions[1].replaced.as_ref().unwrap().started_by, "rotation_keeper");
        let next = shown.schedule.unwrap().next_at_ms;
        assert!(next >= set.next_at_ms + 3_600_000, "a whole time later: {next}");
        assert_eq!(schedule(&a, 0).await.unwrap().schedule, None);
        f.clock.advance(Duration::from_hours(2));
        moved(&a, 1).await;
        assert_eq!(root(&a).await.versions.len(), 2, "not by itself any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wraps_are_not_counted_for_everybody_who_asks_and_few_always() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let a = admin(&f).await;
        let hand = Hand::new(&f.parts.location);
        let (current, blob) = (label(&f, 1), hand.literal(b"none"));
        let add = |name: &str, count: usize| {
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                 INSERT INTO key_wraps (key_id, recipient, suite, blob) \
                 SELECT '{name}' || i, '{current}', 1, {blob} FROM n"
            )
        };
        let wraps = async || root(&a).await.versions[0].wraps;
        let own = wraps().await;
        hand.run(&add("few", 10)).await;
        assert_eq!(wraps().await, own + 10);
        hand.run(&add("many", 10_500)).await;
        let many = own + 10_510;
        assert_eq!(wraps().await, many);
        hand.run(&add("more", 5)).await;
        // It was counted a moment ago, unless the machine is so slow that it was not.
        assert!([many, many + 5].contains(&wraps().await));
        hand.run("DELETE FROM key_wraps WHERE key_id LIKE 'm%'").await;
        assert_eq!(wraps().await, own + 10, "few are counted each time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_rotations_make_one_version_each_and_no_more_than_may_be() {
    let f = Fixture::new().await;
    let a = admin(&f).await;
    let racing = (0..8).map(|_| rotate(&a, 1));
    let done = futures_util::future::join_all(racing).await;
    assert_eq!(done.iter().filter(|it| it.is_ok()).count(), 1, "{done:?}");
    assert!(done.iter().filter_map(|it| it.as_ref().err()).all(|code| *code == Code::Aborted));
    for version in 2..8 {
        rotate(&a, version).await.unwrap();
    }
    assert_eq!(rotate(&a, 8).await.unwrap_err(), Code::FailedPrecondition, "retire some first");
    for version in 1..8 {
        moved(&a, version).await;
        retire(&a, version).await.unwrap();
    }
    assert_eq!(rotate(&a, 8).await.unwrap().versions[0].version, 9);
}
