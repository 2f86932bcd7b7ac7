//! Attacks on what every request goes through: by callers with stale rights, and by somebody who
//! can write to the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use strongroom::hsm::memory::MemoryFault;
use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, Entry, EntryFilter, IssueCertificateRequest,
    ListEntriesRequest, PutCertificateRoleRequest, RemoveMemberRequest, SubjectNames,
    SuspendIdentityRequest, WhoAmIRequest,
};
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, RequestContext, ResourceName};
use strongroom::vault::{Decision, Operation, READS, Resource, Vault, Verb, View};
use strongroom::{Error, Result};
use tokio::sync::Notify;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::hand::Hand;
use crate::support::logins::{fingerprint, human, login, machine, register};
use crate::support::node::{BACKENDS, Backend, Fixture, Login};

const KEY: &str = "0123456789abcdef0123456789abcdef";

async fn identities(f: &Fixture) -> IdentityServiceClient<Channel> {
    IdentityServiceClient::new(f.connect(&f.admin).await)
}

async fn knock(channel: &Channel) -> Code {
    let answer = IdentityServiceClient::new(channel.clone()).who_am_i(WhoAmIRequest {}).await;
    answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

async fn grant(f: &Fixture, to: &str, action: &str, resource: &str) {
    let request = AddGrantRequest {
        subject: Some(Subject::Identity(to.to_owned())),
        action: action.to_owned(),
        resource: resource.to_owned(),
        ..AddGrantRequest::default()
    };
    GrantServiceClient::new(f.connect(&f.admin).await).add_grant(request).await.unwrap();
}

async fn promote(f: &Fixture, name: &str) {
    let request =
        AddMemberRequest { group: "administrators".to_owned(), identity: name.to_owned() };
    GroupServiceClient::new(f.connect(&f.admin).await).add_member(request).await.unwrap();
}

async fn demote(f: &Fixture, name: &str) {
    let request =
        RemoveMemberRequest { group: "administrators".to_owned(), identity: name.to_owned() };
    GroupServiceClient::new(f.connect(&f.admin).await).remove_member(request).await.unwrap();
}

async fn suspend(f: &Fixture, name: &str) -> Result<(), tonic::Status> {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    identities(f).await.suspend_identity(request).await.map(drop)
}

async fn entries(f: &Fixture, action: &str, outcome: &str) -> Vec<Entry> {
    f.node().vault.integrate().await.unwrap();
    let filter = EntryFilter {
        action: action.to_owned(),
        outcome: outcome.to_owned(),
        ..EntryFilter::default()
    };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    client.list_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_answered_to_whom_lost_the_right_to_hear_it() {
    let f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    register(&f, "carol", "human", "").await;
    let carol = f.connect_to(&other, &login(&f, "carol").await).await;
    for _ in 0..5 {
        promote(&f, "carol").await;
        let ask = || {
            let request =
                SuspendIdentityRequest { name: "nobody-here".into(), ..Default::default() };
            let mut client = IdentityServiceClient::new(carol.clone());
            async move { client.suspend_identity(request).await.unwrap_err().code() }
        };
        assert_eq!(ask().await, Code::NotFound, "an administrator may hear it");
        demote(&f, "carol").await;
        // What the other node keeps of her is stale.
        assert_eq!(ask().await, Code::PermissionDenied);
    }
    drop(carol);
    other.stop().await.unwrap();
}

/// Looks at who asks, once it is let through.
struct Peek {
    reached: Option<Arc<Notify>>,
    go: Arc<Notify>,
    /// How often it was decided.
    decided: Arc<AtomicUsize>,
}

#[async_trait]
impl Verb for Peek {
    const ACTION: &'static str = "pki.sign";
    type Prepared = bool;
    type Output = bool;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        self.decided.fetch_add(1, Ordering::Relaxed);
        if let Some(reached) = &self.reached {
            reached.notify_one();
            self.go.notified().await;
            // Where it is decided once more, it does not wait again.
            self.go.notify_one();
        }
        Ok(vec![Resource::named(ResourceName::join("pki", &["web"])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<bool> {
        Ok(view.subject()?.is_administrator())
    }
}

#[async_trait]
impl Operation for Peek {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        was: &bool,
        _: &Decision,
    ) -> Result<bool> {
        Ok(*was)
    }
}

async fn context(vault: &Vault, login: &Login) -> RequestContext {
    let found = fingerprint(&login.certificate_pem);
    let caller = vault.authenticate_certificate(found, |_| true).await.unwrap();
    vault.context(Caller::Identity(caller), None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_sees_the_caller_whose_rows_its_fence_holds() {
    let f = Fixture::new().await;
    let vault = f.node().vault.clone();
    register(&f, "carol", "human", "").await;
    promote(&f, "carol").await;
    grant(&f, "carol", "pki.sign", "pki/web").await;
    let carol = login(&f, "carol").await;
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (decided, quickly) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = Peek {
        reached: Some(Arc::clone(&reached)),
        go: Arc::clone(&go),
        decided: Arc::clone(&decided),
    };
    let ctx = context(&vault, &carol).await;
    let (was, ()) = tokio::join!(vault.run(&ctx, slow), async {
        // The slow call has its view of an administrator; she is none when it goes on, and what a
        // quick call of hers was decided on is kept.
        reached.notified().await;
        demote(&f, "carol").await;
        for _ in 0..2 {
            let (go, decided) = (Arc::clone(&go), Arc::clone(&quickly));
            let quick = Peek { reached: None, go, decided };
            let ctx = context(&vault, &carol).await;
            assert_eq!(vault.run(&ctx, quick).await, Ok(false));
        }
        go.notify_one();
    });
    assert_eq!(was, Ok(false));
    // What is kept of the quick calls is of somebody whom the slow one did not see: it is decided on
    // whom it saw, which does not stand any more, and then once more.
    assert_eq!(decided.load(Ordering::Relaxed), 2);
    assert_eq!(quickly.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_epoch_set_back_keeps_nobody_alive_for_more_than_a_second() {
    let f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    let hand = Hand::new(&f.parts.location);
    register(&f, "carol", "human", "").await;
    let carol = f.connect_to(&other, &login(&f, "carol").await).await;
    // All that moved before is noticed: from here on the other node keeps her.
    other.vault.watch_authority().await.unwrap();
    assert_eq!(knock(&carol).await, Code::Ok);
    let epoch = hand.ask("SELECT '' || epoch FROM authority").await.remove(0);
    // The other node has nothing to notice.
    hand.hold_epoch().await;
    suspend(&f, "carol").await.unwrap();
    assert_eq!(hand.ask("SELECT '' || epoch FROM authority").await, [epoch]);
    f.clock.advance(Duration::from_secs(2));
    assert_eq!(knock(&carol).await, Code::Unauthenticated);
    drop(carol);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_forgets_a_suspended_caller_whom_it_kept() {
    let f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    register(&f, "carol", "human", "").await;
    let carol = login(&f, "carol").await;
    let found = fingerprint(&carol.certificate_pem);
    other.vault.watch_authority().await.unwrap();
    other.vault.authenticate_certificate(found, |_| true).await.unwrap();
    suspend(&f, "carol").await.unwrap();
    // Its own commits tell the node the new epoch before its watcher looks.
    assert_eq!(knock(&f.connect_to(&other, &f.admin).await).await, Code::Ok);
    other.vault.watch_authority().await.unwrap();
    let refused = other.vault.authenticate_certificate(found, |_| true).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_cannot_log_in_is_not_the_one_that_is_left() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        register(&f, "carol", "human", "").await;
        promote(&f, "carol").await;
        let refused = suspend(&f, "admin").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "she never got a certificate");
        let certificate = login(&f, "carol").await;
        suspend(&f, "admin").await.unwrap();
        assert_eq!(knock(&f.connect(&certificate).await).await, Code::Ok);
    }
}

fn issue() -> IssueCertificateRequest {
    let names = SubjectNames { dns: vec!["svc.a.example".to_owned()], ..SubjectNames::default() };
    IssueCertificateRequest {
        idempotency_key: KEY.to_owned(),
        role: "web".to_owned(),
        names: Some(names),
        ..IssueCertificateRequest::default()
    }
}

/// A pipeline that may have certificates, and somebody else's login.
async fn pipeline(f: &Fixture) -> (PkiServiceClient<Channel>, Channel) {
    let role = PutCertificateRoleRequest {
        name: "web".to_owned(),
        allowed_dns: vec!["svc.a.example".to_owned()],
        key_types: vec!["p256".to_owned()],
        usages: vec!["server".to_owned()],
        default_ttl_s: 3_600,
        max_ttl_s: 86_400,
        ..PutCertificateRoleRequest::default()
    };
    PkiServiceClient::new(f.connect(&f.admin).await).put_role(role).await.unwrap();
    let victim = human(f, "carol").await;
    let etl = PkiServiceClient::new(machine(f, "etl").await);
    grant(f, "etl", "pki.issue", "pki/web").await;
    (etl, victim)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_pointed_at_somebody_elses_credential_neither_shows_nor_ends_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let (mut etl, victim) = pipeline(&f).await;
        etl.issue_certificate(issue()).await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let theirs = "SELECT c.id FROM credentials c JOIN identities i ON i.id = c.identity \
                      WHERE i.name = 'carol'";
        hand.run(&format!("UPDATE idempotency SET object = ({theirs})")).await;
        for replace in [false, true] {
            let retry = IssueCertificateRequest { replace, ..issue() };
            let refused = etl.issue_certificate(retry).await.unwrap_err();
            assert_eq!(refused.code(), Code::Internal, "replace: {replace}");
        }
        assert_eq!(knock(&victim).await, Code::Ok);
        let ended = format!("{theirs} AND c.state <> 'active'");
        assert!(hand.ask(&ended).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_on_the_record_as_one_and_names_no_key() {
    let f = Fixture::new().await;
    let (mut etl, _) = pipeline(&f).await;
    etl.issue_certificate(issue()).await.unwrap();
    assert!(etl.issue_certificate(issue()).await.unwrap().into_inner().replayed);
    let replays = entries(&f, "pki.issue", "REPLAY").await;
    assert_eq!(replays.len(), 1);
    assert!(replays[0].keys.is_empty() && replays[0].changes.is_empty(), "{:?}", replays[0]);
    assert_eq!(entries(&f, "pki.issue", "OK").await.len(), 1, "one was issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hsm_was_asked_to_sign_is_on_the_record_though_the_caller_hung_up() {
    let f = Fixture::new().await;
    let (mut etl, _) = pipeline(&f).await;
    f.hsm.set_fault(Some(MemoryFault::Hang));
    let cut = tokio::time::timeout(Duration::from_millis(500), etl.issue_certificate(issue()));
    assert!(cut.await.is_err(), "it hangs in the token");
    f.hsm.set_fault(None);
    let told = async { while entries(&f, "pki.issue", "UNAVAILABLE").await.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("it ends by itself");
    let found = entries(&f, "pki.issue", "").await;
    assert_eq!(found.len(), 1);
    let keys: Vec<_> = found[0].keys.iter().map(|key| key.purpose.as_str()).collect();
    assert_eq!(keys, ["sign certificate"], "the token may have signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_is_on_the_record_after_a_clean_stop() {
    let mut f = Fixture::new().await;
    let prober = machine(&f, "prober").await;
    for _ in 0..40 {
        let refused = IdentityServiceClient::new(prober.clone())
            .suspend_identity(SuspendIdentityRequest { name: "admin".into(), ..Default::default() })
            .await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(knock(&f.connect_as_nobody().await).await, Code::Unauthenticated);
    f.restart().await;
    assert_eq!(entries(&f, "system.strangers", "").await.len(), 1);
    assert_eq!(entries(&f, "system.refusals", "").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_retry_that_is_over_goes_in_one_round() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let hand = Hand::new(&f.parts.location);
        let request = hand.literal(&[7; 32]);
        let many = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
             INSERT INTO idempotency (id, request, object, at, kept_until) \
             SELECT 'old' || i, {request}, 'x', 1, 2 FROM n"
        );
        hand.run(&many).await;
        f.node().vault.purge_retries().await.unwrap();
        assert!(hand.ask("SELECT id FROM idempotency WHERE id LIKE 'old%'").await.is_empty());
    }
}
