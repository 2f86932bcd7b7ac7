//! Keys in the HSM: pinned, counted, and ended where their making came to nothing.

use std::time::Duration;

use strongroom::hsm::memory::MemoryFault;
use strongroom::hsm::{Hsm as _, KeyKind};
use strongroom::proto::{NamedKey, SignItem, SignRequest};
use tonic::Code;

use super::{Client, Place, create, rotate, show, spec};
use crate::support::hand::Hand;
use crate::support::node::BACKENDS;
use crate::support::target::until;

async fn sign(client: &mut Client, name: &str) -> Result<Vec<u8>, Code> {
    let items = vec![SignItem { message: b"x".to_vec() }];
    let request = SignRequest { name: name.to_owned(), items };
    let done = client.sign(request).await.map_err(|status| status.code())?;
    Ok(done.into_inner().results.remove(0).signature)
}

async fn label(p: &Place, key: &NamedKey, version: i64) -> String {
    let hand = Hand::new(&p.f.parts.location);
    let vault = hand.ask("SELECT id FROM vault").await.remove(0);
    format!("strongroom/{vault}/key/{}/{version}", key.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_in_its_place_signs_nothing() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        let key = create(&mut p.alice(), "team/a", "ecdsa-p256").await;
        assert_eq!(key.placement, "hsm");
        sign(&mut p.alice(), "team/a").await.unwrap();
        let label = label(&p, &key, 1).await;
        p.f.hsm.destroy_key(&label).await.unwrap();
        p.f.hsm.create_key(&label, KeyKind::EcdsaP256).await.unwrap();
        p.f.restart().await;
        p.alice = p.f.connect(&crate::support::logins::login(&p.f, "alice").await).await;
        assert_eq!(sign(&mut p.alice(), "team/a").await, Err(Code::PermissionDenied));
        p.f.hsm.destroy_key(&label).await.unwrap();
        assert_eq!(sign(&mut p.alice(), "team/a").await, Err(Code::FailedPrecondition));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hsm_signs_a_thousand_messages_of_a_call_and_no_more() {
    let p = Place::new(BACKENDS[0]).await;
    create(&mut p.alice(), "team/a", "ecdsa-p256").await;
    let items = |count| vec![SignItem { message: b"x".to_vec() }; count];
    let request = SignRequest { name: "team/a".to_owned(), items: items(1_001) };
    assert_eq!(p.alice().sign(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = SignRequest { name: "team/a".to_owned(), items: items(1_000) };
    let done = p.alice().sign(request).await.unwrap().into_inner();
    assert!(done.results.iter().all(|result| result.fault.is_none()));
    assert_eq!(done.results.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_nothing_is_destroyed_in_the_hsm_and_its_number_is_not_used_again() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let key = create(&mut p.alice(), "team/a", "ecdsa-p256").await;
        // The HSM holds a key of that label already: making the version fails.
        let label = label(&p, &key, 2).await;
        p.f.hsm.create_key(&label, KeyKind::EcdsaP256).await.unwrap();
        rotate(&mut p.alice(), "team/a", 1).await.unwrap_err();
        let shown = show(&mut p.alice(), "team/a").await.unwrap();
        assert_eq!(shown.key.unwrap().version, 1);
        assert_eq!(shown.versions[0].state, "pending");
        sign(&mut p.alice(), "team/a").await.unwrap();
        p.f.clock.advance(Duration::from_secs(301));
        until("it is settled", async || {
            show(&mut p.alice(), "team/a").await.unwrap().versions[0].state == "failed"
        })
        .await;
        assert_eq!(p.f.hsm.lookup_key(&label).await.unwrap(), None);
        assert_eq!(rotate(&mut p.alice(), "team/a", 1).await, Ok(3));
        sign(&mut p.alice(), "team/a").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hsm_that_does_not_answer_is_told_and_sealed_keys_go_on() {
    let p = Place::new(BACKENDS[0]).await;
    create(&mut p.alice(), "team/a", "ecdsa-p256").await;
    create(&mut p.alice(), "team/b", "aes-256-gcm").await;
    super::encrypt(&mut p.alice(), "team/b", b"x", b"").await.unwrap();
    p.f.hsm.set_fault(Some(MemoryFault::Unavailable));
    assert_eq!(sign(&mut p.alice(), "team/a").await, Err(Code::Unavailable));
    let made = p.alice().create_key(spec("team/c", "ed25519")).await.unwrap_err();
    assert_eq!(made.code(), Code::Unavailable);
    super::encrypt(&mut p.alice(), "team/b", b"x", b"").await.unwrap();
    p.f.hsm.set_fault(None);
    sign(&mut p.alice(), "team/a").await.unwrap();
    create(&mut p.alice(), "team/c", "ed25519").await;
}
