//! Owners: whose data a secret is, and what becomes of it with them.

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    ResumeIdentityRequest, RetireIdentityRequest, SuspendIdentityRequest, TransferSecretRequest,
};
use tonic::Code;

use super::{Client, Place, get, metadata, put, request};
use crate::support::hand::Hand;
use crate::support::logins::{human, register};
use crate::support::node::BACKENDS;

async fn transfer(client: &mut Client, path: &str, owner: &str) -> Result<(), Code> {
    let (path, owner) = (path.to_owned(), owner.to_owned());
    let request = TransferSecretRequest { path, owner, expected_version: 0 };
    client.transfer_secret(request).await.map(drop).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_uses_what_is_its_own_without_a_grant_and_a_transfer_takes_that_along() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let put_grant = p.grant("etl", "put", "secrets/etl/*").await;
        put(&mut p.etl(), "etl/key", b"one", 0).await.unwrap();
        p.remove(&put_grant.id).await;
        assert_eq!(put(&mut p.etl(), "etl/key", b"two", 1).await, Ok(2));
        assert_eq!(get(&mut p.etl(), "etl/key", 0).await, Ok(b"two".to_vec()));
        assert_eq!(put(&mut p.etl(), "etl/other", b"x", 0).await, Err(Code::PermissionDenied));
        assert_eq!(get(&mut p.alice(), "etl/key", 0).await, Err(Code::PermissionDenied));

        let hand = Hand::new(&p.f.parts.location);
        let messages = "SELECT id FROM secret_values ORDER BY id";
        let before = hand.ask(messages).await;
        let wraps = "SELECT wrap_key FROM secret_versions ORDER BY version";
        let keys = hand.ask(wraps).await;
        // To its own owner, who is known to it.
        assert_eq!(transfer(&mut p.etl(), "etl/key", "admin").await, Ok(()));
        let mut admin = super::client(&p.f.connect(&p.f.admin).await);
        assert_eq!(get(&mut admin, "etl/key", 1).await, Ok(b"one".to_vec()));
        assert_eq!(get(&mut admin, "etl/key", 2).await, Ok(b"two".to_vec()));
        assert_eq!(get(&mut p.etl(), "etl/key", 0).await, Err(Code::PermissionDenied));
        assert_eq!(metadata(&mut admin, "etl/key").await.unwrap().owner, "admin");
        assert_eq!(hand.ask(messages).await, before, "the values stayed");
        assert!(hand.ask(wraps).await.iter().all(|key| !keys.contains(key)), "under other keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_be_named_as_an_owner_tells_nobody_which_identities_exist() {
    let p = Place::new(BACKENDS[0]).await;
    register(&p.f, "bob", "human", "").await;
    register(&p.f, "mine", "pipeline", "alice").await;
    put(&mut p.alice(), "team/db", b"one", 0).await.unwrap();
    let mut answers = Vec::new();
    for name in ["bob", "nobody-of-that-name", "admin", "etl"] {
        let named = super::PutSecretRequest { owner: name.into(), ..request("team/x", b"x", 0) };
        answers.push(p.alice().put_secret(named).await.map(drop).unwrap_err());
        let to = TransferSecretRequest {
            path: "team/db".into(),
            owner: name.into(),
            expected_version: 0,
        };
        answers.push(p.alice().transfer_secret(to).await.map(drop).unwrap_err());
    }
    for answer in &answers {
        assert_eq!(
            (answer.code(), answer.message()),
            (Code::PermissionDenied, answers[0].message())
        );
    }
    // A machine that she owns, and herself.
    for (n, name) in ["mine", "alice"].into_iter().enumerate() {
        let path = format!("team/of{n}");
        let named = super::PutSecretRequest { owner: name.into(), ..request(&path, b"x", 0) };
        p.alice().put_secret(named).await.unwrap();
        assert_eq!(metadata(&mut p.alice(), &path).await.unwrap().owner, name);
    }
    let other = super::PutSecretRequest { owner: "mine".into(), ..request("team/db", b"x", 1) };
    let refused = p.alice().put_secret(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // An administrator, granted the action, may name anybody, and is told who is not there.
    p.grant("admin", "transfer", "secrets/team/db").await;
    let mut admin = super::client(&p.f.connect(&p.f.admin).await);
    assert_eq!(transfer(&mut admin, "team/db", "nobody").await, Err(Code::NotFound));
    assert_eq!(transfer(&mut admin, "team/db", "bob").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contained_owner_keeps_nobody_from_reading_and_gets_nothing_new() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let bob = human(&p.f, "bob").await;
        p.grant("bob", "put", "secrets/team/*").await;
        put(&mut super::client(&bob), "team/db", b"one", 0).await.unwrap();
        let mut identities = IdentityServiceClient::new(p.f.connect(&p.f.admin).await);
        let (name, reason) = ("bob".to_owned(), String::new());
        let suspend = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        identities.suspend_identity(suspend).await.unwrap();
        let mut alice = p.alice();
        assert_eq!(get(&mut super::client(&bob), "team/db", 0).await, Err(Code::Unauthenticated));
        assert_eq!(get(&mut alice, "team/db", 0).await, Ok(b"one".to_vec()));
        let refused = Err(Code::FailedPrecondition);
        assert_eq!(put(&mut alice, "team/db", b"two", 1).await, refused);
        assert!(!metadata(&mut alice, "team/db").await.unwrap().owner_active);
        let resume = ResumeIdentityRequest { name: name.clone(), reason: reason.clone() };
        identities.resume_identity(resume).await.unwrap();
        assert_eq!(put(&mut alice, "team/db", b"two", 1).await, Ok(2));
        let retire = RetireIdentityRequest { name, reason };
        identities.retire_identity(retire).await.unwrap();
        assert_eq!(put(&mut alice, "team/db", b"three", 2).await, refused);
        assert_eq!(transfer(&mut alice, "team/db", "alice").await, Ok(()));
        assert_eq!(put(&mut alice, "team/db", b"three", 2).await, Ok(3));
        assert_eq!(get(&mut alice, "team/db", 1).await, Ok(b"one".to_vec()));
    }
}
