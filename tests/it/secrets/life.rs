//! Versions: written, read, taken away, brought back, destroyed.

use prost::Message as _;
use strongroom::crypto::sha256;
use strongroom::proto::{
    DeleteSecretRequest, DestroySecretRequest, RollbackSecretRequest, UndeleteSecretRequest,
    UpdateSecretRequest,
};
use tonic::Code;

use super::{Client, Place, client, fetch, get, history, metadata, put, request, states};
use crate::support::hand::Hand;
use crate::support::node::BACKENDS;
use crate::support::target::until;

async fn delete(client: &mut Client, path: &str, versions: &[i64]) -> Result<Vec<i64>, Code> {
    let (path, versions) = (path.to_owned(), versions.to_vec());
    let request = DeleteSecretRequest { path, versions, ..Default::default() };
    let done = client.delete_secret(request).await.map_err(|status| status.code())?;
    Ok(done.into_inner().versions)
}

async fn undelete(client: &mut Client, path: &str, versions: &[i64]) -> Result<Vec<i64>, Code> {
    let (path, versions) = (path.to_owned(), versions.to_vec());
    let request = UndeleteSecretRequest { path, versions, ..Default::default() };
    let done = client.undelete_secret(request).await.map_err(|status| status.code())?;
    Ok(done.into_inner().versions)
}

async fn destroy(client: &mut Client, path: &str, versions: &[i64]) -> Result<Vec<i64>, Code> {
    let (path, versions, all) = (path.to_owned(), versions.to_vec(), versions.is_empty());
    let request = DestroySecretRequest { path, versions, all, expected_version: 0 };
    let done = client.destroy_secret(request).await.map_err(|status| status.code())?;
    Ok(done.into_inner().versions)
}

