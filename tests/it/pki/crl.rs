//! Revocation that others can see: who may revoke, and what the list says, where, and when.

use std::time::Duration;

use strongroom::hsm::memory::MemoryFault;
use strongroom::proto::{
    Certificate, GetRevocationListRequest, IssueCertificateRequest, ListCertificatesRequest,
    RevokeCertificateRequest, SignCertificateResponse,
};
use strongroom::server::Node;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::crl_pace::retire;
use super::{Client, World, enrol, grant, login_over, order, suspend};
use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Backend, Fixture, csr};
use crate::support::target::until;
use crate::x509::OpenSsl;

const URL: &str = "http://crl.example/crl/issuing.crl";

/// A list as somebody outside gets it.
pub(super) struct Served {
    pub(super) status: String,
    head: String,
    pub(super) der: Vec<u8>,
}

pub(super) async fn get(node: &Node, more: &str) -> Served {
    let mut stream = TcpStream::connect(node.http_addr.unwrap()).await.unwrap();
    let request = format!(
        "GET /crl/issuing.crl HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let der = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    Served { status: head.split(' ').nth(1).unwrap().to_owned(), head, der }
}

/// What OpenSSL reads in the list that a node serves.
async fn text(openssl: &OpenSsl, node: &Node) -> String {
    let served = get(node, "").await;
    if served.status != "200" {
        return String::new();
    }
    openssl.write("served.crl", served.der);
    openssl.run(&["crl", "-inform", "DER", "-in", "served.crl", "-noout", "-text"]).to_lowercase()
}

async fn listed(openssl: &OpenSsl, node: &Node, serial: &str) {
    until("the list names it", async || text(openssl, node).await.contains(serial)).await;
}

fn number(text: &str) -> u64 {
    let (_, after) = text.split_once("x509v3 crl number:").unwrap();
    let hex_or_decimal = after.split_whitespace().next().unwrap();
    match hex_or_decimal.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => hex_or_decimal.parse().unwrap(),
    }
}

fn dates(text: &str) -> Vec<String> {
    let found = text.lines().filter(|line| line.contains("revocation date:"));
    found.map(|line| line.trim().to_owned()).collect()
}

pub(super) async fn revoke(client: &Client, id: &str) -> Result<Certificate, Status> {
    let request = RevokeCertificateRequest { id: id.to_owned(), reason: "a test".to_owned() };
    let revoked = client.clone().revoke_certificate(request).await?;
    Ok(revoked.into_inner().certificate.unwrap())
}

