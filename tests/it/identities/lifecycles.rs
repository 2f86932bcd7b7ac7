//! Life-cycle policies: what they cap, whom they suspend, what is told beforehand.

use std::time::Duration;

use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    IssueCredentialsRequest, IssueLoginCertificateRequest, Lifecycle, ListEntriesRequest,
    ListLifecyclesRequest, PutLifecycleRequest, SignCertificateRequest, UpdateIdentityRequest,
};

use super::*;
use crate::support::logins::login;
use crate::support::target::{World, ask, issue, until};

pub(super) const DAY_S: i64 = 86_400;

pub(super) async fn put(client: &mut Client, lifecycle: Lifecycle) -> Result<Lifecycle, Status> {
    let request = PutLifecycleRequest { lifecycle: Some(lifecycle) };
    Ok(client.put_lifecycle(request).await?.into_inner().lifecycle.unwrap())
}

pub(super) async fn listed(client: &mut Client, kind: &str) -> Lifecycle {
    let all = client.list_lifecycles(ListLifecyclesRequest {}).await.unwrap().into_inner();
    all.lifecycles.into_iter().find(|one| one.kind == kind).unwrap()
}

pub(super) fn brief(kind: &str, seconds: i64) -> Lifecycle {
    Lifecycle {
        kind: kind.to_owned(),
        max_ttl_s: seconds,
        max_age_s: seconds,
        rotation_s: seconds,
        ..Lifecycle::default()
    }
}