fn states_of(states: &[(i64, &str)]) -> Vec<(i64, String)> {
    states.iter().map(|(version, state)| (*version, (*state).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_written_by_compare_and_set_and_each_is_read_as_it_was_written() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        assert_eq!(get(&mut alice, "team/db", 0).await, Err(Code::NotFound));
        assert_eq!(put(&mut alice, "team/db", b"one", 1).await, Err(Code::NotFound));
        assert_eq!(put(&mut alice, "team/db", b"one", 0).await, Ok(1));
        assert_eq!(put(&mut alice, "team/db", b"two", 0).await, Err(Code::Aborted));
        assert_eq!(put(&mut alice, "team/db", b"two", 2).await, Err(Code::Aborted));
        assert_eq!(put(&mut alice, "team/db", b"two", -1).await, Err(Code::Aborted));
        let large = vec![0xff; 1_024 * 1_024];
        assert_eq!(put(&mut alice, "team/db", &large, 1).await, Ok(2));
        let object = super::PutSecretRequest { json: true, ..request("team/db", b"{\"a\":1}", 2) };
        assert_eq!(alice.put_secret(object).await.unwrap().into_inner().version, 3);
        assert_eq!(get(&mut alice, "team/db", 1).await, Ok(b"one".to_vec()));
        assert_eq!(get(&mut alice, "team/db", 2).await, Ok(large));
        let newest = fetch(&mut alice, "team/db", 0).await.unwrap();
        assert_eq!((newest.value.as_slice(), newest.version), (b"{\"a\":1}".as_slice(), 3));
        assert!(newest.json);
        for version in [4, i64::MAX] {
            assert_eq!(get(&mut alice, "team/db", version).await, Err(Code::NotFound));
        }
        for version in [-1, i64::MIN] {
            assert_eq!(get(&mut alice, "team/db", version).await, Err(Code::InvalidArgument));
        }
        let versions = history(&mut alice, "team/db").await.unwrap();
        let shown: Vec<_> =
            versions.iter().map(|one| (one.version, one.len_bytes, one.json)).collect();
        assert_eq!(shown, [(3, 7, true), (2, 1_024 * 1_024, false), (1, 3, false)]);
        assert!(versions.iter().all(|one| one.created_by == "alice" && one.state == "live"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_the_version_that_the_first_try_wrote() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        let key = "0123456789abcdef".to_owned();
        let request = super::PutSecretRequest {
            idempotency_key: key.clone(),
            ..request("team/db", b"one", 0)
        };
        let first = alice.put_secret(request.clone()).await.unwrap().into_inner();
        let kept =
            Hand::new(&p.f.parts.location).bytes("request", "idempotency WHERE object = '1'").await;
        assert_ne!(kept, sha256(&request.encode_to_vec()), "nobody can try values there");
        assert_eq!(alice.put_secret(request.clone()).await.unwrap().into_inner(), first);
        let other = super::PutSecretRequest { value: b"two".to_vec(), ..request };
        let refused = alice.put_secret(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let back = RollbackSecretRequest {
            idempotency_key: key,
            path: "team/db".into(),
            version: 1,
            expected_version: 1,
        };
        for _ in 0..2 {
            let done = alice.rollback_secret(back.clone()).await.unwrap().into_inner();
            assert_eq!(done.version, 2);
        }
        assert_eq!(states(&mut alice, "team/db").await, states_of(&[(2, "live"), (1, "live")]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_writes_the_older_value_as_a_new_version() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        put(&mut alice, "team/db", b"one", 0).await.unwrap();
        put(&mut alice, "team/db", b"two", 1).await.unwrap();
        let back = |version, expected_version| RollbackSecretRequest {
            path: "team/db".into(),
            version,
            expected_version,
            ..Default::default()
        };
        let stale = alice.rollback_secret(back(1, 1)).await.unwrap_err();
        assert_eq!(stale.code(), Code::Aborted);
        let done = alice.rollback_secret(back(1, 2)).await.unwrap().into_inner();
        assert_eq!(done.version, 3);
        assert_eq!(get(&mut alice, "team/db", 0).await, Ok(b"one".to_vec()));
        assert_eq!(history(&mut alice, "team/db").await.unwrap()[0].restored_from, 1);
        delete(&mut alice, "team/db", &[2]).await.unwrap();
        for (version, code) in [
            (2, Code::FailedPrecondition),
            (9, Code::NotFound),
            (0, Code::InvalidArgument),
            (-1, Code::InvalidArgument),
        ] {
            let refused = alice.rollback_secret(back(version, 3)).await.unwrap_err();
            assert_eq!(refused.code(), code, "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_versions_come_back_until_their_window_closes_and_are_destroyed_then() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for (n, value) in [b"one", b"two"].iter().enumerate() {
            put(&mut alice, "team/db", *value, i64::try_from(n).unwrap()).await.unwrap();
        }
        assert_eq!(delete(&mut alice, "team/db", &[2]).await, Ok(vec![2]));
        let revision = metadata(&mut alice, "team/db").await.unwrap().revision;
        assert_eq!(delete(&mut alice, "team/db", &[2]).await, Ok(vec![]), "it is deleted");
        let again = metadata(&mut alice, "team/db").await.unwrap().revision;
        assert_eq!(again, revision, "what changes nothing moves nothing");
        assert_eq!(get(&mut alice, "team/db", 0).await, Err(Code::FailedPrecondition));
        assert_eq!(get(&mut alice, "team/db", 1).await, Ok(b"one".to_vec()));
        assert_eq!(undelete(&mut alice, "team/db", &[2]).await, Ok(vec![2]));
        assert_eq!(get(&mut alice, "team/db", 0).await, Ok(b"two".to_vec()));
        assert_eq!(delete(&mut alice, "team/db", &[]).await, Ok(vec![1, 2]));
        assert_eq!(delete(&mut alice, "team/db", &[3]).await, Err(Code::NotFound));
        assert_eq!(delete(&mut alice, "team/db", &[0]).await, Err(Code::InvalidArgument));
        // A number is never used again.
        assert_eq!(put(&mut alice, "team/db", b"three", 0).await, Err(Code::Aborted));
        assert_eq!(put(&mut alice, "team/db", b"three", 2).await, Ok(3));
        let request = DeleteSecretRequest {
            path: "team/db".into(),
            versions: vec![3],
            window_s: 60,
            ..Default::default()
        };
        alice.delete_secret(request).await.unwrap();
        p.advance(61);
        until("the third is destroyed", async || {
            states(&mut p.alice(), "team/db").await[0].1 == "destroyed"
        })
        .await;
        assert_eq!(undelete(&mut alice, "team/db", &[3]).await, Err(Code::FailedPrecondition));
        assert_eq!(undelete(&mut alice, "team/db", &[]).await, Ok(vec![1, 2]));
        let hand = Hand::new(&p.f.parts.location);
        assert_eq!(hand.ask("SELECT '' || COUNT(*) FROM secret_values").await, ["2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_destroyed_is_gone_from_the_store_and_never_comes_back() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        put(&mut alice, "team/db", b"one", 0).await.unwrap();
        put(&mut alice, "team/db", b"two", 1).await.unwrap();
        put(&mut alice, "team/other", b"other", 0).await.unwrap();
        let nothing = DestroySecretRequest { path: "team/db".into(), ..Default::default() };
        let unsaid = alice.destroy_secret(nothing).await.unwrap_err();
        assert_eq!(unsaid.code(), Code::InvalidArgument, "all is said, never meant");
        assert_eq!(destroy(&mut alice, "team/db", &[1]).await, Ok(vec![1]));
        let hand = Hand::new(&p.f.parts.location);
        let epoch = "SELECT '' || epoch FROM authority";
        let before = hand.ask(epoch).await;
        assert_eq!(destroy(&mut alice, "team/db", &[1]).await, Ok(vec![]));
        assert_eq!(hand.ask(epoch).await, before, "what changes nothing moves nothing");
        assert_eq!(get(&mut alice, "team/db", 1).await, Err(Code::FailedPrecondition));
        assert_eq!(undelete(&mut alice, "team/db", &[1]).await, Err(Code::FailedPrecondition));
        assert_eq!(destroy(&mut alice, "team/db", &[]).await, Ok(vec![2]));
        assert_eq!(get(&mut alice, "team/db", 0).await, Err(Code::FailedPrecondition));
        assert_eq!(hand.ask("SELECT '' || COUNT(*) FROM secret_values").await, ["1"]);
        let wraps = "SELECT '' || COUNT(*) FROM secret_versions WHERE length(wrap) > 0";
        assert_eq!(hand.ask(wraps).await, ["1"], "the data keys are gone");
        assert_eq!(put(&mut alice, "team/db", b"three", 2).await, Ok(3));
        let states = states(&mut alice, "team/db").await;
        assert_eq!(states, states_of(&[(3, "live"), (2, "destroyed"), (1, "destroyed")]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_ends_by_itself_and_the_oldest_make_room() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        let ending = super::PutSecretRequest { ttl_s: 60, ..request("team/db", b"one", 0) };
        alice.put_secret(ending).await.unwrap();
        assert_eq!(get(&mut alice, "team/db", 0).await, Ok(b"one".to_vec()));
        p.advance(61);
        assert_eq!(get(&mut alice, "team/db", 0).await, Err(Code::FailedPrecondition));
        assert_eq!(states(&mut alice, "team/db").await, states_of(&[(1, "expired")]));
        let known = metadata(&mut alice, "team/db").await.unwrap();
        let update = UpdateSecretRequest {
            path: "team/db".into(),
            revision: known.revision,
            set_labels: [("env".to_owned(), "prod".to_owned())].into(),
            max_versions: 2,
            window_s: 3_600,
            ..Default::default()
        };
        let changed = alice.update_secret(update.clone()).await.unwrap().into_inner();
        let changed = changed.metadata.unwrap();
        assert_eq!((changed.max_versions, changed.window_s), (2, 3_600));
        assert_eq!(changed.labels["env"], "prod");
        let stale = alice.update_secret(update).await.unwrap_err();
        assert_eq!(stale.code(), Code::Aborted);
        for n in 1..4 {
            put(&mut alice, "team/db", b"next", n).await.unwrap();
        }
        let states = states(&mut alice, "team/db").await;
        let left = [(4, "live"), (3, "live"), (2, "destroyed"), (1, "destroyed")];
        assert_eq!(states, states_of(&left));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_most_versions_that_are_kept_none_more_has_a_value_and_none_is_left_behind() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        put(&mut alice, "team/db", b"one", 0).await.unwrap();
        let update = UpdateSecretRequest {
            path: "team/db".into(),
            revision: metadata(&mut alice, "team/db").await.unwrap().revision,
            max_versions: 100,
            ..Default::default()
        };
        alice.update_secret(update).await.unwrap();
        for n in 1..103 {
            put(&mut alice, "team/db", b"next", n).await.unwrap();
        }
        let hand = Hand::new(&p.f.parts.location);
        let values = "SELECT '' || COUNT(*) FROM secret_values";
        assert_eq!(hand.ask(values).await, ["100"]);
        assert_eq!(destroy(&mut alice, "team/db", &[]).await, Ok((4..=103).collect()));
        assert_eq!(hand.ask(values).await, ["0"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_read_a_secret_last_is_shown_without_a_commit_of_its_own() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        put(&mut alice, "team/db", b"one", 0).await.unwrap();
        assert_eq!(metadata(&mut alice, "team/db").await.unwrap().last_read_at_ms, 0);
        p.grant("etl", "get", "secrets/team/*").await;
        get(&mut alice, "team/db", 0).await.unwrap();
        let first = metadata(&mut alice, "team/db").await.unwrap();
        assert_eq!((first.last_read_by.as_str(), first.last_read_version), ("alice", 1));
        get(&mut p.etl(), "team/db", 0).await.unwrap();
        let second = metadata(&mut alice, "team/db").await.unwrap();
        assert_eq!(second.last_read_by, "etl");
        // The same reader within the minute is not written again; afterwards it is.
        p.advance(10);
        get(&mut p.etl(), "team/db", 0).await.unwrap();
        let third = metadata(&mut alice, "team/db").await.unwrap();
        assert_eq!(third.last_read_at_ms, second.last_read_at_ms);
        p.advance(60);
        get(&mut p.etl(), "team/db", 0).await.unwrap();
        let fourth = metadata(&mut alice, "team/db").await.unwrap();
        assert!(fourth.last_read_at_ms > second.last_read_at_ms);
        assert_eq!(fourth.revision, first.revision, "reading changes nothing that is decided on");
        let mut other = client(&p.f.connect(&p.f.admin).await);
        assert_eq!(get(&mut other, "team/db", 0).await, Err(Code::PermissionDenied));
        let fifth = metadata(&mut alice, "team/db").await.unwrap();
        assert_eq!(fifth.last_read_by, "etl", "who was refused did not read");
        // The row is a statistic: whatever it says keeps nobody from the rest.
        let hand = Hand::new(&p.f.parts.location);
        let nobody = "00000000-0000-7000-8000-000000000000";
        for (by, shown) in [(nobody, nobody), ("x", "")] {
            hand.run(&format!("UPDATE secret_usage SET last_read_by = '{by}'")).await;
            assert_eq!(metadata(&mut alice, "team/db").await.unwrap().last_read_by, shown);
        }
    }
}
