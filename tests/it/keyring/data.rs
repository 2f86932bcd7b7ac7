//! Values under their owners' keys.

use strongroom::Error;
use strongroom::keyring::{KeyUse, KeyringError, Place};
use strongroom::store::StoreError;
use strongroom::store::keys::{IdentityKeyRow, KeyOwner, KeyState};
use strongroom::types::{Id, IdentityId, SecretBytes};

use super::fixture::{NOW, Node, id};

pub(super) const ALICE: KeyOwner = KeyOwner::Identity(IdentityId(id(0xa1)));
const BOB: KeyOwner = KeyOwner::Identity(IdentityId(id(0xb0)));

pub(super) fn place() -> Place {
    Place { table: "secrets", column: "value", row: id(2), object: id(3), object_version: 4 }
}

pub(super) fn secret() -> SecretBytes {
    SecretBytes::new(b"hunter2".to_vec())
}

/// Seals and stores the key that it is under; answers key, blob and keys used.
pub(super) async fn put(node: &Node, owner: KeyOwner) -> (Id, Vec<u8>, Vec<KeyUse>) {
    let value = node.keyring.seal_for(&node.reader, owner, &place(), &secret(), NOW).await.unwrap();
    let used = value.used().to_vec();
    let (told, hears) = std::sync::mpsc::channel();
    node.commit(move |tx| {
        let (value, told) = (value.clone(), told.clone());
        Box::pin(async move {
            let stored = value.store(tx).await?;
            told.send((stored.key_id, stored.blob.to_vec())).unwrap();
            Ok(())
        })
    })
    .await
    .unwrap();
    let (key, blob) = hears.recv().unwrap();
    (key, blob, used)
}

pub(super) async fn fetch(
    node: &Node,
    owner: KeyOwner,
    place: &Place,
    key: Id,
    blob: &[u8],
) -> Result<(SecretBytes, Vec<KeyUse>), KeyringError> {
    let opened = node.keyring.open(&node.reader, owner, place, key, blob).await?;
    Ok((opened.plaintext, opened.used))
}

fn purposes(used: &[KeyUse]) -> Vec<&'static str> {
    used.iter().map(|used| used.purpose).collect()
}

#[tokio::test]
async fn values_survive_a_restart_and_every_use_of_a_key_is_told() {
    let node = Node::founded().await;
    let mut kept = Vec::new();
    for (owner, first) in [
        (KeyOwner::System, ["unwrap", "encrypt"]),
        (ALICE, ["wrap", "encrypt"]),
        (BOB, ["wrap", "encrypt"]),
    ] {
        let (key, blob, used) = put(&node, owner).await;
        assert_eq!(purposes(&used), first);
        assert_eq!((used[1].key.as_str(), used[1].version), (key.to_string().as_str(), 1));
        assert!(used[0].key.ends_with("root/1"));
        let (same, other, used) = put(&node, owner).await;
        assert_eq!(same, key, "the key is made once");
        assert_ne!(blob, other);
        assert_eq!(purposes(&used).last(), Some(&"encrypt"));
        kept.push((owner, key, blob));
    }
    let node = node.restarted().await;
    node.unseal().await.unwrap();
    for (owner, key, blob) in kept {
        let (plaintext, used) = fetch(&node, owner, &place(), key, &blob).await.unwrap();
        assert_eq!((plaintext, purposes(&used)), (secret(), vec!["unwrap", "decrypt"]));
        let (plaintext, used) = fetch(&node, owner, &place(), key, &blob).await.unwrap();
        assert_eq!((plaintext, purposes(&used)), (secret(), vec!["decrypt"]), "cached");
    }
}

#[tokio::test]
async fn a_blob_moved_to_another_place_owner_or_key_does_not_open() {
    let node = Node::founded().await;
    let (key, blob, _) = put(&node, ALICE).await;
    let (bobs, bobs_blob, _) = put(&node, BOB).await;
    for (what, owner, place, key, blob) in [
        ("table", ALICE, Place { table: "connections", ..place() }, key, &blob),
        ("column", ALICE, Place { column: "note", ..place() }, key, &blob),
        ("row", ALICE, Place { row: id(9), ..place() }, key, &blob),
        ("object", ALICE, Place { object: id(9), ..place() }, key, &blob),
        ("version", ALICE, Place { object_version: 5, ..place() }, key, &blob),
        ("owner", BOB, place(), key, &blob),
        ("owner system", KeyOwner::System, place(), key, &blob),
        ("key", ALICE, place(), bobs, &blob),
        ("owner and key", BOB, place(), bobs, &blob),
        ("another's blob", ALICE, place(), key, &bobs_blob),
    ] {
        let refused = fetch(&node, owner, &place, key, blob).await;
        assert!(matches!(refused, Err(KeyringError::Misplaced(_))), "{what}");
        assert!(matches!(refused.map_err(Error::from), Err(Error::Denied(_))), "{what}");
    }
    assert_eq!(fetch(&node, ALICE, &place(), id(9), &blob).await, Err(KeyringError::NoKey));
    assert_eq!(fetch(&node, ALICE, &place(), key, &blob).await.unwrap().0, secret());
}

