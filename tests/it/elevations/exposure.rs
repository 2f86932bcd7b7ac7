//! Secrets that are read under an elevation are to be replaced, until they are.

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::{
    AddGrantRequest, ElevationRole, RequestElevationRequest, RollbackSecretRequest,
    add_grant_request,
};

use super::{Stage, activate, approve, ask, revoke, role};
use crate::secrets::{Client, client, fetch, history, metadata, put};
use crate::support::node::BACKENDS;
use tonic::Code;

/// The administrator, who writes what is below `prod/`, granted that, and owns it; and a role that
/// reads it.
async fn owner(s: &Stage) -> Client {
    let grant = AddGrantRequest {
        subject: Some(add_grant_request::Subject::Identity("admin".into())),
        action: "secrets.put".into(),
        resource: "secrets/prod/*".into(),
        ..Default::default()
    };
    GrantServiceClient::new(s.admin.clone()).add_grant(grant).await.unwrap();
    let emergency = ElevationRole {
        name: "prod".into(),
        resources: vec!["secrets/prod/**".into()],
        actions: vec!["secrets.get".into(), "secrets.put".into()],
        ..role()
    };
    s.put(emergency).await.unwrap();
    client(&s.admin)
}

fn request() -> RequestElevationRequest {
    RequestElevationRequest {
        role: "prod".into(),
        resources: vec!["secrets/prod/db".into()],
        ttl_s: 600,
        reason: "a test".into(),
        ..Default::default()
    }
}

async fn back(owner: &mut Client, version: i64, expected_version: i64) {
    let path = "prod/db".to_owned();
    let request = RollbackSecretRequest { path, version, expected_version, ..Default::default() };
    owner.rollback_secret(request).await.unwrap();
}

/// Which versions are to be replaced, the newest first.
async fn marks(owner: &mut Client) -> Vec<bool> {
    let versions = history(owner, "prod/db").await.unwrap();
    versions.iter().map(|one| one.replace_since_ms > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_read_under_an_elevation_is_marked_until_a_new_version_is_written() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let (mut owner, mut carol) = (owner(&s).await, client(&s.carol));
        put(&mut owner, "prod/db", b"one", 0).await.unwrap();
        put(&mut owner, "prod/other", b"one", 0).await.unwrap();
        let asked = ask(&s.carol, request()).await.unwrap();
        // A new version meanwhile does not void what was asked for.
        put(&mut owner, "prod/db", b"two", 1).await.unwrap();
        let approved = approve(&s.dave, &asked).await.unwrap();
        let active = activate(&s.carol, &approved).await.unwrap();

        assert_eq!(
            metadata(&mut owner, "prod/db").await.unwrap().newest.unwrap().replace_since_ms,
            0
        );
        assert_eq!(fetch(&mut carol, "prod/db", 0).await.unwrap().value, b"two");
        assert!(fetch(&mut carol, "prod/other", 0).await.is_err());
        let marked = metadata(&mut owner, "prod/db").await.unwrap().newest.unwrap();
        assert!(marked.replace_since_ms > 0);
        assert_eq!(marked.read_under, active.id);
        // Read again, it stays as it is; what it does not let stand is not written.
        fetch(&mut carol, "prod/db", 0).await.unwrap();
        let again = metadata(&mut owner, "prod/db").await.unwrap().newest.unwrap();
        assert_eq!(again, marked);
        assert_eq!(put(&mut carol, "prod/db", b"x", 2).await, Err(Code::PermissionDenied));
        revoke(&s.carol, &active).await.unwrap();
        assert!(fetch(&mut carol, "prod/db", 0).await.is_err());
        // The owner reads without leaving a mark, and a rollback to the marked value keeps it.
        assert_eq!(put(&mut owner, "prod/db", b"three", 2).await, Ok(3));
        fetch(&mut owner, "prod/db", 0).await.unwrap();
        let fresh = metadata(&mut owner, "prod/db").await.unwrap().newest.unwrap();
        assert_eq!((fresh.replace_since_ms, fresh.read_under.as_str()), (0, ""));
        back(&mut owner, 2, 3).await;
        assert_eq!(marks(&mut owner).await, [true, false, true, false]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_value_is_on_every_version_that_has_it() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let (mut owner, mut carol) = (owner(&s).await, client(&s.carol));
        put(&mut owner, "prod/db", b"one", 0).await.unwrap();
        put(&mut owner, "prod/db", b"two", 1).await.unwrap();
        back(&mut owner, 1, 2).await;
        let asked = ask(&s.carol, request()).await.unwrap();
        let approved = approve(&s.dave, &asked).await.unwrap();
        activate(&s.carol, &approved).await.unwrap();
        assert_eq!(fetch(&mut carol, "prod/db", 3).await.unwrap().value, b"one");
        assert_eq!(marks(&mut owner).await, [true, false, true], "what it was restored from too");
        back(&mut owner, 1, 3).await;
        back(&mut owner, 2, 4).await;
        assert_eq!(marks(&mut owner).await, [false, true, true, false, true]);
        // And what was restored from it.
        fetch(&mut carol, "prod/db", 2).await.unwrap();
        assert_eq!(marks(&mut owner).await, [true; 5]);
    }
}
