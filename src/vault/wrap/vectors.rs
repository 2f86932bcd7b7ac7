//! Holds the section on wrapped answers of `docs/formats.md` to the code.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::{hex, parse_hex};
use crate::types::SystemEntropy;

const PAGE: &str = include_str!("../../../docs/formats.md");

fn page() -> BTreeMap<&'static str, &'static str> {
    PAGE.lines().filter_map(|line| line.split_once(" = ")).collect()
}

fn key() -> MacKey {
    MacKey::new(&parse_hex(page()["keys.token"]).unwrap())
}

const fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 16])
}

fn handle(wrap: u8, last: u8) -> WrapHandle {
    let mut bits: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    bits[31] = last;
    WrapHandle::new(CredentialId(id(wrap)), TokenSecret::derived(bits))
}

#[test]
fn every_vector_of_wrapped_answers_is_what_the_code_yields() {
    let handle = handle(0x22, 31);
    let mac = handle_of(&key(), WrapHandle::TYPE, handle.id(), handle.secret());
    let seal = Seal::new(&key(), VaultId(id(0x11)), IdentityId(id(0x33)), &handle);
    let page = page();
    assert_eq!(page["wrapped.handle"], hex(&mac));
    assert_eq!(page["wrapped.key"], hex(seal.key.expose()));
    assert_eq!(page["wrapped.place"], hex(&seal.place));
    assert_eq!(page.keys().filter(|name| name.starts_with("wrapped.")).count(), 3);
}

#[test]
fn an_answer_opens_with_its_handle_at_its_place_under_the_vaults_key_alone() {
    let (vault, creator) = (VaultId(id(0x11)), IdentityId(id(0x33)));
    let home = Seal::new(&key(), vault, creator, &handle(0x22, 31));
    let sealed = seal(&home.key, &home.place, b"hunter2", &SystemEntropy).unwrap();
    assert!(open(&home.key, &home.place, &sealed).is_ok());
    for (what, other) in [
        ("one bit of the handle", Seal::new(&key(), vault, creator, &handle(0x22, 30))),
        ("the wrap", Seal::new(&key(), vault, creator, &handle(0x23, 31))),
        ("the vault's key", Seal::new(&MacKey::new(&[7; 32]), vault, creator, &handle(0x22, 31))),
        ("the vault", Seal::new(&key(), VaultId(id(1)), creator, &handle(0x22, 31))),
        ("the creator", Seal::new(&key(), vault, IdentityId(id(1)), &handle(0x22, 31))),
    ] {
        assert!(open(&other.key, &other.place, &sealed).is_err(), "{what}");
    }
}