impl World {
    async fn signed(&self) -> (SignCertificateResponse, Certificate) {
        let signed = self.sign(&csr().1).await.unwrap();
        let certificate = signed.certificate.clone().unwrap();
        (signed, certificate)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_refuses_a_revoked_certificate_and_accepts_the_others() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        f.parts.crl_url = Some(URL.to_owned());
        f.restart().await;
        let w = World::of(f).await;
        let openssl = OpenSsl::new();
        let ((good, _), (bad, certificate)) = (w.signed().await, w.signed().await);
        openssl.write("root.pem", &w.f.root_pem);
        openssl.write("chain.pem", &good.chain_pem);
        openssl.write("good.pem", &good.certificate_pem);
        openssl.write("bad.pem", &bad.certificate_pem);
        let said = openssl.run(&["x509", "-in", "good.pem", "-noout", "-text"]);
        assert!(said.contains("X509v3 CRL Distribution Points") && said.contains(URL), "{said}");
        let verify = async |leaf: &str| {
            let list =
                w.admin.clone().get_revocation_list(GetRevocationListRequest::default()).await;
            openssl.write("list.pem", list.unwrap().into_inner().crl_pem);
            let fixed = ["verify", "-crl_check", "-CAfile", "root.pem", "-untrusted", "chain.pem"];
            openssl.attempt(&[&fixed[..], &["-CRLfile", "list.pem", leaf]].concat())
        };
        until("there is a first list", async || get(w.f.node(), "").await.status == "200").await;
        assert!(verify("good.pem").await.0 && verify("bad.pem").await.0);

        assert_eq!(revoke(&w.etl, &certificate.id).await.unwrap().state, "revoked");
        listed(&openssl, w.f.node(), &certificate.serial).await;
        let (accepted, why) = verify("bad.pem").await;
        assert!(!accepted && why.contains("certificate revoked"), "{why}");
        let (accepted, why) = verify("good.pem").await;
        assert!(accepted, "{why}");

        let again = revoke(&w.admin, &certificate.id).await.unwrap();
        assert_eq!((again.state.as_str(), &again.id), ("revoked", &certificate.id));
        let list = w.etl.clone().get_revocation_list(GetRevocationListRequest::default()).await;
        let list = list.unwrap().into_inner();
        assert_eq!(list.revoked, 1);
        assert_eq!(list.expires_at_ms - list.signed_at_ms, 86_400_000);
        assert!(
            list.number * 1_000 >= list.signed_at_ms,
            "numbers go on from the seconds of today"
        );
        let served = get(w.f.node(), "").await;
        assert!(served.head.contains("content-type: application/pkix-crl"), "{}", served.head);
        assert!(served.head.contains("cache-control: public, max-age=60"), "{}", served.head);
        let known = format!("if-none-match: \"{}\"\r\n", list.number);
        let unchanged = get(w.f.node(), &known).await;
        assert_eq!((unchanged.status.as_str(), unchanged.der.len()), ("304", 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_holder_owner_administrators_and_who_is_granted_it_revoke_a_certificate() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let carol = login_over(w.f.connect(&w.f.admin).await, "carol").await.unwrap();
        let carol = Client::new(w.f.connect(&carol).await);
        let other = Client::new(enrol(&w.f, "other", "pipeline", "admin").await);
        let human = Client::new(enrol(&w.f, "dave", "human", "").await);
        let incident = Client::new(enrol(&w.f, "incident", "service", "admin").await);
        grant(&w.f, "incident", "pki.revoke", "pki/web", 0).await;
        grant(&w.f, "other", "pki.revoke", "pki/mail", 0).await;
        for may in [&w.etl, &carol, &w.admin, &incident] {
            let (_, certificate) = w.signed().await;
            for client in [&other, &human] {
                let refused = revoke(client, &certificate.id).await.unwrap_err();
                assert_eq!(refused.code(), Code::PermissionDenied);
            }
            let there = w.all().await.into_iter().find(|one| one.id == certificate.id).unwrap();
            assert_eq!(there.state, "active");
            assert_eq!(revoke(may, &certificate.id).await.unwrap().state, "revoked");
        }
        let nobodys = "0190a0b0-0000-7000-8000-000000000000";
        for (client, code) in [(&w.admin, Code::NotFound), (&other, Code::PermissionDenied)] {
            assert_eq!(revoke(client, nobodys).await.unwrap_err().code(), code);
        }
        assert_eq!(revoke(&w.admin, "no id").await.unwrap_err().code(), Code::InvalidArgument);
        let (_, certificate) = w.signed().await;
        let reason = "x".repeat(501);
        let long = RevokeCertificateRequest { id: certificate.id, reason };
        let refused = w.admin.clone().revoke_certificate(long).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_contained_or_replaced_is_listed_with_its_reason_until_its_time_is_over() {
    for backend in BACKENDS {
        let mut w = World::on(backend).await;
        let openssl = OpenSsl::new();
        let issue = IssueCertificateRequest {
            idempotency_key: "0123456789abcdef0123456789abcdef".to_owned(),
            role: "web".to_owned(),
            names: order("").names,
            replace: true,
            ..IssueCertificateRequest::default()
        };
        let mut replaced = String::new();
        for _ in 0..2 {
            let issued = w.etl.clone().issue_certificate(issue.clone()).await.unwrap();
            let serial = issued.into_inner().certificate.unwrap().serial;
            if replaced.is_empty() {
                replaced = serial;
            }
        }
        listed(&openssl, w.f.node(), &replaced).await;
        let first = text(&openssl, w.f.node()).await;
        assert!(first.contains("superseded"), "{first}");

        let (_, held) = w.signed().await;
        suspend(&w.f, "etl").await;
        listed(&openssl, w.f.node(), &held.serial).await;
        let second = text(&openssl, w.f.node()).await;
        assert_eq!(dates(&second).len(), 3, "all that it held: {second}");
        retire(&w.f, "etl").await;

        w.f.clock.advance(Duration::from_mins(61));
        until("it is refreshed", async || {
            let refreshed = text(&openssl, w.f.node()).await;
            refreshed.contains("cessation of operation") && number(&refreshed) > number(&second)
        })
        .await;
        let refreshed = text(&openssl, w.f.node()).await;
        let (mut before, mut after) = (dates(&second), dates(&refreshed));
        before.sort();
        after.sort();
        assert_eq!(before, after, "since when is kept");
        assert!(number(&first) < number(&second));

        w.f.restart().await;
        until("the list survives", async || {
            let there = text(&openssl, w.f.node()).await;
            !there.is_empty() && number(&there) >= number(&refreshed) && dates(&there).len() == 3
        })
        .await;
        w.f.clock.advance(Duration::from_hours(3));
        until("they drop out", async || {
            let there = text(&openssl, w.f.node()).await;
            there.contains("no revoked certificates")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_serves_the_newest_list_whoever_had_it_signed() {
    let w = World::on(Backend::Postgres).await;
    let (here, there) = (w.f.node(), w.f.second_node().await);
    let at_other = Client::new(w.f.connect_to(&there, &w.f.admin).await);
    let openssl = OpenSsl::new();
    let mut newest = 0;
    for client in [&w.admin, &at_other, &w.admin] {
        let (_, certificate) = w.signed().await;
        revoke(client, &certificate.id).await.unwrap();
        for node in [here, &there] {
            listed(&openssl, node, &certificate.serial).await;
        }
        until("they have the same", async || {
            text(&openssl, here).await == text(&openssl, &there).await
        })
        .await;
        let now = number(&text(&openssl, here).await);
        assert!(now > newest, "{now} after {newest}");
        newest = now;
    }
    drop(at_other);
    there.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_the_hsm_did_not_sign_is_signed_once_it_is_back() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let openssl = OpenSsl::new();
        until("there is a first list", async || get(w.f.node(), "").await.status == "200").await;
        let (_, certificate) = w.signed().await;
        w.f.hsm.set_fault(Some(MemoryFault::Unavailable));
        revoke(&w.etl, &certificate.id).await.unwrap();
        let of_etl = ListCertificatesRequest { identity: "etl".to_owned(), ..Default::default() };
        let known = w.admin.clone().list_certificates(of_etl).await.unwrap().into_inner();
        assert_eq!(known.certificates[0].state, "revoked", "it is in the store at once");
        assert!(!text(&openssl, w.f.node()).await.contains(&certificate.serial));
        w.f.hsm.set_fault(None);
        listed(&openssl, w.f.node(), &certificate.serial).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_stays_expired_and_off_the_list() {
    let w = World::on(Backend::Sqlite).await;
    let (_, certificate) = w.signed().await;
    w.f.clock.advance(Duration::from_hours(2));
    let ended = revoke(&w.admin, &certificate.id).await.unwrap();
    assert_eq!(ended.state, "expired");
    let list = async || {
        let list = w.admin.clone().get_revocation_list(GetRevocationListRequest::default()).await;
        list.map(tonic::Response::into_inner)
    };
    until("a list was signed after that", async || {
        list().await.is_ok_and(|list| list.signed_at_ms > certificate.expires_at_ms)
    })
    .await;
    assert_eq!(list().await.unwrap().revoked, 0);
}

/// Waits for a list that was signed later.
async fn refreshed(w: &World, openssl: &OpenSsl) -> String {
    until("there is one", async || get(w.f.node(), "").await.status == "200").await;
    let before = number(&text(openssl, w.f.node()).await);
    w.f.clock.advance(Duration::from_mins(61));
    until("it is refreshed", async || {
        let now = text(openssl, w.f.node()).await;
        !now.is_empty() && number(&now) > before + 3_600
    })
    .await;
    text(openssl, w.f.node()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_listed_stays_listed_whatever_becomes_of_its_row() {
    for backend in BACKENDS {
        let mut w = World::on(backend).await;
        let hand = Hand::new(&w.f.parts.location);
        let openssl = OpenSsl::new();
        let mut serials = Vec::new();
        for edit in [
            "UPDATE credentials SET state = 'active' WHERE id = ",
            "UPDATE credentials SET tries = tries + 1 WHERE id = ",
            "DELETE FROM credentials WHERE id = ",
        ] {
            let (_, certificate) = w.signed().await;
            revoke(&w.etl, &certificate.id).await.unwrap();
            listed(&openssl, w.f.node(), &certificate.serial).await;
            hand.run(&format!("{edit} '{}'", certificate.id)).await;
            serials.push(certificate.serial);
        }
        // One whose end is that of its identity, of which somebody makes nothing.
        let (_, held) = w.signed().await;
        suspend(&w.f, "etl").await;
        listed(&openssl, w.f.node(), &held.serial).await;
        hand.run("UPDATE identities SET revocation_epoch = 1 WHERE name = 'etl'").await;
        serials.push(held.serial);
        let there = refreshed(&w, &openssl).await;
        for serial in &serials {
            assert!(there.contains(serial), "{serial} in {there}");
        }
        w.f.restart().await;
        let there = refreshed(&w, &openssl).await;
        assert_eq!(dates(&there).len(), serials.len(), "{there}");
        w.f.clock.advance(Duration::from_hours(2));
        until("they drop out", async || {
            text(&openssl, w.f.node()).await.contains("no revoked certificates")
        })
        .await;
    }
}

/// Puts a copy of a certificate beside it, with another id and end.
async fn put_beside(hand: &Hand, of: &str, id: &str, end: &str) {
    hand.run(&format!(
        "INSERT INTO credentials SELECT {id}, kind, identity, parent, elevation, elevation_too, NULL, \
         resource, state, revocation_epoch, issued_at + 1, {end}, max_expires_at, next_try, tries, \
         trouble, detail, proofs, row_version, seal_version, mac FROM credentials WHERE id = '{of}'"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_beside_revoked_certificates_keeps_no_other_off_the_list() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let hand = Hand::new(&w.f.parts.location);
        let openssl = OpenSsl::new();
        let (_, first) = w.signed().await;
        revoke(&w.etl, &first.id).await.unwrap();
        listed(&openssl, w.f.node(), &first.serial).await;
        put_beside(&hand, &first.id, "'x'", "expires_at").await;
        put_beside(&hand, &first.id, "'019A0000-0000-7000-8000-000000000000'", "expires_at").await;
        put_beside(&hand, &first.id, "'019a0000-0000-7000-8000-000000000000'", "expires_at").await;
        if backend == Backend::Sqlite {
            // What the other store does not hold: no text, text that is none, an end that is no number.
            for (id, end) in [
                ("NULL", "expires_at"),
                ("x'00'", "expires_at"),
                ("CAST(x'ff' AS TEXT)", "expires_at + 1"),
                ("'019a0000-0000-7000-8000-000000000001'", "'x'"),
            ] {
                put_beside(&hand, &first.id, id, end).await;
            }
        }
        let (_, second) = w.signed().await;
        revoke(&w.etl, &second.id).await.unwrap();
        listed(&openssl, w.f.node(), &second.serial).await;
        let there = text(&openssl, w.f.node()).await;
        assert_eq!(dates(&there).len(), 2, "{backend:?}: {there}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_that_was_edited_gives_what_is_listed_another_reason() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let hand = Hand::new(&w.f.parts.location);
        let openssl = OpenSsl::new();
        let (_, ended) = w.signed().await;
        revoke(&w.etl, &ended.id).await.unwrap();
        listed(&openssl, w.f.node(), &ended.serial).await;
        enrol(&w.f, "gone", "pipeline", "admin").await;
        retire(&w.f, "gone").await;
        hand.run(&format!(
            "UPDATE credentials SET state = 'active', revocation_epoch = 0, \
             identity = (SELECT id FROM identities WHERE name = 'gone') WHERE id = '{}'",
            ended.id
        ))
        .await;
        let there = refreshed(&w, &openssl).await;
        assert!(there.contains(&ended.serial) && !there.contains("Cessation"), "{there}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_altered_or_removed_in_the_store_is_signed_anew() {
    for backend in BACKENDS {
        let mut w = World::on(backend).await;
        let hand = Hand::new(&w.f.parts.location);
        let openssl = OpenSsl::new();
        let (_, certificate) = w.signed().await;
        revoke(&w.etl, &certificate.id).await.unwrap();
        listed(&openssl, w.f.node(), &certificate.serial).await;
        for edit in [
            "UPDATE crls SET row_version = row_version + 7, number = number + 1",
            "UPDATE crls SET row_version = 1",
            "DELETE FROM crls",
        ] {
            let before = number(&text(&openssl, w.f.node()).await);
            hand.run(edit).await;
            until(edit, async || number(&text(&openssl, w.f.node()).await) > before).await;
            listed(&openssl, w.f.node(), &certificate.serial).await;
        }
        // Nor does one keep a node from having a list that starts with it.
        hand.run("UPDATE crls SET next_update = next_update + 1").await;
        w.f.restart().await;
        listed(&openssl, w.f.node(), &certificate.serial).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_may_not_be_used_any_more_is_not_served() {
    let w = World::on(Backend::Sqlite).await;
    until("there is a first list", async || get(w.f.node(), "").await.status == "200").await;
    w.f.hsm.set_fault(Some(MemoryFault::Unavailable));
    w.f.clock.advance(Duration::from_hours(25));
    until("it has run out", async || get(w.f.node(), "").await.status == "503").await;
    w.f.hsm.set_fault(None);
    until("there is another", async || get(w.f.node(), "").await.status == "200").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_so_many_certificates_and_revoking_them_makes_no_room() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        f.parts.limits.certificates = 3;
        f.restart().await;
        let w = World::of(f).await;
        let other = Client::new(enrol(&w.f, "other", "pipeline", "admin").await);
        grant(&w.f, "other", "pki.sign", "pki/web", 0).await;
        for _ in 0..3 {
            let (_, certificate) = w.signed().await;
            revoke(&w.etl, &certificate.id).await.unwrap();
        }
        let refused = w.sign(&csr().1).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("has 3 certificates"), "{refused}");
        other.clone().sign_certificate(order(&csr().1)).await.unwrap();
        w.f.clock.advance(Duration::from_secs(3_601));
        w.sign(&csr().1).await.unwrap();
    }
}
