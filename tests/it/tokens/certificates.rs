//! Certificates that a token pays for.

use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, IssueCertificateRequest, IssueCertificateResponse, ListCertificatesRequest,
    PutCertificateRoleRequest, SignCertificateRequest, SignCertificateResponse, SubjectNames,
};

use super::spending::{findings, is_spent};
use super::*;
use crate::support::hand::Hand;
use crate::support::node::csr;
use crate::support::target::{World, until};

const KEY: &str = "a-key-of-the-test";

pub(super) async fn world(backend: Backend) -> World {
    let world = World::new(backend).await;
    let role = PutCertificateRoleRequest {
        name: "etl".into(),
        allowed_dns: vec!["etl.test".into()],
        ..Default::default()
    };
    PkiServiceClient::new(world.admin.clone()).put_role(role).await.unwrap();
    for action in ["pki.sign", "pki.issue"] {
        let grant = |grant| AddGrantRequest {
            action: action.to_owned(),
            resource: "pki/etl".into(),
            ..grant
        };
        world.grant("nightly-etl", grant).await.unwrap();
    }
    world
}

fn names() -> SubjectNames {
    SubjectNames { dns: vec!["etl.test".into()], ..Default::default() }
}

fn order(csr_pem: &str, key: &str) -> SignCertificateRequest {
    SignCertificateRequest {
        role: "etl".into(),
        csr_pem: csr_pem.to_owned(),
        names: Some(names()),
        idempotency_key: key.to_owned(),
        ..Default::default()
    }
}

async fn sign(
    bearer: &Bearing,
    request: SignCertificateRequest,
) -> Result<SignCertificateResponse, Status> {
    let mut client = PkiServiceClient::new(bearer.clone());
    Ok(client.sign_certificate(request).await?.into_inner())
}

pub(super) async fn issue(
    bearer: &Bearing,
    key: &str,
    replace: bool,
) -> Result<IssueCertificateResponse, Status> {
    let request = IssueCertificateRequest {
        role: "etl".into(),
        names: Some(names()),
        idempotency_key: key.to_owned(),
        replace,
        ..Default::default()
    };
    let mut client = PkiServiceClient::new(bearer.clone());
    Ok(client.issue_certificate(request).await?.into_inner())
}

pub(super) async fn state(world: &World, id: &str) -> String {
    let mut client = PkiServiceClient::new(world.admin.clone());
    let request = ListCertificatesRequest { identity: "nightly-etl".into(), ..Default::default() };
    let listed = client.list_certificates(request).await.unwrap().into_inner();
    listed.certificates.into_iter().find(|one| one.id == id).unwrap().state
}

