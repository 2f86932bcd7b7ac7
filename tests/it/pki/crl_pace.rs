//! How soon the revocation list names what was revoked, how often it is signed, and what a long
//! one costs.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    EntryFilter, GetRevocationListRequest, IssueCertificateRequest, ListEntriesRequest,
    RetireIdentityRequest,
};
use strongroom::server::Node;
use strongroom::store::credentials::CredentialRow;
use strongroom::store::{Needs, Tx};
use strongroom::types::{
    Caller, CredentialId, CredentialState, RequestContext, Serial, SystemEntropy,
};
use strongroom::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};

use super::crl::{Served, get, revoke};
use super::{Client, World, enrol, grant, order, suspend};
use crate::support::hand::Hand;
use crate::support::logins::fingerprint;
use crate::support::node::{BACKENDS, Backend, Fixture, csr};
use crate::support::softhsm;
use crate::support::target::{middle, until};
use crate::x509::OpenSsl;

/// Whether a list names a serial number.
fn names(list: &Served, serial: &[u8]) -> bool {
    list.der.windows(serial.len()).any(|window| window == serial)
}

fn serial_of(hex: &str) -> Vec<u8> {
    strongroom::crypto::parse_hex(hex).unwrap()
}

/// How long the served list takes to name all of these.
async fn named(node: &Node, serials: &[Vec<u8>]) -> Duration {
    let began = Instant::now();
    loop {
        let list = get(node, "").await;
        if serials.iter().all(|serial| names(&list, serial)) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_mins(1), "in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Has OpenSSL check the served list, and with it a certificate that is revoked and one that is not.
async fn verify(w: &World, bad_pem: &str) {
    let openssl = OpenSsl::new();
    let good = w.sign(&csr().1).await.unwrap();
    openssl.write("root.pem", &w.f.root_pem);
    openssl.write("chain.pem", &good.chain_pem);
    openssl.write("good.pem", &good.certificate_pem);
    openssl.write("bad.pem", bad_pem);
    openssl.write("list.der", get(w.f.node(), "").await.der);
    let asks = ["crl", "-inform", "DER", "-in", "list.der", "-CAfile", "chain.pem", "-out"];
    let said = openssl.run(&[&asks[..], &["list.pem", "-verify"]].concat());
    assert!(said.contains("verify OK"), "{said}");
    let fixed = ["verify", "-crl_check", "-CAfile", "root.pem", "-untrusted", "chain.pem"];
    let check = |leaf| openssl.attempt(&[&fixed[..], &["-CRLfile", "list.pem", leaf]].concat());
    let (accepted, why) = check("good.pem");
    assert!(accepted, "{why}");
    let (accepted, why) = check("bad.pem");
    assert!(!accepted && why.contains("certificate revoked"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_or_contained_stands_in_the_served_list_within_a_second() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        until("there is a first list", async || get(w.f.node(), "").await.status == "200").await;
        let mut took = Vec::new();
        let mut last = String::new();
        for _ in 0..5 {
            let signed = w.sign(&csr().1).await.unwrap();
            let certificate = signed.certificate.unwrap();
            revoke(&w.admin, &certificate.id).await.unwrap();
            took.push(named(w.f.node(), &[serial_of(&certificate.serial)]).await);
            last = signed.certificate_pem;
        }
        assert!(middle(took.clone()) < Duration::from_secs(1), "{backend:?}: {took:?}");
        verify(&w, &last).await;
        // What one identity held, signed and issued, all of it in the first list after it.
        let mut took = Vec::new();
        for n in 0..3 {
            let name = format!("held-{n}");
            let client = Client::new(enrol(&w.f, &name, "pipeline", "admin").await);
            for action in ["pki.sign", "pki.issue"] {
                grant(&w.f, &name, action, "pki/web", 0).await;
            }
            let held = hold(&client).await;
            if n == 1 {
                retire(&w.f, &name).await;
            } else {
                suspend(&w.f, &name).await;
            }
            took.push(named(w.f.node(), &held).await);
        }
        assert!(middle(took.clone()) < Duration::from_secs(1), "{backend:?}: {took:?}");
    }
}

/// Retires somebody.
pub(super) async fn retire(f: &Fixture, name: &str) {
    let request = RetireIdentityRequest { name: name.to_owned(), ..Default::default() };
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    client.retire_identity(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_another_node_names_what_was_revoked_within_a_second_too() {
    let w = World::on(Backend::Postgres).await;
    let other = w.f.second_node().await;
    until("there is a first list", async || get(&other, "").await.status == "200").await;
    let mut took = Vec::new();
    for _ in 0..3 {
        let certificate = w.sign(&csr().1).await.unwrap().certificate.unwrap();
        revoke(&w.admin, &certificate.id).await.unwrap();
        took.push(named(&other, &[serial_of(&certificate.serial)]).await);
    }
    assert!(middle(took.clone()) < Duration::from_secs(1), "{took:?}");
    other.stop().await.unwrap();
}

/// Has six certificates made; their serial numbers.
async fn hold(client: &Client) -> Vec<Vec<u8>> {
    let mut held = Vec::new();
    for _ in 0..3 {
        let issue = IssueCertificateRequest {
            role: "web".to_owned(),
            names: order("").names,
            ..IssueCertificateRequest::default()
        };
        let issued = client.clone().issue_certificate(issue).await.unwrap().into_inner();
        let signed = client.clone().sign_certificate(order(&csr().1)).await.unwrap().into_inner();
        for certificate in [issued.certificate, signed.certificate] {
            held.push(serial_of(&certificate.unwrap().serial));
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_nothing_was_added_to_is_signed_anew_each_hour_and_no_more_often() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let list = async || {
            let list =
                w.admin.clone().get_revocation_list(GetRevocationListRequest::default()).await;
            list.map(|list| list.into_inner().signed_at_ms).unwrap_or_default()
        };
        until("there is a first list", async || list().await > 0).await;
        let mut signed = vec![list().await];
        for _ in 0..4 {
            // What is not due is not signed, however often the worker looks; then it is.
            w.f.clock.advance(Duration::from_mins(58));
            w.sign(&csr().1).await.unwrap();
            w.f.clock.advance(Duration::from_mins(3));
            let before = *signed.last().unwrap();
            until("it is refreshed", async || list().await > before).await;
            signed.push(list().await);
        }
        for pair in signed.windows(2) {
            assert!(pair[1] - pair[0] >= 3_600_000, "{signed:?}");
        }
        w.f.node().vault.integrate().await.unwrap();
        let filter = EntryFilter { action: "pki.sign-crl".to_owned(), ..Default::default() };
        let request =
            ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
        let mut record = RecordServiceClient::new(w.f.connect(&w.f.admin).await);
        let entries = record.list_entries(request).await.unwrap().into_inner().entries;
        assert_eq!(entries.len(), signed.len());
    }
}

/// Certificates that were revoked, in the store of the long list.
const MANY: usize = 100_000;
/// Of one commit: its entry names each row.
const EACH: usize = 500;

#[test]
fn a_hundred_thousand_revoked_certificates_are_published_in_bounded_time_and_memory() {
    softhsm::in_child(
        "pki::crl_pace::a_hundred_thousand_revoked_certificates_are_published_in_bounded_time_and_memory",
        |_| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(publish_many());
        },
    );
}

async fn publish_many() {
    let w = World::on(Backend::Sqlite).await;
    let first = w.sign(&csr().1).await.unwrap();
    let flood = Flood::of(&w, &first.certificate_pem).await;
    let ctx = context(&w).await;
    for _ in 0..MANY / EACH {
        w.f.node().vault.run(&ctx, flood.clone()).await.unwrap();
    }
    // Lists were signed all the while; from here on it is one and the next.
    let patience = Instant::now() + Duration::from_mins(3);
    while count(&w).await != MANY {
        assert!(Instant::now() < patience, "the list does not name them all");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (before_kib, before) = (resident_kib("VmRSS:"), processor());
    let certificate = first.certificate.unwrap();
    revoke(&w.etl, &certificate.id).await.unwrap();
    named(w.f.node(), &[serial_of(&certificate.serial)]).await;
    let took = processor().saturating_sub(before);
    let list = get(w.f.node(), "").await;
    assert_eq!(count(&w).await, MANY + 1);
    assert!(list.der.len() < 6 << 20, "{} bytes", list.der.len());
    let peak_kib = resident_kib("VmHWM:");
    // The processor's time, because other tests run beside it; a build for tests takes about ten times
    // as long as one for use.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(peak_kib - before_kib < 128 << 10, "{peak_kib} KiB after {before_kib}");
    assert!(peak_kib < 384 << 10, "{peak_kib} KiB");
    verify(&w, &first.certificate_pem).await;
}

/// How many certificates the newest list names, as the store has it: a long list is not fetched
/// again and again.
async fn count(w: &World) -> usize {
    // 53 bytes are kept of each.
    let sql = "SELECT '' || (LENGTH(listed) / 53) FROM crls";
    let found = Hand::new(&w.f.parts.location).ask(sql).await;
    found.first().map_or(0, |count| count.parse().unwrap())
}

/// How long processors worked for this process.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks = rest.split_whitespace().skip(11).take(2).map(|it| it.parse::<u64>().unwrap());
    // A hundred a second, on every Linux.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn resident_kib(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Stores certificates that were revoked: copies of one, each with a serial number of its own.
#[derive(Clone)]
struct Flood {
    like: CredentialRow,
    /// Where the serial number stands in the certificate.
    serial_at: usize,
}

impl Flood {
    async fn of(w: &World, pem: &str) -> Self {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let serial = parsed.raw_serial();
        let serial_at = der.windows(serial.len()).position(|window| window == serial).unwrap();
        let listed = w.all().await.remove(0);
        let id: CredentialId = listed.id.parse().unwrap();
        let read = Read { id };
        let vault = &w.f.node().vault;
        let like = vault.run(&context(w).await, read).await.unwrap();
        Self { like: CredentialRow { state: CredentialState::Ended, ..like }, serial_at }
    }
}

async fn context(w: &World) -> RequestContext {
    let vault = &w.f.node().vault;
    let admin = fingerprint(&w.f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(admin, |_| true).await.unwrap();
    vault.context(Caller::Identity(admin), None).unwrap()
}

/// Reads the row of a certificate.
struct Read {
    id: CredentialId,
}

#[async_trait]
impl Verb for Read {
    const ACTION: &'static str = "system.seal";
    type Prepared = ();
    type Output = CredentialRow;

    async fn resources(&self, _: &View) -> strongroom::Result<Vec<Resource>> {
        Ok(vec![Resource::named("system/seal".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> strongroom::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Operation for Read {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        (): &(),
        _: &Decision,
    ) -> strongroom::Result<CredentialRow> {
        Ok(tx.lookup::<CredentialRow>(&self.id).await?.unwrap().row)
    }
}

#[async_trait]
impl Verb for Flood {
    const ACTION: &'static str = "system.seal";
    type Prepared = Vec<CredentialRow>;
    type Output = ();

    async fn resources(&self, _: &View) -> strongroom::Result<Vec<Resource>> {
        Ok(vec![Resource::named("system/seal".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> strongroom::Result<Vec<CredentialRow>> {
        let one = |_| {
            let mut row = CredentialRow { id: CredentialId(view.new_id()?), ..self.like.clone() };
            let serial = Serial::random(&SystemEntropy)?;
            row.detail[self.serial_at..self.serial_at + 20].copy_from_slice(serial.as_bytes());
            row.handle = Some(strongroom::crypto::sha256(&row.detail).to_vec());
            Ok(row)
        };
        (0..EACH).map(one).collect()
    }
}

#[async_trait]
impl Operation for Flood {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        rows: &Vec<CredentialRow>,
        _: &Decision,
    ) -> strongroom::Result<()> {
        for row in rows {
            tx.insert(row).await?;
        }
        Ok(())
    }
}
