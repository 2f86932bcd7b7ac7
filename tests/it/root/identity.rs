//! The keys of identities: rotated, and what is under them moved.

use std::time::Duration;

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    AddGrantRequest, GetIdentityKeyRequest, IdentityKey, RotateIdentityKeyRequest,
    ScheduleIdentityKeyRequest, add_grant_request,
};
use tonic::Code;
use tonic::transport::Channel;

use super::{admin, entries};
use crate::keys;
use crate::secrets::{Place, client, get, put};
use crate::support::factors::{authenticator, verify};
use crate::support::hand::Hand;
use crate::support::logins::{human, registration};
use crate::support::node::{BACKENDS, Backend, Fixture, both_take_the_time};
use crate::support::target::until;
use crate::support::tokens::plain;

async fn key(admin: &Channel, name: &str) -> IdentityKey {
    let request = GetIdentityKeyRequest { name: name.to_owned() };
    let mut client = IdentityServiceClient::new(admin.clone());
    client.get_identity_key(request).await.unwrap().into_inner().key.unwrap()
}

async fn rotate(admin: &Channel, name: &str, expected_version: i64) -> Result<IdentityKey, Code> {
    let request = RotateIdentityKeyRequest { name: name.to_owned(), expected_version };
    let mut client = IdentityServiceClient::new(admin.clone());
    let rotated = client.rotate_identity_key(request).await;
    rotated.map(|it| it.into_inner().key.unwrap()).map_err(|status| status.code())
}

fn states(key: &IdentityKey) -> Vec<(i64, &str)> {
    key.versions.iter().map(|it| (it.version, it.state.as_str())).collect()
}

/// How much is under each version, the newest first.
fn under(key: &IdentityKey) -> Vec<i64> {
    key.versions.iter().map(|it| it.under).collect()
}

