//! What is refused: names that are none, values too large, and everything without a right.

use strongroom::proto::{
    DeleteSecretRequest, DestroySecretRequest, GetMetadataRequest, GetSecretRequest,
    ListVersionsRequest, RollbackSecretRequest, SearchSecretsRequest, TransferSecretRequest,
    UndeleteSecretRequest, UpdateSecretRequest,
};
use tempfile::TempDir;
use tonic::{Code, Status};

use super::{Client, Place, get, put, request, states};
use crate::identities::bad_names;
use crate::support::node::{BACKENDS, Backend, Fixture};
use strongroom::store::Location;

/// Every call on one secret.
async fn all(client: &mut Client, name: &str) -> Vec<Status> {
    let path = || name.to_owned();
    vec![
        client.put_secret(request(name, b"x", 0)).await.map(drop),
        client.get_secret(GetSecretRequest { path: path(), version: 0 }).await.map(drop),
        client
            .list_versions(ListVersionsRequest { path: path(), ..Default::default() })
            .await
            .map(drop),
        client
            .rollback_secret(RollbackSecretRequest {
                path: path(),
                version: 1,
                expected_version: 1,
                ..Default::default()
            })
            .await
            .map(drop),
        client
            .delete_secret(DeleteSecretRequest { path: path(), ..Default::default() })
            .await
            .map(drop),
        client
            .undelete_secret(UndeleteSecretRequest { path: path(), ..Default::default() })
            .await
            .map(drop),
        client
            .destroy_secret(DestroySecretRequest { path: path(), all: true, ..Default::default() })
            .await
            .map(drop),
        client.get_metadata(GetMetadataRequest { path: path() }).await.map(drop),
        client
            .update_secret(UpdateSecretRequest { path: path(), revision: 1, ..Default::default() })
            .await
            .map(drop),
        client
            .transfer_secret(TransferSecretRequest {
                path: path(),
                owner: "alice".into(),
                ..Default::default()
            })
            .await
            .map(drop),
    ]
    .into_iter()
    .map(Result::unwrap_err)
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_and_a_forbidden_one_are_answered_alike() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        put(&mut p.alice(), "team/db", b"one", 0).await.unwrap();
        // Some right beside does not open another, nor tell what is there.
        p.grant("etl", "get", "secrets/team/else").await;
        let (there, missing) =
            (all(&mut p.etl(), "team/db").await, all(&mut p.etl(), "team/none").await);
        for (there, missing) in there.iter().zip(&missing) {
            assert_eq!(there.code(), Code::PermissionDenied, "{there}");
            assert_eq!((there.code(), there.message()), (missing.code(), missing.message()));
        }
        assert_eq!(get(&mut p.alice(), "team/db", 0).await, Ok(b"one".to_vec()));
    }
}