pub(super) async fn issue_cert(client: &mut Client, name: &str, ttl_s: i64) -> Result<i64, Status> {
    let request = IssueLoginCertificateRequest {
        name: name.to_owned(),
        csr_pem: csr().1,
        ttl_s,
        ..IssueLoginCertificateRequest::default()
    };
    let issued = client.issue_login_certificate(request).await?.into_inner();
    Ok(issued.expires_at_ms - issued.not_before_ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_vault_says_how_each_kind_lives_and_what_is_put_comes_back() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let all = client.list_lifecycles(ListLifecyclesRequest {}).await.unwrap().into_inner();
        let kinds: Vec<_> = all.lifecycles.iter().map(|one| one.kind.as_str()).collect();
        assert_eq!(kinds, ["human", "agent", "model", "dataset", "pipeline", "service", "runner"]);
        assert_eq!(listed(&mut client, "service").await.rotation_s, 90 * DAY_S);
        let wanted = Lifecycle {
            dormant_after_s: DAY_S,
            notice_s: 60,
            single_use: true,
            ..brief("agent", 3_600)
        };
        assert!(listed(&mut client, "runner").await.single_use);
        assert!(!listed(&mut client, "agent").await.single_use);
        let now = put(&mut client, wanted.clone()).await.unwrap();
        assert!(now.single_use);
        assert_eq!((now.max_ttl_s, now.dormant_after_s, now.notice_s), (3_600, DAY_S, 60));
        assert_eq!(
            (now.clone(), now.changed_by.as_str()),
            (listed(&mut client, "agent").await, "admin")
        );
        let again = put(&mut client, now.clone()).await.unwrap();
        assert_eq!(again.max_age_s, now.max_age_s, "a put takes what a list gave");
        for bad in [
            Lifecycle { kind: "bootstrap".into(), ..wanted.clone() },
            Lifecycle { kind: "Agent".into(), ..wanted.clone() },
            Lifecycle { max_ttl_s: 0, ..wanted.clone() },
            Lifecycle { max_ttl_s: 59, ..wanted.clone() },
            Lifecycle { max_ttl_s: 3_601, ..wanted.clone() },
            Lifecycle { max_age_s: i64::MAX, ..wanted.clone() },
            Lifecycle { rotation_s: -1, ..wanted.clone() },
            Lifecycle { dormant_after_s: DAY_S - 1, ..wanted.clone() },
            Lifecycle { notice_s: 398 * DAY_S, ..wanted.clone() },
        ] {
            let refusal = put(&mut client, bad.clone()).await.unwrap_err();
            assert_eq!(refusal.code(), Code::InvalidArgument, "{bad:?}");
        }
        let nothing = client.put_lifecycle(PutLifecycleRequest { lifecycle: None }).await;
        assert_eq!(nothing.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(listed(&mut client, "agent").await, again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_issued_outlives_what_its_kind_may() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut client = Client::new(w.admin.clone());
        // Of the bearer's kind, not of who signs.
        register(&w.f, "bot", "agent", "admin").await;
        put(&mut client, brief("human", 3_600)).await.unwrap();
        let bound = Lifecycle { rotation_s: 7_200, ..brief("agent", 86_400) };
        put(&mut client, bound).await.unwrap();
        let refusal = issue_cert(&mut client, "bot", 7_201).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "what is asked for is not cut");
        issue_cert(&mut client, "bot", 7_200).await.unwrap();
        let lives = issue_cert(&mut client, "bot", 0).await.unwrap() / 1_000;
        assert!((7_100..7_400).contains(&lives), "rotation bounds a login: {lives}");
        let bound = Lifecycle { max_ttl_s: 300, max_age_s: 900, ..brief("pipeline", 3_600) };
        put(&mut client, bound).await.unwrap();
        let refusal = issue(&w.etl, IssueCredentialsRequest { ttl_s: 301, ..ask() }).await;
        assert_eq!(refusal.unwrap_err().code(), Code::InvalidArgument);
        let order = holdings::certificate(&w).await;
        let longer = SignCertificateRequest { ttl_s: 301, ..order.clone() };
        assert_eq!(sign(&w, longer).await.unwrap_err().code(), Code::InvalidArgument);
        let lives = sign(&w, order).await.unwrap();
        assert!((298..=301).contains(&lives), "what nobody asked a time for is cut: {lives}");
        let issued = w.issue().await.unwrap();
        let lease = w.lease(&issued.lease_id).await;
        assert_eq!(lease.expires_at_ms - lease.created_at_ms, 300_000);
        assert_eq!(lease.max_expires_at_ms - lease.created_at_ms, 900_000);
        // Renewing moves the end by the longest TTL at most, and never past the greatest age.
        w.advance(200);
        let renew =
            |ttl_s| strongroom::proto::RenewLeaseRequest { id: issued.lease_id.clone(), ttl_s };
        let mut leases =
            strongroom::proto::lease_service_client::LeaseServiceClient::new(w.etl.clone());
        let refusal = leases.renew_lease(renew(301)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        let renewed = leases.renew_lease(renew(300)).await.unwrap().into_inner().lease.unwrap();
        let lives = (renewed.expires_at_ms - renewed.created_at_ms) / 1_000;
        assert!((500..510).contains(&lives), "{lives}");
        // What is put later holds for the next renewal, which shortens nothing.
        put(&mut client, brief("pipeline", 400)).await.unwrap();
        let renewed = leases.renew_lease(renew(0)).await.unwrap().into_inner().lease.unwrap();
        assert_eq!((renewed.expires_at_ms - renewed.created_at_ms) / 1_000, lives);
    }
}

/// Has a certificate signed for the world's pipeline; how many seconds it lives.
async fn sign(w: &World, request: SignCertificateRequest) -> Result<i64, Status> {
    let mut client = PkiServiceClient::new(w.etl.clone());
    let signed = client.sign_certificate(request).await?.into_inner().certificate.unwrap();
    Ok((signed.expires_at_ms - signed.created_at_ms) / 1_000)
}

async fn reasons(f: &Fixture) -> Vec<String> {
    f.node().vault.integrate().await.unwrap();
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    let filter = EntryFilter { action: "identities.suspend".into(), ..Default::default() };
    let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
    let page = client.list_entries(request).await.unwrap().into_inner();
    page.entries.iter().map(|entry| format!("{} {}", entry.identity, entry.given_reason)).collect()
}

async fn until_suspended(client: &Client, name: &str) -> Identity {
    until("it is suspended", async || {
        show(&mut client.clone(), name).await.unwrap().state == "suspended"
    })
    .await;
    show(&mut client.clone(), name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_over_or_unused_for_too_long_is_suspended_and_the_record_says_why() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        put(&mut client, Lifecycle { dormant_after_s: 2 * DAY_S, ..brief("pipeline", DAY_S) })
            .await
            .unwrap();
        let over = CreateIdentityRequest { ttl_s: 3_600, ..registration("over", "agent", "admin") };
        create(&mut client, over).await.unwrap();
        let mut used = Client::new(machine(&f, "used").await);
        machine(&f, "idle").await;
        register(&f, "waiting", "pipeline", "admin").await;
        f.clock.advance(Duration::from_hours(2));
        until("it is suspended", async || {
            // The worker waits for a whole minute after its start.
            f.clock.advance(Duration::from_secs(5));
            show(&mut client.clone(), "over").await.unwrap().state == "suspended"
        })
        .await;
        let ended = show(&mut client, "over").await.unwrap();
        assert_eq!(ended.changed_by, "lifecycle_keeper");
        // The fixture's logins last a day: a second one is signed before the first ends.
        f.clock.advance(Duration::from_hours(20));
        let next = login(&f, "used").await;
        let administrator = login(&f, "admin").await;
        used.who_am_i(WhoAmIRequest {}).await.unwrap();
        f.clock.advance(Duration::from_hours(20));
        Client::new(f.connect(&next).await).who_am_i(WhoAmIRequest {}).await.unwrap();
        f.node().vault.flush_usage().await.unwrap();
        let client = Client::new(f.connect(&administrator).await);
        f.clock.advance(Duration::from_hours(3));
        assert_eq!(show(&mut client.clone(), "idle").await.unwrap().state, "active");
        f.admin = administrator;
        f.admin = login(&f, "admin").await;
        f.clock.advance(Duration::from_hours(6));
        let client = admin(&f).await;
        until_suspended(&client, "idle").await;
        for name in ["used", "waiting", "admin"] {
            let state = show(&mut client.clone(), name).await.unwrap().state;
            assert_ne!(state, "suspended", "{name}");
        }
        let said = reasons(&f).await;
        assert!(said.iter().any(|said| said.contains("its end has passed")), "{said:?}");
        assert!(said.iter().any(|said| said.contains("it was not used")), "{said:?}");
        let resumed =
            strongroom::proto::ResumeIdentityRequest { name: "idle".into(), ..Default::default() };
        client.clone().resume_identity(resumed).await.unwrap();
        f.clock.advance(Duration::from_hours(2));
        login(&f, "idle").await;
        assert_eq!(
            show(&mut client.clone(), "idle").await.unwrap().state,
            "active",
            "it rests anew"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_older_than_its_kinds_rotation_is_ended_and_the_record_says_why() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let etl = machine(&f, "etl").await;
        let token = crate::support::tokens::token(&etl, 85_000).await.bearer;
        let mut old = Client::new(etl);
        f.clock.advance(Duration::from_hours(20));
        let mut new = Client::new(f.connect(&login(&f, "etl").await).await);
        let mut bot = Client::new(machine(&f, "bot").await);
        put(&mut client, brief("pipeline", 36_000)).await.unwrap();
        put(&mut client, brief("human", 3_600)).await.unwrap();
        for client in [&mut old, &mut new, &mut bot] {
            client.who_am_i(WhoAmIRequest {}).await.unwrap();
        }
        // The worker waits for an hour after it began, which may be a second from now; the others' time
        // is not over by then, however slow it is.
        let left = std::cell::Cell::new(75);
        until("the old one is refused", async || {
            if left.replace(left.get() - 1) > 0 {
                f.clock.advance(Duration::from_mins(2));
            }
            old.clone().who_am_i(WhoAmIRequest {}).await.is_err()
        })
        .await;
        // As by time: what was made with it lives on, and the only administrator goes on.
        let nobody = f.connect_as_nobody().await;
        let mut bearing =
            IdentityServiceClient::new(crate::support::tokens::bearing(&nobody, &token));
        bearing.who_am_i(WhoAmIRequest {}).await.unwrap();
        for client in [&mut new, &mut bot, &mut client] {
            client.who_am_i(WhoAmIRequest {}).await.unwrap();
        }
        f.node().vault.integrate().await.unwrap();
        let filter = EntryFilter {
            action: "identities.end-login".into(),
            outcome: "ok".into(),
            ..Default::default()
        };
        let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
        let mut record = RecordServiceClient::new(f.connect(&f.admin).await);
        let entries = record.list_entries(request).await.unwrap().into_inner().entries;
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(
            (entry.resource.as_str(), entry.identity.as_str()),
            ("identities/etl", "system/lifecycle_keeper")
        );
        assert!(entry.given_reason.contains("rotation"), "{entry:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_near_is_told_to_whom_it_concerns() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let mut etl = Client::new(machine(&f, "etl").await);
    let codes = |answer: strongroom::proto::WhoAmIResponse| -> Vec<String> {
        answer.notices.into_iter().map(|notice| notice.code).collect()
    };
    let told = etl.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(codes(told), ["DEVELOPMENT_VAULT"]);
    let nearer =
        UpdateIdentityRequest { name: "etl".into(), ttl_s: Some(10 * DAY_S), ..Default::default() };
    client.update_identity(nearer).await.unwrap();
    let told = etl.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(codes(told), ["DEVELOPMENT_VAULT", "IDENTITY_EXPIRES_SOON"]);
    f.clock.advance(Duration::from_hours(20));
    let told = etl.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    let all = ["DEVELOPMENT_VAULT", "IDENTITY_EXPIRES_SOON", "CREDENTIAL_EXPIRES_SOON"];
    assert_eq!(codes(told), all);
}