async fn may(admin: &Channel, verb: &str) {
    let request = AddGrantRequest {
        subject: Some(add_grant_request::Subject::Identity("alice".to_owned())),
        action: format!("keys.{verb}"),
        resource: "keys/team/*".to_owned(),
        ..Default::default()
    };
    GrantServiceClient::new(admin.clone()).add_grant(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_an_old_key_opens_while_it_is_moved_and_after_its_wraps_are_gone() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        let a = admin(&p.f).await;
        assert!(key(&a, "alice").await.versions.is_empty());
        assert_eq!(rotate(&a, "alice", 0).await.unwrap_err(), Code::FailedPrecondition);
        assert_eq!(rotate(&a, "nobody", 0).await.unwrap_err(), Code::NotFound);
        may(&a, "create").await;
        for version in 0..3_i64 {
            put(&mut p.alice(), "team/one", &[7, 7], version).await.unwrap();
        }
        let mut named = keys::client(&p.alice);
        keys::create(&mut named, "team/key", "aes-256-gcm").await;
        let ciphertext = keys::encrypt(&mut named, "team/key", b"canary", b"").await.unwrap();
        assert_eq!(rotate(&a, "alice", 2).await.unwrap_err(), Code::Aborted);
        let rotated = rotate(&a, "alice", 1).await.unwrap();
        assert_eq!(states(&rotated), [(2, "current"), (1, "retiring")]);
        let by = rotated.versions[1].replaced.clone().unwrap();
        assert_eq!((by.total, by.started_by.as_str()), (4, "admin"));
        // At once, and without a refusal.
        put(&mut p.alice(), "team/one", &[8, 8], 3).await.unwrap();
        until("all of it is moved", async || under(&key(&a, "alice").await) == [5, 0]).await;
        // One rotation at a time: the old version is not ended yet.
        assert_eq!(rotate(&a, "alice", 0).await.unwrap_err(), Code::FailedPrecondition);
        until("everybody hears of it", async || {
            key(&a, "alice").await.versions[1].replaced.as_ref().unwrap().state == "moved"
        })
        .await;
        // No further than a certificate is good before its time: the vault is started again below.
        p.f.clock.advance(Duration::from_millis(60_001));
        until("its wraps are gone", async || {
            states(&key(&a, "alice").await) == [(2, "current"), (1, "retired")]
        })
        .await;
        let hand = Hand::new(&p.f.parts.location);
        let left = hand
            .ask(
                "SELECT '' || COUNT(*) FROM key_wraps w JOIN identity_keys k ON k.id = w.key_id \
                 WHERE k.version = 1 AND k.owner <> 'system'",
            )
            .await;
        assert_eq!(left, ["0"]);
        p.f.restart().await;
        let alice = p.f.connect(&crate::support::logins::login(&p.f, "alice").await).await;
        let mut again = client(&alice);
        for (version, value) in [(1, [7, 7]), (2, [7, 7]), (3, [7, 7]), (4, [8, 8])] {
            assert_eq!(get(&mut again, "team/one", version).await, Ok(value.to_vec()));
        }
        let mut named = keys::client(&alice);
        let opened = keys::decrypt(&mut named, "team/key", &ciphertext, b"").await;
        assert_eq!(opened, Ok((b"canary".to_vec(), 1)));
        let details = entries(&p.f, "identities.move-data").await;
        assert!(details.iter().all(|it| it.detail.starts_with("identity key 1 -> 2: ")));
        assert_eq!(entries(&p.f, "identities.finish-key").await.len(), 2, "moved, removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authenticator_is_moved_as_well_and_its_codes_count_on() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let app = authenticator(&f, &channel, "carol").await;
        let a = admin(&f).await;
        assert_eq!(rotate(&a, "carol", 1).await.map(|key| under(&key)), Ok(vec![0, 1]));
        until("it is moved", async || under(&key(&a, "carol").await) == [1, 0]).await;
        until("everybody hears of it", async || {
            key(&a, "carol").await.versions[1].replaced.as_ref().unwrap().state == "moved"
        })
        .await;
        f.clock.advance(Duration::from_secs(61));
        until("its wraps are gone", async || key(&a, "carol").await.versions[1].state == "retired")
            .await;
        verify(&plain(&channel), &app.code(&f, 0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_that_nobody_told_encrypts_under_the_new_key_and_is_not_refused() {
    let p = Place::new(Backend::Postgres).await;
    let a = admin(&p.f).await;
    let other = p.f.second_node().await;
    let alice = crate::support::logins::login(&p.f, "alice").await;
    let mut there = client(&p.f.connect_to(&other, &alice).await);
    put(&mut there, "team/one", b"one", 0).await.unwrap();
    for version in 1..4_i64 {
        rotate(&a, "alice", version).await.unwrap();
        put(&mut there, "team/one", b"next", version).await.unwrap();
        let shown = key(&a, "alice").await;
        assert!(shown.versions[0].under > 0, "{shown:?}");
        until("all of it is moved", async || {
            key(&a, "alice").await.versions[1].replaced.as_ref().unwrap().state == "moved"
        })
        .await;
        p.f.clock.advance(Duration::from_secs(61));
        both_take_the_time(p.f.node(), &other).await;
        until("its wraps are gone", async || key(&a, "alice").await.versions[1].state == "retired")
            .await;
        assert_eq!(get(&mut there, "team/one", 1).await, Ok(b"one".to_vec()));
    }
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_race_with_a_rotation_are_all_kept_and_none_is_refused() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let a = admin(&p.f).await;
        for n in 0..4 {
            put(&mut p.alice(), &format!("team/s{n}"), b"1", 0).await.unwrap();
        }
        let writes = (0..4).map(|n| {
            let mut alice = p.alice();
            async move {
                for version in 1..8_i64 {
                    let value = format!("{}", version + 1);
                    let written =
                        put(&mut alice, &format!("team/s{n}"), value.as_bytes(), version).await;
                    assert_eq!(written, Ok(version + 1));
                }
            }
        });
        let (_, rotated) =
            tokio::join!(futures_util::future::join_all(writes), rotate(&a, "alice", 1));
        rotated.unwrap();
        until("all of it is moved", async || key(&a, "alice").await.versions[1].under == 0).await;
        for n in 0..4 {
            let read = get(&mut p.alice(), &format!("team/s{n}"), 0).await;
            assert_eq!(read, Ok(b"8".to_vec()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_rotates_an_identity_s_key_however_many_have_none_and_are_due_before_it() {
    let p = Place::new(BACKENDS[0]).await;
    let a = admin(&p.f).await;
    put(&mut p.alice(), "team/one", b"1", 0).await.unwrap();
    let request = ScheduleIdentityKeyRequest { name: "alice".to_owned(), rotate_every_s: 7_200 };
    let mut identities = IdentityServiceClient::new(a.clone());
    // As many as are looked at in one round: nothing was ever encrypted for them.
    for n in 0..64 {
        let name = format!("idle{n}");
        identities.create_identity(registration(&name, "pipeline", "alice")).await.unwrap();
        let idle = ScheduleIdentityKeyRequest { name, rotate_every_s: 3_600 };
        identities.schedule_identity_key(idle).await.unwrap();
    }
    identities.schedule_identity_key(request.clone()).await.unwrap();
    let bad = ScheduleIdentityKeyRequest { rotate_every_s: 5, ..request };
    let refused = identities.schedule_identity_key(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    p.f.clock.advance(Duration::from_hours(3));
    until("it was rotated", async || key(&a, "alice").await.versions.len() == 2).await;
    let by = key(&a, "alice").await.versions[1].replaced.clone().unwrap();
    assert_eq!(by.started_by, "rotation_keeper");
}
