//! Seal, unseal and the hierarchy of keys, over a real store.

mod data;
pub(crate) mod fixture;
mod founding;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fixture::{NOW, Node, id, pin};
use strongroom::Error;
use strongroom::crypto::Checkpoint;
use strongroom::hsm::{Hsm, HsmError, KeyKind};
use strongroom::keyring::{FinalTry, Head, HeadKept, KeyringError, Place, label};
use strongroom::store::StoreError;
use strongroom::store::keys::{self, HsmKeyRow, HsmPurpose, KeyOwner};
use strongroom::types::{IdentityId, SecretBytes, VaultId};
use tokio::sync::Notify;

const KEYS: [(HsmPurpose, KeyKind); 5] = [
    (HsmPurpose::Root, KeyKind::HmacSha256),
    (HsmPurpose::CaRoot, KeyKind::EcdsaP384),
    (HsmPurpose::CaIssuing, KeyKind::EcdsaP256),
    (HsmPurpose::CaLogin, KeyKind::EcdsaP256),
    (HsmPurpose::Checkpoint, KeyKind::Ed25519),
];

fn root() -> String {
    label(VaultId(id(1)), HsmPurpose::Root, 1)
}

/// Tells whether sealed rows can be read.
async fn sealed_rows(node: &Node) -> Result<(), Error> {
    let view = node.reader.view(|tx| {
        Box::pin(async move {
            tx.select::<HsmKeyRow>("", vec![]).await?;
            Ok(())
        })
    });
    view.await
}

async fn assert_sealed(node: &Node, why: &str) {
    assert!(node.keyring.is_sealed(), "{why}");
    assert_eq!(sealed_rows(node).await, Err(Error::Sealed), "{why}");
    assert_eq!(node.token.lookup_key("x").await, Err(HsmError::LoggedOut), "{why}");
}

#[tokio::test]
async fn a_wrong_pin_leaves_the_vault_sealed_and_is_tried_once() {
    let node = Node::founded().await.restarted().await;
    let before = node.token.logins.load(Ordering::SeqCst);
    let wrong = SecretBytes::new(b"71839266".to_vec());
    let refused = node.keyring.unseal(&node.reader, wrong, FinalTry::Refuse).await;
    assert_eq!(refused.unwrap_err(), KeyringError::Hsm(HsmError::PinIncorrect));
    assert_eq!(node.token.logins.load(Ordering::SeqCst), before + 1);
    assert_sealed(&node, "wrong pin").await;
    node.unseal().await.unwrap();
    assert_eq!(sealed_rows(&node).await, Ok(()));
}

#[tokio::test]
async fn a_pin_is_checked_even_where_an_unsealing_given_up_left_the_hsm_logged_in() {
    let node = Node::founded().await.restarted().await;
    node.token.login(pin()).await.unwrap();
    let wrong = SecretBytes::new(b"0".to_vec());
    let refused = node.keyring.unseal(&node.reader, wrong, FinalTry::Refuse).await;
    assert_eq!(refused.unwrap_err(), KeyringError::Hsm(HsmError::PinIncorrect));
}

#[tokio::test]
async fn a_key_that_was_replaced_or_removed_in_the_token_keeps_the_vault_sealed() {
    for (purpose, kind) in KEYS {
        let first = Node::founded().await;
        let label = label(VaultId(id(1)), purpose, 1);
        let node = first.restarted().await;
        node.token.hide(&label);
        assert_eq!(node.unseal().await.unwrap_err(), KeyringError::Replaced(label.clone()));
        assert_sealed(&node, &label).await;
        node.token.swap(&label, kind).await;
        assert_eq!(node.unseal().await.unwrap_err(), KeyringError::Replaced(label.clone()));
        assert_sealed(&node, &label).await;
        *node.token.swapped.lock() = None;
        node.unseal().await.unwrap();
    }
}