/// Every call on one secret, each with a version or a revision that it does not have, so that none
/// changes anything; in the order of [`super::VERBS`].
async fn unexpected(client: &mut Client, name: &str) -> Vec<Code> {
    fn code<T>(answer: Result<T, Status>) -> Code {
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    }
    let (path, expected_version) = (|| name.to_owned(), 99);
    let get = GetSecretRequest { path: path(), version: 0 };
    let list = ListVersionsRequest { path: path(), ..Default::default() };
    let back =
        RollbackSecretRequest { path: path(), version: 1, expected_version, ..Default::default() };
    let delete = DeleteSecretRequest { path: path(), expected_version, ..Default::default() };
    let undelete = UndeleteSecretRequest { path: path(), expected_version, ..Default::default() };
    let destroy =
        DestroySecretRequest { path: path(), all: true, expected_version, ..Default::default() };
    let update = UpdateSecretRequest { path: path(), revision: 99, ..Default::default() };
    let transfer = TransferSecretRequest { path: path(), owner: "etl".into(), expected_version };
    vec![
        code(client.put_secret(request(name, b"x", expected_version)).await),
        code(client.get_secret(get).await),
        code(client.list_versions(list).await),
        code(client.rollback_secret(back).await),
        code(client.delete_secret(delete).await),
        code(client.undelete_secret(undelete).await),
        code(client.destroy_secret(destroy).await),
        code(client.get_metadata(GetMetadataRequest { path: path() }).await),
        code(client.update_secret(update).await),
        code(client.transfer_secret(transfer).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_needs_its_own_grant() {
    let p = Place::new(Backend::Sqlite).await;
    put(&mut p.alice(), "team/db", b"one", 0).await.unwrap();
    for (place, verb) in super::VERBS.into_iter().enumerate() {
        let grant = p.grant("etl", verb, "secrets/team/db").await;
        let answers = unexpected(&mut p.etl(), "team/db").await;
        for (n, code) in answers.iter().enumerate() {
            let denied = *code == Code::PermissionDenied;
            assert_eq!(denied, n != place, "{verb}: {} answers {code}", super::VERBS[n]);
        }
        p.remove(&grant.id).await;
    }
    assert_eq!(states(&mut p.alice(), "team/db").await, [(1, "live".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_that_are_none_are_refused_and_change_nothing() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        let long = ["a".repeat(63).as_str(); 8].join("/") + "/b";
        let deep = ["a"; 17].join("/");
        let longest = &long[..511];
        let more =
            [long.as_str(), longest, &deep, "team/", "/team", "team//db", "team/**", "Team/db"];
        // Five segments are too many for an identity alone.
        let bad = bad_names().into_iter().filter(|name| name != "a/b/c/d/e");
        for name in bad.chain(more.map(str::to_owned)) {
            for status in all(&mut alice, &name).await {
                assert_eq!(status.code(), Code::InvalidArgument, "{name:?} {status}");
            }
        }
        let large = vec![b'x'; 1_024 * 1_024 + 1];
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let lists = format!("{{\"a\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
        for (value, json) in [
            (&b""[..], false),
            (&large, false),
            (nested(33).as_bytes(), true),
            (nested(100_000).as_bytes(), true),
            (lists.as_bytes(), true),
            (b"", true),
            (b"[]", true),
            (b"{\"a\":1,\"a\":2}", true),
            (b"canary-value", true),
        ] {
            let request = super::PutSecretRequest { json, ..request("team/db", value, 0) };
            let status = alice.put_secret(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(!status.message().contains("canary"), "{status}");
        }
        // Beyond a message's bound nothing is parsed.
        let huge = vec![b'x'; 1_024 * 1_024 + 128 * 1_024];
        let status = alice.put_secret(request("team/db", &huge, 0)).await.unwrap_err();
        assert_ne!(status.code(), Code::Ok, "{status}");
        assert_eq!(get(&mut p.alice(), "team/db", 0).await, Err(Code::NotFound));
        let negative = super::PutSecretRequest { ttl_s: -1, ..request("team/db", b"x", 0) };
        let status = p.alice().put_secret(negative).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let nothing = SearchSecretsRequest::default();
        let status = p.alice().search_secrets(nothing).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_a_write_whole_and_still_takes_a_destruction() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vault.db");
    let location = Location::Sqlite { path, max_mib: 6, reserve_mib: 3 };
    let p = Place::of(Fixture::at(dir, location).await).await;
    let mut alice = p.alice();
    let value = vec![b'x'; 400_000];
    let mut newest = 0;
    let refused = loop {
        match put(&mut alice, "team/db", &value, newest).await {
            Ok(version) => newest = version,
            Err(code) => break code,
        }
        assert!(newest < 10, "it is never full");
    };
    assert!([Code::Unavailable, Code::ResourceExhausted].contains(&refused), "{refused}");
    let destroy = DestroySecretRequest {
        path: "team/db".into(),
        versions: vec![newest],
        ..Default::default()
    };
    assert_eq!(alice.destroy_secret(destroy).await.unwrap().into_inner().versions, [newest]);
    // What it held is free again: the write that was refused left nothing behind.
    let smaller = vec![b'y'; 100_000];
    assert_eq!(put(&mut alice, "team/db", &smaller, newest).await, Ok(newest + 1));
    assert_eq!(get(&mut alice, "team/db", 0).await, Ok(smaller));
}
