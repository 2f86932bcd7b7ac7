//! Rotation: how long identities log in with one certificate, and with one key.

use std::time::Duration;

use strongroom::proto::{IssueLoginCertificateRequest, Lifecycle, UpdateIdentityRequest};

use super::lifecycles::{DAY_S, brief, issue_cert, listed, put};
use super::*;
use crate::support::logins::login;
use crate::support::target::until;

fn in_development(name: &str) -> CreateIdentityRequest {
    let labels = [("environment".to_owned(), "development".to_owned())].into();
    CreateIdentityRequest { labels, ..registration(name, "pipeline", "admin") }
}

/// Sooner for what is labelled.
fn sooner(rotation_s: i64, development_rotation_s: i64) -> Lifecycle {
    Lifecycle { rotation_s, development_rotation_s, ..brief("pipeline", 86_400) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_vault_rotates_logins_in_production_by_90_days_and_in_development_by_30() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    for (kind, days, development) in [
        ("service", 90, 30),
        ("pipeline", 90, 30),
        ("human", 30, 30),
        ("agent", 30, 30),
        ("runner", 7, 7),
    ] {
        let found = listed(&mut client, kind).await;
        let found = (found.rotation_s / DAY_S, found.development_rotation_s / DAY_S);
        assert_eq!(found, (days, development), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_what_is_labelled_as_development_lives_as_long_as_that_rotation() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        for bad in [7_201, 59, -1] {
            let refusal = put(&mut client, sooner(7_200, bad)).await.unwrap_err();
            assert_eq!(refusal.code(), Code::InvalidArgument, "{bad}");
        }
        let now = put(&mut client, sooner(7_200, 0)).await.unwrap();
        assert_eq!(now.development_rotation_s, 7_200, "left out it is no longer than the other");
        put(&mut client, sooner(7_200, 3_600)).await.unwrap();
        create(&mut client, in_development("trial")).await.unwrap();
        let labels = [("environment", "production"), ("env", "development")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let other = CreateIdentityRequest { labels, ..registration("real", "pipeline", "admin") };
        create(&mut client, other).await.unwrap();
        register(&f, "plain", "pipeline", "admin").await;
        for (name, most_s) in [("trial", 3_600), ("real", 7_200), ("plain", 7_200)] {
            let refusal = issue_cert(&mut client, name, most_s + 1).await.unwrap_err();
            assert_eq!(refusal.code(), Code::InvalidArgument, "{name}");
            issue_cert(&mut client, name, most_s).await.unwrap();
        }
    }
}

/// What the worker did to logins, in whatever way it ended.
async fn ended(f: &Fixture) -> Vec<String> {
    f.node().vault.integrate().await.unwrap();
    let action = "identities.end-login".to_owned();
    let filter = Some(EntryFilter { action, ..Default::default() });
    let request = ListEntriesRequest { filter, ..Default::default() };
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    let entries = client.list_entries(request).await.unwrap().into_inner().entries;
    entries.into_iter().map(|entry| format!("{} {}", entry.resource, entry.outcome)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_ends_logins_that_are_too_old_for_it_and_touches_no_other() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let etl = Client::new(machine(&f, "etl").await);
        let mut real = Client::new(machine(&f, "real").await);
        put(&mut client, sooner(50_000, 3_600)).await.unwrap();
        f.clock.advance(Duration::from_hours(2));
        let set_labels = [("environment".to_owned(), "development".to_owned())].into();
        let label = UpdateIdentityRequest { name: "etl".into(), set_labels, ..Default::default() };
        client.update_identity(label).await.unwrap();
        // The worker looks once an hour.
        until("the old one is refused", async || {
            f.clock.advance(Duration::from_mins(2));
            etl.clone().who_am_i(WhoAmIRequest {}).await.is_err()
        })
        .await;
        let mut anew = Client::new(f.connect(&login(&f, "etl").await).await);
        for client in [&mut real, &mut anew] {
            client.who_am_i(WhoAmIRequest {}).await.unwrap();
        }
        assert_eq!(ended(&f).await, ["identities/etl ok"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_for_a_key_outlives_the_rotation_since_its_first_one() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let client = admin(&f).await;
        put(&mut client.clone(), brief("pipeline", 7_200)).await.unwrap();
        for name in ["etl", "other"] {
            register(&f, name, "pipeline", "admin").await;
        }
        let sign = async |name: &str, csr_pem: &str| {
            let (name, csr_pem) = (name.to_owned(), csr_pem.to_owned());
            let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
            let issued = client.clone().issue_login_certificate(request).await?.into_inner();
            Ok::<_, Status>((issued.expires_at_ms - issued.not_before_ms) / 1_000)
        };
        let key = csr().1;
        let lives = sign("etl", &key).await.unwrap();
        assert!((7_100..7_400).contains(&lives), "{lives}");
        f.clock.advance(Duration::from_hours(1));
        let lives = sign("etl", &key).await.unwrap();
        assert!((3_500..3_800).contains(&lives), "the same key has an hour left: {lives}");
        f.clock.advance(Duration::from_secs(3_570));
        let refusal = sign("etl", &key).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
        f.clock.advance(Duration::from_hours(9));
        assert_eq!(sign("etl", &key).await.unwrap_err().code(), Code::FailedPrecondition);
        // It is counted for each identity, and another key is another secret.
        assert!(sign("other", &key).await.unwrap() > 7_000);
        assert!(sign("etl", &csr().1).await.unwrap() > 7_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_for_a_key_that_is_too_old_is_ended_as_well() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let client = admin(&f).await;
        put(&mut client.clone(), sooner(80_000, 40_000)).await.unwrap();
        register(&f, "etl", "pipeline", "admin").await;
        let (key_pem, csr_pem) = csr();
        let sign = async |csr_pem: &str, ttl_s: i64| {
            let (name, csr_pem) = ("etl".to_owned(), csr_pem.to_owned());
            let request =
                IssueLoginCertificateRequest { name, csr_pem, ttl_s, ..Default::default() };
            client.clone().issue_login_certificate(request).await.unwrap().into_inner()
        };
        sign(&csr_pem, 3_600).await;
        f.clock.advance(Duration::from_hours(12));
        // The key is twelve hours old, its certificate a moment.
        let certificate_pem = sign(&csr_pem, 0).await.certificate_pem;
        let old = Client::new(f.connect(&Login { key_pem, certificate_pem }).await);
        old.clone().who_am_i(WhoAmIRequest {}).await.unwrap();
        let set_labels = [("environment".to_owned(), "development".to_owned())].into();
        let label = UpdateIdentityRequest { name: "etl".into(), set_labels, ..Default::default() };
        client.clone().update_identity(label).await.unwrap();
        let (key_pem, csr_pem) = csr();
        let certificate_pem = sign(&csr_pem, 0).await.certificate_pem;
        let mut new = Client::new(f.connect(&Login { key_pem, certificate_pem }).await);
        // The worker looks once an hour.
        until("the old key is refused", async || {
            f.clock.advance(Duration::from_mins(2));
            old.clone().who_am_i(WhoAmIRequest {}).await.is_err()
        })
        .await;
        new.who_am_i(WhoAmIRequest {}).await.unwrap();
        assert_eq!(ended(&f).await, ["identities/etl ok"]);
    }
}
