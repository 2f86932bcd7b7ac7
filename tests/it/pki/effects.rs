//! The HSM behind a signature: serials first, nothing lost, nothing twice.

use std::collections::HashSet;
use std::time::Duration;

use strongroom::hsm::memory::MemoryFault;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    Certificate, IssueCertificateRequest, IssueLoginCertificateRequest, SignCertificateRequest,
};
use tokio::task::JoinSet;
use tonic::Code;

use super::{Client, World, grant, login_over, order, register, suspend};
use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Backend, csr};

/// Serials that the store holds for certificates to come, in hexadecimal, one after the other.
async fn stored(w: &World, backend: Backend) -> String {
    let sql = match backend {
        Backend::Sqlite => "SELECT lower(hex(numbers)) FROM serials",
        Backend::Postgres => "SELECT encode(numbers, 'hex') FROM serials",
    };
    Hand::new(&w.f.parts.location).ask(sql).await.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_is_stored_before_the_hsm_signs_and_nothing_is_left_where_it_does_not() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let (_, csr_pem) = csr();
        w.f.hsm.set_fault(Some(MemoryFault::Hang));
        assert_eq!(w.sign(&csr_pem).await.unwrap_err().code(), Code::Unavailable);
        w.f.hsm.set_fault(Some(MemoryFault::Unavailable));
        let key = "0123456789abcdef0123456789abcdef".to_owned();
        let keyed = SignCertificateRequest { idempotency_key: key, ..order(&csr_pem) };
        let refused = w.etl.clone().sign_certificate(keyed.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(w.all().await, [], "nothing was signed");
        w.f.hsm.set_fault(None);
        let known = stored(&w, backend).await;
        let again = w.etl.clone().sign_certificate(keyed).await.unwrap().into_inner();
        assert!(!again.replayed, "what failed did not use up its key");
        w.sign(&csr_pem).await.unwrap();
        let all = w.all().await;
        assert_eq!(all.len(), 2);
        for one in all {
            assert_eq!(one.state, "active");
            assert!(known.contains(&one.serial) && one.serial.len() == 40, "{}", one.serial);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_calls_at_once_get_sixty_four_serials() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let (_, csr_pem) = csr();
        let calls = (0..64).map(|_| {
            let (mut etl, request) = (w.etl.clone(), order(&csr_pem));
            tokio::spawn(async move { etl.sign_certificate(request).await })
        });
        let mut serials = HashSet::new();
        for call in calls.collect::<Vec<_>>() {
            let signed = call.await.unwrap().unwrap().into_inner();
            serials.insert(signed.certificate.unwrap().serial);
        }
        assert_eq!(serials.len(), 64);
        let listed: HashSet<_> = w.all().await.into_iter().map(|c| c.serial).collect();
        assert_eq!(listed, serials);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serials_are_stored_a_block_at_a_time_ahead_of_their_use_whoever_asks_at_once() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let blocks = async || {
            let sql = "SELECT id FROM serials";
            Hand::new(&w.f.parts.location).ask(sql).await.len()
        };
        let (_, csr_pem) = csr();
        // What began the vault left of the first block is used until the second is stored.
        let first = blocks().await;
        while blocks().await == first {
            w.sign(&csr_pem).await.unwrap();
        }
        // Half of the first are left, and the second.
        for _ in 0..120 {
            w.sign(&csr_pem).await.unwrap();
        }
        assert_eq!(blocks().await, first + 1, "{backend:?}");
        let calls = (0..300).map(|_| {
            let (mut etl, request) = (w.etl.clone(), order(&csr_pem));
            tokio::spawn(async move { etl.sign_certificate(request).await })
        });
        let mut serials = HashSet::new();
        for call in calls.collect::<Vec<_>>() {
            let signed = call.await.unwrap().unwrap().into_inner();
            serials.insert(signed.certificate.unwrap().serial);
        }
        assert_eq!(serials.len(), 300, "each its own");
        // 228 more than there were, and some ahead.
        let after = blocks().await - first;
        assert!((3..=4).contains(&after), "{backend:?}: {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_is_answered_without_the_hsm() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let key = || "0123456789abcdef0123456789abcdef".to_owned();
        let sign = SignCertificateRequest { idempotency_key: key(), ..order(&csr().1) };
        let issue = IssueCertificateRequest {
            idempotency_key: key(),
            role: "web".to_owned(),
            names: order("").names,
            ..IssueCertificateRequest::default()
        };
        let login = IssueLoginCertificateRequest {
            idempotency_key: key(),
            name: "etl".to_owned(),
            csr_pem: csr().1,
            ..IssueLoginCertificateRequest::default()
        };
        let admin = w.f.connect(&w.f.admin).await;
        let mut identities = IdentityServiceClient::new(admin);
        let signed = w.etl.clone().sign_certificate(sign.clone()).await.unwrap().into_inner();
        let issued = w.etl.clone().issue_certificate(issue.clone()).await.unwrap().into_inner();
        let logged = identities.issue_login_certificate(login.clone()).await.unwrap().into_inner();
        w.f.hsm.set_fault(Some(MemoryFault::Unavailable));
        let again = w.etl.clone().sign_certificate(sign.clone()).await.unwrap().into_inner();
        assert!(again.replayed && again.certificate_pem == signed.certificate_pem);
        let again = w.etl.clone().issue_certificate(issue.clone()).await.unwrap().into_inner();
        assert!(again.replayed && again.private_key_pem.is_empty());
        assert_eq!(again.certificate_pem, issued.certificate_pem);
        let again = identities.issue_login_certificate(login).await.unwrap().into_inner();
        assert_eq!(again.certificate_pem, logged.certificate_pem);
        // Another request under the key costs nothing either; one that replaces does.
        let other = SignCertificateRequest { ttl_s: 60, ..sign };
        let refused = w.etl.clone().sign_certificate(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let anew = IssueCertificateRequest { replace: true, ..issue.clone() };
        let refused = w.etl.clone().issue_certificate(anew.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        w.f.hsm.set_fault(None);
        let replaced = w.etl.clone().issue_certificate(anew).await.unwrap().into_inner();
        assert!(!replaced.private_key_pem.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_expired_after_its_last_second() {
    let w = World::on(Backend::Sqlite).await;
    w.sign(&csr().1).await.unwrap();
    w.f.clock.advance(Duration::from_mins(50));
    assert_eq!(w.all().await[0].state, "active");
    w.f.clock.advance(Duration::from_secs(602));
    assert_eq!(w.all().await[0].state, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_races_with_signing_leaves_no_certificate_in_force_on_two_nodes_either() {
    for (backend, rounds) in [(Backend::Sqlite, 40), (Backend::Postgres, 60)] {
        let w = World::on(backend).await;
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(w.f.second_node().await),
        };
        let (mut made, mut refused) = (0, 0);
        for round in 0..rounds {
            let name = format!("racer-{round}");
            register(&w.f, &name, "pipeline", "carol").await;
            grant(&w.f, &name, "pki.sign", "pki/web", 0).await;
            let login = login_over(w.f.connect(&w.f.admin).await, &name).await.unwrap();
            let here = w.f.connect(&login).await;
            let there = match &second {
                Some(node) => w.f.connect_to(node, &login).await,
                None => here.clone(),
            };
            let (_, csr_pem) = csr();
            // Which of them takes longer depends on the machine: now the one waits, now the other.
            let end = async {
                tokio::time::sleep(Duration::from_millis(round % 5 * 30)).await;
                suspend(&w.f, &name).await;
            };
            let sign = async {
                tokio::time::sleep(Duration::from_millis(round % 20)).await;
                let mut calls = JoinSet::new();
                for channel in [here.clone(), there.clone(), here, there] {
                    let request = order(&csr_pem);
                    calls
                        .spawn(async move { Client::new(channel).sign_certificate(request).await });
                }
                calls.join_all().await
            };
            let (calls, ()) = tokio::join!(sign, end);
            for call in calls {
                if call.is_ok() { made += 1 } else { refused += 1 }
            }
        }
        assert!(made > 0 && refused > 0, "some were first, some were not: {made}, {refused}");
        let in_force = |all: Vec<Certificate>| -> Vec<Certificate> {
            all.into_iter().filter(|one| one.state == "active").collect()
        };
        let all = w.all().await;
        assert!(all.len() >= made, "{} of {made}", all.len());
        assert_eq!(in_force(all), []);
        if let Some(node) = second {
            node.stop().await.unwrap();
        }
    }
}
