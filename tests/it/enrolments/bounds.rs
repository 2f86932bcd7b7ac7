//! How long what an enrolment gives lives, and how much of it there is.

use strongroom::proto::{CreateIdentityRequest, Lifecycle, PutLifecycleRequest};

use super::*;
use crate::support::logins::registration;

/// Says how pipelines live.
async fn live(scene: &Scene, max_ttl_s: i64, max_age_s: i64) {
    let mut client = IdentityServiceClient::new(scene.f.connect(&scene.f.admin).await);
    let lifecycle = Lifecycle {
        kind: "pipeline".into(),
        max_ttl_s,
        max_age_s,
        rotation_s: max_age_s,
        ..Default::default()
    };
    let request = PutLifecycleRequest { lifecycle: Some(lifecycle) };
    client.put_lifecycle(request).await.unwrap();
}

/// How long a login lives from now on, in seconds.
fn left(scene: &Scene, login: &EnrolledLogin) -> i64 {
    login.expires_at_ms / 1_000 - scene.f.node().vault.now().unwrap().seconds()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_live_as_their_kind_does_and_a_lineage_no_longer_than_its_age() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        live(&scene, 3_600, 7_200).await;
        let mut login = scene.joined().await;
        for (after, lives) in [(3_000, 3_600), (3_500, 700)] {
            scene.advance(after);
            let (key_pem, csr_pem) = csr();
            let next = scene.renew(&login, &csr_pem).await.unwrap();
            assert!((lives - 5..=lives).contains(&left(&scene, &next)), "{after}");
            login = Login { key_pem, certificate_pem: next.certificate_pem };
        }
        scene.advance(650);
        let refusal = scene.renew(&login, &csr().1).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert!(refusal.message().contains("enrol it again"), "{refusal}");
        assert_eq!(scene.states().await, ["joined"], "that locks nothing");
        scene.joined().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_lives_no_longer_than_what_its_kind_may() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        live(&scene, 300, 7_200).await;
        for (ttl_s, lives_s) in [(0, 300), (3_600, 300), (60, 60)] {
            let identity = "etl".to_owned();
            let ask = CreateEnrolmentRequest { identity, ttl_s, ..Default::default() };
            let (_, made) = order(&scene.admin, ask).await.unwrap();
            assert_eq!(made.expires_at_ms - made.created_at_ms, lives_s * 1_000, "{ttl_s}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_ends_with_its_identity_and_a_key_is_not_logged_in_with_for_ever() {
    let scene = Scene::new(Backend::Sqlite).await;
    let mut identities = IdentityServiceClient::new(scene.f.connect(&scene.f.admin).await);
    let short = registration("short", "pipeline", "admin");
    let short = CreateIdentityRequest { ttl_s: 1_800, ..short };
    identities.create_identity(short).await.unwrap();
    let (token, _) = enroll(&scene.admin, "short").await.unwrap();
    let login = scene.join(&token, &csr().1).await.unwrap();
    assert!((1_790..=1_800).contains(&left(&scene, &login)));

    live(&scene, 3_600, 7_200).await;
    let (token, (key_pem, csr_pem)) = (scene.token().await, csr());
    let joined = scene.join(&token, &csr_pem).await.unwrap();
    let mut login = Login { key_pem, certificate_pem: joined.certificate_pem };
    scene.advance(3_500);
    // With its own key again: that is no other secret.
    let next = scene.renew(&login, &csr_pem).await.unwrap();
    assert_ne!(next.serial, joined.serial);
    login.certificate_pem = next.certificate_pem;
    scene.advance(3_500);
    let last = scene.renew(&login, &csr_pem).await.unwrap();
    assert!(left(&scene, &last) <= 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_a_bounded_number_of_open_tokens_and_a_lineage_of_renewals() {
    let scene = Scene::new(Backend::Sqlite).await;
    let mut login = scene.joined().await;
    for _ in 0..100 {
        scene.token().await;
    }
    let refusal = enroll(&scene.admin, "etl").await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    scene.advance(600);
    scene.token().await;
    for _ in 0..16 {
        let (key_pem, csr_pem) = csr();
        let next = scene.renew(&login, &csr_pem).await.unwrap();
        login = Login { key_pem, certificate_pem: next.certificate_pem };
    }
    let refusal = scene.renew(&login, &csr().1).await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(scene.who(&login).await.unwrap(), "etl");
}
