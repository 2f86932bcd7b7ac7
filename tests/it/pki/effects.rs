//! The HSM behind a signature: serials first, nothing lost, nothing twice.

use std::collections::HashSet;
use std::time::Duration;

use strongroom::hsm::memory::MemoryFault;
use strongroom::proto::SignCertificateRequest;
use tonic::Code;

use super::{World, order};
use crate::support::node::{BACKENDS, Backend, csr};

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_is_stored_before_the_hsm_signs_and_ended_when_it_does_not() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let (_, csr_pem) = csr();
        w.f.hsm.set_fault(Some(MemoryFault::Hang));
        let mut etl = w.etl.clone();
        let hanging = order(&csr_pem);
        let call = tokio::spawn(async move { etl.sign_certificate(hanging).await });
        let mut pending = w.all().await;
        while pending.is_empty() {
            assert!(!call.is_finished(), "answered before its serial was stored");
            pending = w.all().await;
        }
        assert_eq!(pending[0].state, "pending");
        assert_eq!(pending[0].serial.len(), 40);
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
        let failed = w.all().await;
        assert_eq!((failed.len(), failed[0].state.as_str()), (1, "failed"));
        assert_eq!(failed[0].serial, pending[0].serial);

        w.f.hsm.set_fault(Some(MemoryFault::Unavailable));
        let key = "0123456789abcdef0123456789abcdef".to_owned();
        let keyed = SignCertificateRequest { idempotency_key: key, ..order(&csr_pem) };
        let refused = w.etl.clone().sign_certificate(keyed.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        w.f.hsm.set_fault(None);
        let again = w.etl.clone().sign_certificate(keyed).await.unwrap().into_inner();
        assert!(!again.replayed, "what failed gave its key back");
        w.sign(&csr_pem).await.unwrap();
        let states: Vec<_> = w.all().await.into_iter().map(|c| c.state).collect();
        assert_eq!(states, ["failed", "failed", "active", "active"]);
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
async fn a_certificate_is_expired_after_its_last_second() {
    let w = World::on(Backend::Sqlite).await;
    w.sign(&csr().1).await.unwrap();
    w.f.clock.advance(Duration::from_mins(50));
    assert_eq!(w.all().await[0].state, "active");
    w.f.clock.advance(Duration::from_secs(602));
    assert_eq!(w.all().await[0].state, "expired");
}
