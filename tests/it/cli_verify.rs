//! `audit verify` on a copy of a record: with the public key alone, and nothing of the vault.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::Value;
use strongroom::crypto::{Frontier, VerifierKey, encode_bundle, leaf_hash, note_body, sign_note};

const ENTRIES: [&[u8]; 3] = [b"first", b"second", b"third"];
const BUNDLE: &str = "tile/entries/000.p/3";
const TILE: &str = "tile/0/000.p/3";

/// Writes a record of so many entries and its checkpoint, signed.
fn write_copy(dir: &Path, key: &Ed25519KeyPair, entries: &[&[u8]]) {
    let mut tree = Frontier::new();
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    for leaf in &leaves {
        tree.append(*leaf).unwrap();
    }
    fs::create_dir_all(dir.join("tile/0/000.p")).unwrap();
    fs::create_dir_all(dir.join("tile/entries/000.p")).unwrap();
    let width = entries.len();
    let bundle = encode_bundle(entries).unwrap();
    fs::write(dir.join(format!("tile/entries/000.p/{width}")), bundle).unwrap();
    fs::write(dir.join(format!("tile/0/000.p/{width}")), leaves.concat()).unwrap();

    let verifier = verifier(key);
    let body = note_body("vault.example", tree.size(), &tree.root()).unwrap();
    let signature = key.sign(body.as_bytes());
    let note = sign_note(&body, &verifier, signature.as_ref()).unwrap();
    fs::write(dir.join("checkpoint"), note).unwrap();
    fs::write(dir.join("key"), format!("{verifier}\n")).unwrap();
}

fn verifier(key: &Ed25519KeyPair) -> VerifierKey {
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    VerifierKey::from_spki("vault.example", spki.as_ref()).unwrap()
}

fn verify(dir: &Path, more: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(["audit", "verify", "--output", "json", "--export"])
        .arg(dir)
        .arg("--public-key")
        .arg(dir.join("key"))
        .args(more)
        .output()
        .unwrap();
    let finding = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, finding)
}

#[test]
fn a_copy_is_verified_with_the_public_key_alone_and_an_altered_entry_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = Ed25519KeyPair::generate().unwrap();
    write_copy(dir.path(), &key, &ENTRIES);
    let (output, finding) = verify(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(finding["verified"], true);
    assert_eq!(finding["size"], 3);

    let bundle = fs::read(dir.path().join(BUNDLE)).unwrap();
    let altered: [&[u8]; 3] = [b"first", b"sec0nd", b"third"];
    fs::write(dir.path().join(BUNDLE), encode_bundle(&altered).unwrap()).unwrap();
    let (output, finding) = verify(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(finding["verified"], false);
    assert!(output.stderr.is_empty(), "one document says it: {output:?}");
    assert_eq!(finding["fault"]["first_entry"], 1);
    assert_eq!(finding["fault"]["last_entry"], 1);

    fs::write(dir.path().join(BUNDLE), bundle).unwrap();
    fs::write(dir.path().join(TILE), [0; 96]).unwrap();
    let (output, finding) = verify(dir.path(), &[]);
    assert_eq!((output.status.code(), &finding["fault"]["first_entry"]), (Some(9), &0.into()));
}

#[test]
fn a_record_written_anew_is_refused_by_signature_or_by_a_kept_checkpoint() {
    let (kept, anew) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = Ed25519KeyPair::generate().unwrap();
    write_copy(kept.path(), &key, &ENTRIES[..2]);
    let note = kept.path().join("checkpoint");
    let kept_note = ["--kept", note.to_str().unwrap()];

    write_copy(anew.path(), &key, &ENTRIES);
    let (output, finding) = verify(anew.path(), &kept_note);
    assert_eq!((output.status.code(), &finding["extends_size"]), (Some(0), &2.into()));

    write_copy(anew.path(), &key, &[b"forged", b"second", b"third"]);
    let (output, finding) = verify(anew.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "whoever holds the key can sign: {finding}");
    let (output, finding) = verify(anew.path(), &kept_note);
    assert_eq!((output.status.code(), &finding["fault"]["last_entry"]), (Some(9), &1.into()));

    let stranger = Ed25519KeyPair::generate().unwrap();
    write_copy(anew.path(), &stranger, &ENTRIES);
    fs::write(anew.path().join("key"), verifier(&key).to_string()).unwrap();
    let (output, finding) = verify(anew.path(), &[]);
    assert_eq!((output.status.code(), finding), (Some(9), Value::Null));
}