#[tokio::test]
async fn rows_of_the_hierarchy_edited_by_hand_keep_the_vault_sealed() {
    for edit in [
        "UPDATE hsm_keys SET pinned = X'0011223344556677' WHERE purpose = 'root'",
        "UPDATE hsm_keys SET certificate = X'30' WHERE purpose = 'ca/login'",
        "UPDATE hsm_keys SET link = X'30' WHERE purpose = 'ca/root'",
        "UPDATE hsm_keys SET created_at = 1 WHERE purpose = 'checkpoint'",
        "UPDATE hsm_keys SET state = 'retired' WHERE purpose = 'ca/issuing'",
        "UPDATE hsm_keys SET state = 'destroyed' WHERE purpose = 'root'",
        "UPDATE hsm_keys SET purpose = 'ca/issuing', version = 2 WHERE purpose = 'ca/login'",
        "UPDATE hsm_keys SET row_version = 2 WHERE purpose = 'root'",
        "UPDATE hsm_keys SET mac = zeroblob(32) WHERE purpose = 'root'",
        "DELETE FROM hsm_keys WHERE purpose = 'ca/root'",
        "INSERT INTO hsm_keys SELECT id || '0', purpose, 10, state, pinned, certificate, link, \
         created_at, row_version, seal_version, mac FROM hsm_keys WHERE purpose = 'root'",
        "UPDATE identity_keys SET created_at = 1",
        "UPDATE identity_keys SET state = 'retired'",
        "UPDATE identity_keys SET version = 2",
        "DELETE FROM identity_keys",
        "UPDATE vault SET dev = 1",
        "UPDATE vault SET trust_domain = 'evil.example'",
        "UPDATE vault SET id = '02020202-0202-0202-0202-020202020202'",
        "DELETE FROM vault",
        "INSERT INTO vault SELECT '02020202-0202-0202-0202-020202020202', trust_domain, 1, origin, \
         created_at, restore_epoch, restored_at, row_version, seal_version, mac FROM vault",
        "UPDATE seal SET sealed_by = 'nobody'",
        "DELETE FROM seal",
        "UPDATE key_wraps SET blob = zeroblob(104)",
        "UPDATE key_wraps SET blob = X''",
        "UPDATE key_wraps SET suite = 2",
        "UPDATE key_wraps SET recipient = 'strongroom/other/root/1'",
        "DELETE FROM key_wraps",
    ] {
        let node = Node::founded().await.restarted().await;
        node.by_hand(edit);
        let refused = node.unseal().await;
        assert!(refused.is_err(), "{edit}");
        assert_sealed(&node, edit).await;
    }
}

#[tokio::test]
async fn a_wrap_of_an_unknown_suite_is_refused_by_name() {
    let node = Node::founded().await.restarted().await;
    node.by_hand("UPDATE key_wraps SET suite = 2");
    assert_eq!(node.unseal().await.unwrap_err(), KeyringError::UnknownSuite(2));
}

#[tokio::test]
async fn a_wrap_for_a_recipient_that_is_not_ours_is_passed_over() {
    let node = Node::founded().await.restarted().await;
    node.by_hand(
        "INSERT INTO key_wraps SELECT key_id, 'recovery', 9, X'00' FROM key_wraps; \
         INSERT INTO key_wraps SELECT key_id, 'zzz', 9, X'00' FROM key_wraps LIMIT 1",
    );
    node.unseal().await.unwrap();
}

#[tokio::test]
async fn an_older_row_put_back_between_seal_and_unseal_keeps_the_vault_sealed() {
    let node = Node::founded().await;
    node.by_hand("CREATE TABLE kept AS SELECT * FROM hsm_keys");
    node.commit(|tx| {
        Box::pin(async move {
            let row = tx.lookup::<HsmKeyRow>(&root()).await?.unwrap();
            let changed = HsmKeyRow { certificate: Some(vec![1]), ..row.row };
            tx.update(row.version, &changed).await?;
            Ok(())
        })
    })
    .await
    .unwrap();
    node.keyring.seal().await.unwrap();
    node.unseal().await.unwrap();
    node.keyring.seal().await.unwrap();
    node.by_hand("DELETE FROM hsm_keys; INSERT INTO hsm_keys SELECT * FROM kept");
    let refused = node.unseal().await.unwrap_err();
    assert_eq!(refused, StoreError::Tampered { table: "hsm_keys", id: root() }.into());
    assert!(node.keyring.is_sealed());
    let other_rows = node.reader.view(|tx| Box::pin(async move { Ok(keys::seal_row(tx).await?) }));
    assert_eq!(other_rows.await, Err(Error::Sealed));
}