#[tokio::test]
async fn any_changed_bit_of_a_blob_its_place_version_or_owner_opens_nothing() {
    fn flipped(from: Id, bit: usize) -> Id {
        let mut bytes = *from.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Id::from_bytes(bytes)
    }
    let node = Node::founded().await;
    let (key, blob, _) = put(&node, ALICE).await;
    let KeyOwner::Identity(IdentityId(alice)) = ALICE else { panic!("she is an identity") };
    let here = place();
    let mut wrong: Vec<(KeyOwner, Place, Vec<u8>)> = Vec::new();
    for bit in 0..blob.len() * 8 {
        let mut bent = blob.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        wrong.push((ALICE, here, bent));
    }
    for bit in 0..128 {
        let other = KeyOwner::Identity(IdentityId(flipped(alice, bit)));
        wrong.push((other, here, blob.clone()));
        wrong.push((ALICE, Place { row: flipped(here.row, bit), ..here }, blob.clone()));
        wrong.push((ALICE, Place { object: flipped(here.object, bit), ..here }, blob.clone()));
    }
    for bit in 0..64 {
        let object_version = here.object_version ^ (1 << bit);
        wrong.push((ALICE, Place { object_version, ..here }, blob.clone()));
    }
    for (owner, place, blob) in wrong {
        let refused = fetch(&node, owner, &place, key, &blob).await;
        assert!(matches!(refused, Err(KeyringError::Misplaced(_))), "{owner:?} {place:?} {blob:?}");
    }
    assert_eq!(fetch(&node, ALICE, &here, key, &blob).await.unwrap().0, secret());
}

#[tokio::test]
async fn a_wrap_moved_to_another_key_does_not_open_and_a_key_moved_to_another_owner_is_refused() {
    let node = Node::founded().await;
    let (key, blob, _) = put(&node, ALICE).await;
    let (bobs, ..) = put(&node, BOB).await;
    let node = node.restarted().await;
    node.unseal().await.unwrap();
    node.by_hand(&format!(
        "CREATE TABLE kept AS SELECT * FROM key_wraps; \
         UPDATE key_wraps SET blob = (SELECT blob FROM kept WHERE key_id = '{bobs}') \
         WHERE key_id = '{key}'"
    ));
    let refused = fetch(&node, ALICE, &place(), key, &blob).await.unwrap_err();
    assert_eq!(refused, KeyringError::Misplaced(format!("the wrap of key {key}")));

    node.by_hand("DELETE FROM key_wraps; INSERT INTO key_wraps SELECT * FROM kept");
    node.by_hand(&format!(
        "UPDATE identity_keys SET owner = '{BOB}', version = 2 WHERE id = '{key}'"
    ));
    let refused = fetch(&node, BOB, &place(), key, &blob).await.unwrap_err();
    let tampered = StoreError::Tampered { table: "identity_keys", id: key.to_string() };
    assert_eq!(Error::from(refused), Error::from(tampered));
}

#[tokio::test]
async fn of_two_first_keys_of_one_owner_one_is_stored_and_the_other_conflicts() {
    let node = Node::founded().await;
    let (here, secret) = (place(), secret());
    let seal = || node.keyring.seal_for(&node.reader, ALICE, &here, &secret, NOW);
    let (a, b) = tokio::join!(seal(), seal());
    let commit = |value: strongroom::keyring::SealedValue| {
        node.commit(move |tx| {
            let value = value.clone();
            Box::pin(async move { value.store(tx).await.map(drop) })
        })
    };
    assert_eq!(commit(a.unwrap()).await, Ok(()));
    assert!(matches!(commit(b.unwrap()).await, Err(Error::Conflict(_))));
    let count = node.look("SELECT CAST(count(*) AS TEXT) FROM identity_keys");
    assert_eq!(count, "2", "the key of `system` and one of the owner");
    assert_eq!(commit(seal().await.unwrap()).await, Ok(()));
}

async fn set_state(node: &Node, key: Id, state: KeyState) {
    node.commit(move |tx| {
        Box::pin(async move {
            let row = tx.lookup::<IdentityKeyRow>(&key).await?.unwrap();
            tx.update(row.version, &IdentityKeyRow { state, ..row.row }).await?;
            Ok(())
        })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_retired_behind_the_cache_takes_no_new_data_and_a_destroyed_one_opens_nothing() {
    let node = Node::founded().await;
    let (key, blob, _) = put(&node, ALICE).await;
    let (here, secret) = (place(), secret());
    let seal = || node.keyring.seal_for(&node.reader, ALICE, &here, &secret, NOW);
    seal().await.unwrap().used().to_vec();
    set_state(&node, key, KeyState::Retired).await;

    let stale = seal().await.unwrap();
    let stored = node.commit(move |tx| {
        let value = stale.clone();
        Box::pin(async move { value.store(tx).await.map(drop) })
    });
    assert!(matches!(stored.await, Err(Error::Conflict(_))));
    assert_eq!(seal().await.unwrap_err(), KeyringError::NoKey, "and the cache forgot it");
    assert_eq!(fetch(&node, ALICE, &place(), key, &blob).await.unwrap().0, secret);

    let next = node.keyring.new_identity_key(&node.reader, ALICE, NOW).await.unwrap();
    assert_eq!(next.row().version, 2);
    let next_id = next.row().id;
    node.commit(move |tx| {
        let next = next.clone();
        Box::pin(async move { next.store(tx).await })
    })
    .await
    .unwrap();
    let (newer, ..) = put(&node, ALICE).await;
    assert_eq!(newer, next_id);

    set_state(&node, key, KeyState::Destroyed).await;
    node.keyring.forget(ALICE);
    // What nobody shredded is no more than gone.
    assert_eq!(fetch(&node, ALICE, &place(), key, &blob).await, Err(KeyringError::NoKey));
    node.by_hand(&format!("DELETE FROM key_wraps WHERE key_id = '{newer}'"));
    node.keyring.forget_all();
    assert_eq!(fetch(&node, ALICE, &place(), newer, &blob).await, Err(KeyringError::NoKey));
}
