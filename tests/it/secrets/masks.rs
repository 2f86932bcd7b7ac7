//! Masks: what a grant hides of a JSON secret.

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::{AddGrantRequest, Conditions, Mask, add_grant_request};
use tonic::Code;

use super::{Place, fetch, get, put, request};
use crate::support::logins::{human, register};
use crate::support::node::{BACKENDS, Backend};

const CARD: &[u8] =
    br#"{"card":"4111 1111 1111 1234","email":"a@example.org","ssn":"078-05-1120","n":1.50}"#;

fn masks(all: &[(&str, &str)]) -> Conditions {
    let mask = |(field, how): &(&str, &str)| {
        let (field, how) = ((*field).to_owned(), (*how).to_owned());
        Mask { field, how }
    };
    Conditions { masks: all.iter().map(mask).collect(), ..Conditions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_hides_fields_and_the_answer_says_so() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let json = super::PutSecretRequest { json: true, ..request("team/card", CARD, 0) };
        p.alice().put_secret(json).await.unwrap();
        put(&mut p.alice(), "team/bytes", CARD, 0).await.unwrap();
        let hides = [("card", "last4"), ("email", "hash"), ("ssn", "drop")];
        let grant = p.grant_with("etl", "get", "secrets/team/*", masks(&hides)).await.unwrap();
        let shown: Vec<_> = grant.conditions.unwrap().masks;
        assert_eq!(shown, masks(&hides).masks);

        let given = fetch(&mut p.etl(), "team/card", 0).await.unwrap();
        assert_eq!(given.masked, ["card=last4", "email=hash", "ssn=drop"]);
        let text = String::from_utf8(given.value).unwrap();
        assert!(text.starts_with(r#"{"card":"****1234","email":"hmac:"#), "{text}");
        assert!(text.ends_with(r#"","n":1.50}"#), "{text}");
        assert!(!text.contains("example") && !text.contains("078") && !text.contains("4111"));
        // What has no fields is not given under such a grant.
        assert_eq!(get(&mut p.etl(), "team/bytes", 0).await, Err(Code::FailedPrecondition));
        // Whoever holds a grant that hides nothing gets the value as it is, whichever came first.
        let whole = fetch(&mut p.alice(), "team/card", 0).await.unwrap();
        assert_eq!((whole.value.as_slice(), whole.masked.len()), (CARD, 0));
        let more = p.grant("etl", "get", "secrets/team/card").await;
        let whole = fetch(&mut p.etl(), "team/card", 0).await.unwrap();
        assert_eq!((whole.value.as_slice(), whole.masked.len()), (CARD, 0));
        p.remove(&more.id).await;
        let given = fetch(&mut p.etl(), "team/card", 0).await.unwrap();
        assert_eq!(given.masked.len(), 3, "and is masked again at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_are_for_what_is_read_and_are_given_on_no_weaker() {
    let p = Place::new(Backend::Sqlite).await;
    for (verb, conditions) in [
        ("put", masks(&[("a", "drop")])),
        ("get", masks(&[("a", "blur")])),
        ("get", masks(&[("", "drop")])),
        ("get", masks(&[("a..b", "drop")])),
        ("get", masks(&[("a", "drop"), ("a", "hash")])),
    ] {
        let refused = p.grant_with("etl", verb, "secrets/team/*", conditions.clone()).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{verb} {conditions:?}");
    }
    let many: Vec<_> = (0..65).map(|n| (format!("f{n}"), "drop")).collect();
    let many: Vec<_> = many.iter().map(|(field, how)| (field.as_str(), *how)).collect();
    let refused = p.grant_with("etl", "get", "secrets/team/*", masks(&many)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    // Carol may grant below her own prefix, no more than she holds: masked.
    let carol = human(&p.f, "data/carol").await;
    register(&p.f, "data/etl", "pipeline", "admin").await;
    p.grant_with("data/carol", "get", "secrets/team/*", masks(&[("a", "hash")])).await.unwrap();
    let add = AddGrantRequest {
        subject: Some(add_grant_request::Subject::Identity("data/carol".into())),
        action: "grants.add".into(),
        resource: "grants/data/etl".into(),
        ..Default::default()
    };
    let mut admin = GrantServiceClient::new(p.f.connect(&p.f.admin).await);
    admin.add_grant(add.clone()).await.unwrap();
    for (conditions, code) in [
        (masks(&[]), Code::PermissionDenied),
        (masks(&[("a", "last4")]), Code::PermissionDenied),
        (masks(&[("b", "drop")]), Code::PermissionDenied),
        (masks(&[("a", "hash")]), Code::Ok),
        (masks(&[("a", "drop"), ("b", "redact")]), Code::Ok),
    ] {
        let give = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity("data/etl".into())),
            action: "secrets.get".into(),
            resource: "secrets/team/db".into(),
            conditions: Some(conditions.clone()),
            ..Default::default()
        };
        let given = GrantServiceClient::new(carol.clone()).add_grant(give).await;
        let given = given.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(given, code, "{conditions:?}");
    }
}