#[tokio::test]
async fn a_sealed_keyring_refuses_everything() {
    let node = Node::founded().await;
    let owner = KeyOwner::Identity(IdentityId(id(7)));
    let place = Place { table: "t", column: "c", row: id(2), object: id(2), object_version: 1 };
    let secret = SecretBytes::new(b"hunter2".to_vec());
    let (keyring, reader) = (&node.keyring, &node.reader);
    let value = keyring.seal_for(reader, owner, &place, &secret, NOW).await.unwrap();
    keyring.seal().await.unwrap();
    keyring.seal().await.unwrap();
    assert_sealed(&node, "sealed").await;

    let head = Head { size: 1, root: [0; 32] };
    let refusals = [
        keyring.seal_for(reader, owner, &place, &secret, NOW).await.map(drop),
        keyring.open(reader, owner, &place, id(3), b"").await.map(drop),
        keyring.new_identity_key(reader, owner, NOW).await.map(drop),
        keyring.hsm_key(HsmPurpose::CaLogin).map(drop),
        keyring.hsm_keys().map(drop),
        keyring.idempotency_key().map(drop),
        keyring.page_key().map(drop),
        keyring.sign_checkpoint("text").await.map(drop),
        keyring.write_head(&head).await.map(drop),
        keyring.read_head().await.map(drop),
        keyring.founded().await,
    ];
    for (i, refusal) in refusals.into_iter().enumerate() {
        assert_eq!(refusal, Err(KeyringError::Sealed), "refusal {i}");
    }
    let stored = node.commit(move |tx| {
        let value = value.clone();
        Box::pin(async move { value.store(tx).await.map(drop) })
    });
    assert_eq!(stored.await, Err(Error::Sealed));
    assert_eq!(format!("{keyring:?}"), "Keyring { sealed: true, .. }");
}

#[tokio::test]
async fn racing_unseals_log_in_once_and_yield_the_same_keys() {
    let node = Node::founded().await.restarted().await;
    let before = node.token.logins.load(Ordering::SeqCst);
    let (a, b) = tokio::join!(node.unseal(), node.unseal());
    assert_eq!(a.unwrap().batch.tag(&[b"x"]), b.unwrap().batch.tag(&[b"x"]));
    assert_eq!(node.token.logins.load(Ordering::SeqCst), before + 1);
    let (unsealed, sealed) = tokio::join!(node.unseal(), node.keyring.seal());
    unsealed.unwrap();
    sealed.unwrap();
    assert_sealed(&node, "sealed last").await;
}

#[tokio::test]
async fn an_unsealing_that_is_given_up_half_way_leaves_no_key_in_force() {
    let node = Node::founded().await.restarted().await;
    let begun = Arc::new(Notify::new());
    *node.token.stuck.lock() = Some(Arc::clone(&begun));
    tokio::select! {
        unsealed = node.unseal() => panic!("{unsealed:?}"),
        // The last step: the key is in force by then, for the rows to be read with.
        () = begun.notified() => {}
    }
    assert!(node.keyring.is_sealed());
    assert_eq!(sealed_rows(&node).await, Err(Error::Sealed));
    *node.token.stuck.lock() = None;
    node.unseal().await.unwrap();
}

#[tokio::test]
async fn the_seal_on_record_is_obeyed_before_its_mac_can_be_checked() {
    let on_record = async |node: &Node| {
        let view =
            node.reader.view(|tx| Box::pin(async move { Ok(keys::seal_on_record(tx).await?) }));
        view.await.unwrap()
    };
    let node = Node::founded().await.restarted().await;
    assert!(!on_record(&node).await);
    for edit in [
        "UPDATE seal SET sealed_at = 1",
        "UPDATE seal SET sealed_at = NULL, id = 'x'",
        "DELETE FROM seal",
    ] {
        node.by_hand(edit);
        assert!(on_record(&node).await, "{edit}");
    }
}

#[tokio::test]
async fn a_checkpoint_is_signed_by_the_pinned_key_and_the_head_survives_a_restart() {
    let node = Node::founded().await;
    let key = node.keyring.hsm_key(HsmPurpose::Checkpoint).unwrap();
    let spki = key.public_key_spki.unwrap();
    let verifier = strongroom::crypto::VerifierKey::from_spki("example.org/log", &spki).unwrap();
    let text = strongroom::crypto::note_body("example.org/log", 5, &[9; 32]).unwrap();
    let (signature, used) = node.keyring.sign_checkpoint(&text).await.unwrap();
    let signed = strongroom::crypto::sign_note(&text, &verifier, &signature).unwrap();
    assert_eq!(Checkpoint::open(&signed, &verifier).unwrap().size, 5);
    assert_eq!((used.key, used.version, used.purpose), (key.label, 1, "checkpoint"));

    assert_eq!(node.keyring.read_head().await.unwrap(), None);
    for size in [5, 6] {
        let kept = node.keyring.write_head(&Head { size, root: [9; 32] }).await.unwrap();
        assert_eq!(kept, HeadKept::InHsm);
    }
    let node = node.restarted().await;
    node.unseal().await.unwrap();
    assert_eq!(node.keyring.read_head().await.unwrap(), Some(Head { size: 6, root: [9; 32] }));
}
