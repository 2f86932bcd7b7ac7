//! Founding a vault, and what a crash on the way leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use strongroom::Error;
use strongroom::hsm::{HsmError, KeyKind, Pkcs11Hsm};
use strongroom::keyring::{FinalTry, KeyringError, OnFound, label};
use strongroom::store::keys::HsmPurpose;
use strongroom::types::VaultId;

use super::data;
use super::fixture::{Node, Token, id, pin, vault};
use crate::support::softhsm;

#[tokio::test]
async fn a_store_without_a_vault_does_not_unseal() {
    let node = Node::empty(Token::new()).await;
    assert_eq!(node.unseal().await.unwrap_err(), KeyringError::NotFounded);
    assert!(node.keyring.is_sealed());
}

#[tokio::test]
async fn a_founding_cut_at_any_key_is_resumed_for_the_same_vault_alone() {
    for made in 0..5 {
        let node = Node::empty(Token::new()).await;
        node.token.room.store(made, Ordering::SeqCst);
        let cut = node.keyring.create(vault(1), pin(), OnFound::Refuse).await;
        assert!(matches!(cut, Err(KeyringError::Hsm(HsmError::Unavailable(_)))), "{made}");
        assert!(node.keyring.is_sealed());
        node.token.room.store(usize::MAX, Ordering::SeqCst);

        let node = node.restarted().await;
        assert_eq!(node.keyring.pending(pin()).await, Ok(Some(VaultId(id(1)))));
        if made > 0 {
            let again = node.keyring.create(vault(1), pin(), OnFound::Refuse).await;
            let root = label(VaultId(id(1)), HsmPurpose::Root, 1);
            assert_eq!(again.unwrap_err(), KeyringError::Exists(root));
        }
        let genesis = node.keyring.create(vault(1), pin(), OnFound::Resume).await.unwrap();
        node.store(genesis).await.unwrap();
        node.keyring.founded().await.unwrap();
        let node = node.restarted().await;
        assert_eq!(node.keyring.pending(pin()).await, Ok(None));
        node.unseal().await.unwrap();
    }
}

#[tokio::test]
async fn a_finished_vault_is_never_resumed_and_another_can_share_its_token() {
    let first = Node::founded().await;
    let again = Node::empty(first.token.clone()).await;
    let root = label(VaultId(id(1)), HsmPurpose::Root, 1);
    let refused = again.keyring.create(vault(1), pin(), OnFound::Resume).await;
    assert_eq!(refused.unwrap_err(), KeyringError::Exists(root));

    let genesis = again.keyring.create(vault(2), pin(), OnFound::Refuse).await.unwrap();
    again.store(genesis).await.unwrap();
    let (first, second) = (first.restarted().await, again.restarted().await);
    let keys = (first.unseal().await.unwrap(), second.unseal().await.unwrap());
    assert_ne!(keys.0.row.tag(&[b"x"]), keys.1.row.tag(&[b"x"]));
}

#[tokio::test]
async fn unsealing_removes_the_note_that_a_crash_after_the_first_commit_left() {
    let node = Node::empty(Token::new()).await;
    let genesis = node.keyring.create(vault(1), pin(), OnFound::Refuse).await.unwrap();
    node.store(genesis).await.unwrap();
    let node = node.restarted().await;
    assert_eq!(node.keyring.pending(pin()).await, Ok(Some(VaultId(id(1)))));
    let keys = node.unseal().await.unwrap();
    let root = label(VaultId(id(1)), HsmPurpose::Root, 1);
    assert_eq!((keys.root.key, keys.root.version, keys.root.purpose), (root, 1, "unwrap"));
    assert_eq!(node.keyring.pending(pin()).await, Ok(None));
}

