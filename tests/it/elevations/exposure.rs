//! Secrets that are read under an elevation are to be replaced, until they are.

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::{
    AddGrantRequest, ElevationRole, RequestElevationRequest, RollbackSecretRequest,
    add_grant_request,
};

use super::{Stage, activate, approve, ask, revoke, role};
use crate::secrets::{client, fetch, history, metadata, put};
use crate::support::node::BACKENDS;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_read_under_an_elevation_is_marked_until_a_new_version_is_written() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        // The administrator writes it, granted that, and owns it.
        let grant = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity("admin".into())),
            action: "secrets.put".into(),
            resource: "secrets/prod/*".into(),
            ..Default::default()
        };
        GrantServiceClient::new(s.admin.clone()).add_grant(grant).await.unwrap();
        let (mut owner, mut carol) = (client(&s.admin), client(&s.carol));
        put(&mut owner, "prod/db", b"one", 0).await.unwrap();
        put(&mut owner, "prod/other", b"one", 0).await.unwrap();
        let emergency = ElevationRole {
            name: "prod".into(),
            resources: vec!["secrets/prod/**".into()],
            actions: vec!["secrets.get".into(), "secrets.put".into()],
            ..role()
        };
        s.put(emergency).await.unwrap();
        let request = RequestElevationRequest {
            role: "prod".into(),
            resources: vec!["secrets/prod/db".into()],
            ttl_s: 600,
            reason: "a test".into(),
            ..Default::default()
        };
        let asked = ask(&s.carol, request).await.unwrap();
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
        let back = RollbackSecretRequest {
            path: "prod/db".into(),
            version: 2,
            expected_version: 3,
            ..Default::default()
        };
        owner.rollback_secret(back).await.unwrap();
        let marks: Vec<_> = history(&mut owner, "prod/db").await.unwrap();
        let marks: Vec<_> = marks.iter().map(|one| one.replace_since_ms > 0).collect();
        assert_eq!(marks, [true, false, true, false]);
    }
}
