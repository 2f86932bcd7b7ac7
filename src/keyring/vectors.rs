//! Holds the sections on keys and values of `docs/formats.md` to the code.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::data::{Aads, Place, open_value, seal_value};
use super::identity::{subject, wrap_aad};
use super::master::{
    INFO_BATCH, INFO_DATA_WRAP, INFO_IDEMPOTENCY, INFO_MASK, INFO_PAGE, INFO_RECOVERY, INFO_ROW,
    INFO_TOKEN, derive,
};
use super::{HsmKey, label};
use crate::crypto::{CryptoError, Subject, hex};
use crate::error;
use crate::hsm::KeyKind;
use crate::store::keys::{HsmPurpose, IdentityKeyRow, KeyOwner, KeyState};
use crate::types::{Entropy, Id, IdentityId, SecretBytes, UnixMillis, VaultId};

const PAGE: &str = include_str!("../../docs/formats.md");
const SECTIONS: [&str; 2] = ["keys", "value"];

/// Yields 00, 01, 02 … as the page says.
#[derive(Debug, Default)]
struct Counting(Mutex<u8>);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) -> error::Result<()> {
        let mut next = self.0.lock();
        for byte in buffer {
            *byte = *next;
            *next = next.wrapping_add(1);
        }
        Ok(())
    }
}

const fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 16])
}

fn key(owner: KeyOwner) -> IdentityKeyRow {
    let created_at = UnixMillis(0);
    IdentityKeyRow { id: id(0x33), owner, version: 1, state: KeyState::Active, created_at }
}

fn place() -> Place {
    Place {
        table: "connections",
        column: "password",
        row: id(0x22),
        object: id(0x22),
        object_version: 3,
    }
}

fn computed() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| {
        out.insert(name.to_owned(), hex(bytes));
    };
    let vault = VaultId(id(0x11));
    let identity_key = SecretBytes::new((0..32).collect());
    for (name, info) in [
        ("data-wrap", INFO_DATA_WRAP),
        ("row", INFO_ROW),
        ("batch", INFO_BATCH),
        ("idempotency", INFO_IDEMPOTENCY),
        ("page", INFO_PAGE),
        ("token", INFO_TOKEN),
        ("mask", INFO_MASK),
        ("recovery", INFO_RECOVERY),
    ] {
        let derived = derive(vault, &identity_key, info).unwrap();
        put(&format!("keys.{name}"), derived.expose());
    }
    let wrap_key = derive(vault, &identity_key, INFO_DATA_WRAP).unwrap();
    let aad = Aads::of(vault, &key(KeyOwner::System), &place());
    let plaintext = SecretBytes::new(b"hunter2".to_vec());
    let blob = seal_value(&wrap_key, &aad, &plaintext, &Counting::default()).unwrap();
    assert_eq!(open_value(&wrap_key, &aad, &blob), Ok(plaintext));
    put("value.wrap-aad", &aad.wrap);
    put("value.message-aad", &aad.message);
    put("value.blob", &blob);
    out
}

#[test]
fn every_vector_of_keys_and_values_is_what_the_code_yields() {
    let lines = PAGE.lines().filter_map(|line| line.split_once(" = "));
    let ours = lines.filter(|(name, _)| {
        name.split_once('.').is_some_and(|(section, _)| SECTIONS.contains(&section))
    });
    let ours: BTreeMap<_, _> = ours.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
    assert_eq!(ours, computed());
}

#[test]
fn the_wrap_of_the_page_has_the_place_that_the_keyring_gives_it() {
    let root = HsmKey {
        label: "strongroom/root/1".into(),
        purpose: HsmPurpose::Root,
        version: 1,
        state: KeyState::Active,
        kind: KeyKind::HmacSha256,
        public_key_spki: None,
        certificate: None,
        link: None,
    };
    let aad = wrap_aad(VaultId(id(0x11)), &key(KeyOwner::System), &root);
    assert!(PAGE.contains(&format!("wrap.aad = {}\n", hex(&aad))));
}

#[test]
fn a_blob_opens_at_its_place_alone() {
    let vault = VaultId(id(0x11));
    let wrap_key = SecretBytes::new(vec![7; 32]);
    let plaintext = SecretBytes::new(b"hunter2".to_vec());
    let row = key(KeyOwner::System);
    let home = Aads::of(vault, &row, &place());
    let blob = seal_value(&wrap_key, &home, &plaintext, &Counting::default()).unwrap();

    let other_owner = key(KeyOwner::Identity(IdentityId(id(1))));
    for (what, aad) in [
        ("vault", Aads::of(VaultId(id(1)), &row, &place())),
        ("owner", Aads::of(vault, &other_owner, &place())),
        ("key", Aads::of(vault, &IdentityKeyRow { id: id(1), ..row.clone() }, &place())),
        ("key version", Aads::of(vault, &IdentityKeyRow { version: 2, ..row.clone() }, &place())),
        ("table", Aads::of(vault, &row, &Place { table: "roles", ..place() })),
        ("column", Aads::of(vault, &row, &Place { column: "user", ..place() })),
        ("row", Aads::of(vault, &row, &Place { row: id(1), ..place() })),
        ("object", Aads::of(vault, &row, &Place { object: id(1), ..place() })),
        ("object version", Aads::of(vault, &row, &Place { object_version: 4, ..place() })),
    ] {
        assert_eq!(open_value(&wrap_key, &aad, &blob), Err(CryptoError::Open), "{what}");
        // The message is bound by itself to all but owner and key.
        let mixed = Aads { wrap: home.wrap.clone(), message: aad.message };
        let moved = open_value(&wrap_key, &mixed, &blob);
        assert_eq!(moved.is_ok(), ["owner", "key", "key version"].contains(&what), "{what}");
    }
    for i in 0..blob.len() {
        assert_eq!(open_value(&wrap_key, &home, &blob[..i]), Err(CryptoError::Open), "{i} bytes");
        let mut bad = blob.clone();
        bad[i] ^= 1;
        assert_eq!(open_value(&wrap_key, &home, &bad), Err(CryptoError::Open), "byte {i}");
    }
}

#[test]
fn labels_carry_the_vault_and_owners_keep_ids_and_labels_apart() {
    let label = label(VaultId(id(0x11)), HsmPurpose::CaLogin, 1);
    assert_eq!(label, "strongroom/11111111-1111-1111-1111-111111111111/ca/login/1");
    assert_eq!(subject(KeyOwner::System), Subject::Label("system"));
    assert_eq!(subject(KeyOwner::Identity(IdentityId(id(1)))), Subject::Id(id(1)));
}