#[tokio::test]
async fn a_second_vault_in_one_store_is_refused_and_writes_nothing() {
    let node = Node::founded().await;
    let refused = node.keyring.create(vault(2), pin(), OnFound::Refuse).await;
    assert_eq!(refused.unwrap_err(), KeyringError::Unsealed);
    node.keyring.seal().await.unwrap();
    let genesis = node.keyring.create(vault(2), pin(), OnFound::Refuse).await.unwrap();
    let refused = node.store(genesis).await;
    assert_eq!(refused, Err(Error::AlreadyExists("the store holds a vault already".into())));
    assert_eq!(node.look("SELECT CAST(count(*) AS TEXT) FROM hsm_keys"), "5");
    assert_eq!(node.look("SELECT CAST(count(*) AS TEXT) FROM vault"), "1");
    node.keyring.seal().await.unwrap();
    node.unseal().await.unwrap();
}

#[tokio::test]
async fn a_token_without_ed25519_signs_checkpoints_with_p256_and_one_without_hmac_is_refused() {
    let node = Node::empty(Token::new()).await;
    *node.token.lacks.lock() = Some(KeyKind::HmacSha256);
    let refused = node.keyring.create(vault(1), pin(), OnFound::Refuse).await;
    assert!(matches!(refused, Err(KeyringError::Hsm(HsmError::Unsupported(_)))));

    *node.token.lacks.lock() = Some(KeyKind::Ed25519);
    let mut genesis = node.keyring.create(vault(1), pin(), OnFound::Resume).await.unwrap();
    genesis.set_certificate(HsmPurpose::CaLogin, b"certificate");
    node.store(genesis).await.unwrap();
    let node = node.restarted().await;
    node.unseal().await.unwrap();
    let checkpoint = node.keyring.hsm_key(HsmPurpose::Checkpoint).unwrap();
    assert_eq!(checkpoint.kind, KeyKind::EcdsaP256);
    let login = node.keyring.hsm_key(HsmPurpose::CaLogin).unwrap();
    assert_eq!(login.certificate.as_deref(), Some(b"certificate".as_slice()));
    let root = node.keyring.hsm_key(HsmPurpose::CaRoot).unwrap();
    assert_eq!(root.certificate, None);
}

#[tokio::test]
async fn a_wrong_pin_founds_nothing() {
    let node = Node::empty(Token::new()).await;
    let wrong = strongroom::types::SecretBytes::new(b"0".to_vec());
    let refused = node.keyring.create(vault(1), wrong, OnFound::Refuse).await;
    assert_eq!(refused.unwrap_err(), KeyringError::Hsm(HsmError::PinIncorrect));
    assert_eq!(node.keyring.pending(pin()).await, Ok(None));
    let forced = node.keyring.unseal(&node.reader, pin(), FinalTry::Force).await;
    assert_eq!(forced.unwrap_err(), KeyringError::NotFounded);
}

#[test]
fn a_vault_founded_in_softhsm_seals_and_unseals_again() {
    let name = "keyring::founding::a_vault_founded_in_softhsm_seals_and_unseals_again";
    softhsm::in_child(name, |token| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let hsm = Arc::new(Pkcs11Hsm::open(&token.config()).unwrap());
            let node = Node::empty(Token::over(hsm.clone())).await;
            let wrong = strongroom::types::SecretBytes::new(b"1234".to_vec());
            assert_eq!(token.pin, pin());
            let genesis = node.keyring.create(vault(1), pin(), OnFound::Refuse).await.unwrap();
            node.store(genesis).await.unwrap();
            node.keyring.founded().await.unwrap();
            let kept = data::put(&node, data::ALICE).await;

            let node = node.restarted().await;
            let refused = node.keyring.unseal(&node.reader, wrong, FinalTry::Refuse).await;
            assert_eq!(refused.unwrap_err(), KeyringError::Hsm(HsmError::PinIncorrect));
            node.unseal().await.unwrap();
            node.keyring.seal().await.unwrap();
            node.unseal().await.unwrap();
            let opened = data::fetch(&node, data::ALICE, &data::place(), kept.0, &kept.1).await;
            assert_eq!(opened.unwrap().0, data::secret());
            assert_eq!(node.keyring.pending(pin()).await, Ok(None));
            assert!(node.keyring.sign_checkpoint("text").await.is_ok());
            node.keyring.seal().await.unwrap();
            hsm.close().await.unwrap();
        });
    });
}
