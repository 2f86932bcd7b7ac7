//! A proof is of one credential, and over with it and with its factor.

use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    EntryFilter, ListEntriesRequest, ResumeIdentityRequest, SuspendIdentityRequest, TokenOrder,
};

use super::*;
use crate::support::tokens::create;

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_of_the_calling_credential_and_no_other() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let app = authenticator(&f, &channel, "carol").await;
        let carol = plain(&channel);
        let other = plain(&f.connect(&login(&f, "carol").await).await);
        let token = bearing(&channel, &crate::support::tokens::token(&channel, 900).await.bearer);
        assert!(whoami(&other).await.factors.is_empty());
        verify(&token, &app.code(&f, 0)).await.unwrap();
        assert_eq!(whoami(&token).await.factors.len(), 1);
        assert!(whoami(&other).await.factors.is_empty());
        // A child is a credential of its own.
        let child = TokenOrder { ttl_s: 300, ..Default::default() };
        let child = bearing(&channel, &create(&channel, child).await.unwrap().bearer);
        assert!(whoami(&child).await.factors.is_empty());
        steps(&f, 2);
        let counted = TokenOrder { ttl_s: 300, uses: 5, ..Default::default() };
        let counted = bearing(&channel, &create(&channel, counted).await.unwrap().bearer);
        let refusal = verify(&counted, &app.code(&f, 0)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
        verify(&carol, &app.code(&f, 0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_seen_at_once_on_every_node_and_gone_with_its_factor() {
    let f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    let login_of = login_for(&f).await;
    let (here, there) = (f.connect(&login_of).await, f.connect_to(&other, &login_of).await);
    let (here, there) = (plain(&here), plain(&there));
    // Of several nodes no clock is turned: each would find the other's wrong.
    let app = enrol(&here, &invite(&f, "carol").await).await.unwrap();
    confirm(&here, &app, &app.code(&f, -1)).await.unwrap();
    assert_eq!(whoami(&there).await.factors.len(), 1, "of its first code");
    let proven = verify(&here, &app.code(&f, 0)).await.unwrap();
    assert_eq!(whoami(&there).await.auth_time_ms, proven.proven_at_ms);
    assert_eq!(reset(&plain(&f.connect(&f.admin).await), "carol").await.unwrap(), 1);
    for bearer in [&there, &here] {
        let me = whoami(bearer).await;
        assert!(me.factors.is_empty() && me.auth_time_ms < proven.proven_at_ms, "{me:?}");
    }
    let none = verify(&there, &app.code(&f, 1)).await.unwrap_err();
    assert_eq!(none.code(), Code::FailedPrecondition);
    drop((here, there));
    other.stop().await.unwrap();
}

async fn login_for(f: &Fixture) -> crate::support::node::Login {
    register(f, "carol", "human", "").await;
    login(f, "carol").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_does_not_outlive_a_suspension_and_the_factor_does() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let app = authenticator(&f, &channel, "carol").await;
        let mut admin = IdentityServiceClient::new(f.connect(&f.admin).await);
        let (name, reason) = ("carol".to_owned(), String::new());
        let suspend = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        admin.suspend_identity(suspend).await.unwrap();
        admin.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        let dead = verify(&plain(&channel), &app.code(&f, 0)).await.unwrap_err();
        assert_eq!(dead.code(), Code::Unauthenticated);
        let carol = plain(&f.connect(&login(&f, "carol").await).await);
        assert!(whoami(&carol).await.factors.is_empty());
        verify(&carol, &app.code(&f, 0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_says_what_was_proven_and_nothing_that_proves() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let app = authenticator(&f, &channel, "carol").await;
        let carol = plain(&channel);
        let (wrong, right) = (app.wrong(&f, 1).remove(0), app.code(&f, 0));
        verify(&carol, &wrong).await.unwrap_err();
        let proven = verify(&carol, &right).await.unwrap();
        whoami(&carol).await;
        f.node().vault.integrate().await.unwrap();
        let mut records = RecordServiceClient::new(f.connect(&f.admin).await);
        let mut entries = async |action: &str| {
            let filter = EntryFilter {
                identity: "carol".into(),
                action: action.into(),
                ..Default::default()
            };
            let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
            records.list_entries(request).await.unwrap().into_inner().entries
        };
        let tried = entries("factors.verify").await;
        let outcomes: Vec<_> = tried.iter().map(|entry| entry.outcome.as_str()).collect();
        assert!(outcomes.contains(&"DENIED") && outcomes.contains(&"ok"), "{outcomes:?}");
        assert!(tried.iter().all(|entry| entry.decision == "allow" && !entry.keys.is_empty()));
        let asked = entries("identities.whoami").await;
        let newest = asked.iter().max_by_key(|entry| entry.index).unwrap();
        assert_eq!(newest.factors, [proven]);
        let enrolled = entries("factors.enrol").await;
        assert!(!enrolled.is_empty());
        let said = tried.iter().chain(&enrolled);
        assert!(
            said.map(|entry| format!("{}{}", entry.detail, entry.given_reason))
                .all(|s| s.is_empty())
        );
    }
}