async fn states(world: &World) -> Vec<String> {
    let mut client = PkiServiceClient::new(world.admin.clone());
    let request = ListCertificatesRequest { identity: "nightly-etl".into(), ..Default::default() };
    let listed = client.list_certificates(request).await.unwrap().into_inner();
    listed.certificates.into_iter().map(|one| one.state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_use_pays_for_one_certificate_which_a_retry_finds() {
    for backend in BACKENDS {
        let world = world(backend).await;
        let single = TokenOrder { uses: 1, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", single).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let (_, csr_pem) = csr();
        let paid = sign(&bearer, order(&csr_pem, KEY)).await.unwrap();
        // The same call is answered again; another one hears that the token is spent.
        let again = sign(&bearer, order(&csr_pem, KEY)).await.unwrap();
        assert_eq!(again.certificate.unwrap().id, paid.certificate.unwrap().id);
        for other in [order(&csr_pem, ""), order(&csr_pem, "another-key-of-the-test")] {
            let refusal = sign(&bearer, other).await.unwrap_err();
            assert!(is_spent(&refusal), "{refusal}");
        }
        assert_eq!(findings(&world.f).await.len(), 2);
        assert_eq!(states(&world).await, ["active"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_use_paid_for_is_replaced_without_another_within_its_minute() {
    for backend in BACKENDS {
        let world = world(backend).await;
        let single = TokenOrder { uses: 1, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", single).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let first = issue(&bearer, KEY, false).await.unwrap();
        assert!(first.private_key_pem.contains("PRIVATE KEY"));
        assert!(issue(&bearer, KEY, false).await.unwrap().private_key_pem.is_empty());
        let second = issue(&bearer, KEY, true).await.unwrap();
        assert!(second.private_key_pem.contains("PRIVATE KEY"));
        assert_eq!(states(&world).await, ["revoked", "active"]);
        world.f.clock.advance(Duration::from_secs(61));
        assert!(issue(&bearer, KEY, true).await.unwrap().private_key_pem.is_empty());
        assert_eq!(states(&world).await, ["revoked", "active"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_replace_what_a_use_paid_for_none_hears_that_its_key_is_used_up() {
    for backend in BACKENDS {
        let world = world(backend).await;
        let single = TokenOrder { uses: 1, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", single).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        issue(&bearer, KEY, false).await.unwrap();
        let race = (0..24).map(|n| issue(&bearer, KEY, n % 2 == 0));
        for issued in futures_util::future::join_all(race).await {
            let code = issued.map_or_else(|refusal| refusal.code(), |_| Code::Ok);
            assert!([Code::Ok, Code::Unavailable, Code::Aborted].contains(&code), "{code:?}");
        }
        let active = states(&world).await.into_iter().filter(|state| state == "active");
        assert_eq!(active.count(), 1, "{backend:?}");
        assert!(findings(&world.f).await.is_empty(), "nobody is accused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_use_paid_for_is_found_until_the_end_of_its_token() {
    const DAY_S: i64 = 86_400;
    for backend in BACKENDS {
        let world = world(backend).await;
        let order = TokenOrder { uses: 1, max_ttl_s: 3 * DAY_S, ..with(3 * DAY_S) };
        let token = mint(&world.admin, "nightly-etl", order).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let id = |issued: IssueCertificateResponse| issued.certificate.unwrap().id;
        let first = id(issue(&bearer, KEY, false).await.unwrap());
        // Longer than other keys are kept.
        world.f.clock.advance(Duration::from_hours(40));
        world.f.node().vault.purge_retries().await.unwrap();
        let again = issue(&bearer, KEY, false).await.unwrap();
        assert!(again.replayed);
        assert_eq!(id(again), first);
        assert!(is_spent(&issue(&bearer, "another-key-of-the-test", false).await.unwrap_err()));
        world.f.clock.advance(Duration::from_hours(33));
        let refusal = issue(&bearer, KEY, false).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
        assert!(!is_spent(&refusal), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_race_for_one_use_and_one_certificate_is_signed_of_it() {
    for backend in BACKENDS {
        let world = world(backend).await;
        let single = TokenOrder { uses: 1, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", single).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let (_, csr_pem) = csr();
        let race = (0..8).map(|_| sign(&bearer, order(&csr_pem, "")));
        let answers = futures_util::future::join_all(race).await;
        let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(good.len(), 1);
        assert!(bad.into_iter().all(|refusal| is_spent(&refusal.unwrap_err())));
        assert_eq!(states(&world).await, ["active"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_for_is_neither_shown_nor_replaced_once_another_node_revoked_the_token() {
    let world = world(Backend::Postgres).await;
    let other = world.f.second_node().await;
    let administrator = plain(&world.f.connect_to(&other, &world.f.admin).await);
    for replace in [false, true] {
        let single = TokenOrder { uses: 1, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", single).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let accessor = inspect(&bearer, "").await.unwrap().accessor;
        // The caller's, not the token's: one that the first round has not used.
        let key = format!("a-key-of-the-test-{replace}");
        for _ in 0..2 {
            // The second one leaves the caller in this node's memory.
            issue(&bearer, &key, false).await.unwrap();
        }
        revoke(&administrator, &accessor).await.unwrap();
        let refusal = issue(&bearer, &key, replace).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
    }
    until("they are revoked", async || states(&world).await == ["revoked", "revoked"]).await;
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_token_ends_the_certificates_that_were_asked_for_with_it_alone() {
    for backend in BACKENDS {
        let world = world(backend).await;
        let token = mint(&world.admin, "nightly-etl", with(0)).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let (_, csr_pem) = csr();
        sign(&bearer, order(&csr_pem, "")).await.unwrap();
        sign(&plain(&world.etl), order(&csr_pem, "")).await.unwrap();
        revoke(&bearer, "").await.unwrap();
        until("it is revoked", async || states(&world).await == ["revoked", "active"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_to_the_store_gets_no_second_certificate_for_one_use() {
    for backend in BACKENDS {
        let world = world(backend).await;
        let hand = Hand::new(&world.f.parts.location);
        let single = TokenOrder { uses: 1, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", single).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        let id = |issued: IssueCertificateResponse| issued.certificate.unwrap().id;
        let first = id(issue(&bearer, KEY, true).await.unwrap());
        let second = id(issue(&bearer, KEY, true).await.unwrap());
        assert_ne!(first, second);
        // The one that ended already, as if the call had made that.
        let edit = format!("UPDATE idempotency SET object = '{first}' WHERE object = '{second}'");
        hand.run(&edit).await;
        for replace in [true, false] {
            let again = issue(&bearer, KEY, replace).await.unwrap();
            assert!(again.replayed && again.private_key_pem.is_empty());
        }
        assert_eq!(states(&world).await, ["revoked", "active"]);
    }
}
