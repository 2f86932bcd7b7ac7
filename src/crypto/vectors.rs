//! Holds `docs/formats.md` to the code: each test vector of the page is computed again.

use std::collections::BTreeMap;

use super::aead::seal_with_nonce;
use super::*;
use crate::types::{Entropy, Id, VaultId};

const PAGE: &str = include_str!("../../docs/formats.md");
/// The sections whose vectors are this room's.
const SECTIONS: [&str; 7] = ["encoding", "aad", "ciphertext", "wrap", "tree", "message", "stream"];
/// `SubjectPublicKeyInfo` up to the key (RFC 8410, section 4).
const ED25519_SPKI: &str = "302a300506032b6570032100";

#[test]
fn every_vector_of_the_page_is_what_the_code_yields() {
    let page = vectors(PAGE);
    let code = computed();
    let ours = page.iter().filter(|(name, _)| {
        name.split_once('.').is_some_and(|(section, _)| SECTIONS.contains(&section))
    });
    let ours: BTreeMap<_, _> = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in &code {
        assert_eq!(ours.get(name), Some(value), "{name}");
    }
    assert_eq!(ours.len(), code.len(), "the page has vectors that the code does not compute");
}

#[test]
fn the_checkpoint_of_the_page_verifies_under_its_key_and_is_the_tree_of_the_page() {
    let key: VerifierKey = block("checkpoint-key").trim_end().parse().unwrap();
    let checkpoint = Checkpoint::open(block("checkpoint"), &key).unwrap();
    assert_eq!(checkpoint.size, 3);
    assert_eq!(hex(&checkpoint.root), vectors(PAGE)["tree.root-3"]);

    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
    let spki = [parse_hex(ED25519_SPKI).unwrap().as_slice(), public.as_ref()].concat();
    let again = VerifierKey::from_spki("vault.example.com/log", &spki).unwrap();
    let text = note_body(again.name(), checkpoint.size, &checkpoint.root).unwrap();
    let signed = sign_note(&text, &again, pair.sign(text.as_bytes()).as_ref()).unwrap();
    assert_eq!((again, signed.as_str()), (key, block("checkpoint")));
}

#[test]
fn the_ecdsa_checkpoint_of_the_page_verifies_under_its_key() {
    let key: VerifierKey = block("checkpoint-key-p256").trim_end().parse().unwrap();
    let checkpoint = Checkpoint::open(block("checkpoint-p256"), &key).unwrap();
    assert_eq!(key.kind(), SignatureKind::EcdsaP256);
    assert_eq!(hex(&checkpoint.root), vectors(PAGE)["tree.root-3"]);
}

/// Reads each `section.name = value` line.
fn vectors(page: &str) -> BTreeMap<String, String> {
    let lines = page.lines().filter_map(|line| line.split_once(" = "));
    let named = lines.filter(|(name, _)| name.contains('.') && !name.contains(' '));
    named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Takes out a fenced block by the word after `text `.
fn block(name: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```text {name}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

fn computed() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| {
        out.insert(name.to_owned(), hex(bytes));
    };
    let encoded = Encoder::new("example/v1").bytes(&[1, 2]).text("é").integer(-1).null().list(0);
    put("encoding.bytes", &encoded.finish());

    let id = |byte| Id::from_bytes([byte; 16]);
    let (object, data_key) = (id(0x22), id(0x33));
    let place = AssociatedData {
        format: Format::Xaes256Gcm,
        vault: VaultId(id(0x11)),
        table: "connections",
        column: "password",
        row: object.as_bytes(),
        key_owner: Subject::Label("system"),
        object: Subject::Id(object),
        object_version: 3,
        key: Subject::Id(data_key),
        key_version: 1,
    };
    let aad = place.encode();
    put("aad.bytes", &aad);

    let key = SecretBytes::new((0..32).collect());
    let mut nonce = [0; NONCE_BYTES];
    for (byte, value) in nonce.iter_mut().zip(0x40..) {
        *byte = value;
    }
    put("ciphertext.key", key.expose());
    put("ciphertext.plaintext", b"hunter2");
    put("ciphertext.bytes", &seal_with_nonce(&key, &nonce, &aad, b"hunter2").unwrap());

    let wrap_aad = AssociatedData {
        table: "key_wraps",
        column: "blob",
        row: data_key.as_bytes(),
        object: Subject::Id(data_key),
        object_version: 1,
        key: Subject::Label("strongroom/root/1"),
        ..place
    }
    .encode();
    let (root, salt) = ([0xaa; 32], [0xbb; SALT_BYTES]);
    let input = kdf_input(&wrap_aad, &salt);
    let wrapping_key = SecretBytes::new(hmac_sha256(&root, &[&input]).to_vec());
    let sealed = seal_with_nonce(&wrapping_key, &nonce, &wrap_aad, key.expose()).unwrap();
    let blob = [salt.as_slice(), &sealed].concat();
    assert_eq!(unwrap_key(&wrapping_key, &wrap_aad, &blob), Ok(key));
    put("wrap.root", &root);
    put("wrap.aad", &wrap_aad);
    put("wrap.kdf-input", &input);
    put("wrap.wrapping-key", wrapping_key.expose());
    put("wrap.blob", &blob);

    named_keys(&mut put);

    put("tree.root-0", &EMPTY_ROOT);
    let mut frontier = Frontier::new();
    let mut edge = TileEdge::default();
    for (size, entry) in (1..).zip(["a", "b", "c"]) {
        let leaf = leaf_hash(entry.as_bytes());
        frontier.append(leaf).unwrap();
        edge.append(&[leaf]).unwrap();
        put(&format!("tree.leaf-{entry}"), &leaf);
        put(&format!("tree.root-{size}"), &frontier.root());
    }
    put("tree.bundle", &encode_bundle(&["a", "b", "c"]).unwrap());
    out
}

/// Yields bytes from one on, as the page says.
#[derive(Debug)]
struct Rising(u8);

impl Entropy for Rising {
    fn fill(&self, buffer: &mut [u8]) -> crate::error::Result<()> {
        buffer.iter_mut().zip(self.0..).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

fn named_keys(put: &mut impl FnMut(&str, &[u8])) {
    let (vault, key) = (VaultId(Id::from_bytes([0x11; 16])), SecretBytes::new((0..32).collect()));
    for (name, cipher) in [
        ("aes-256-gcm", Cipher::Aes256Gcm),
        ("chacha20-poly1305", Cipher::ChaCha20Poly1305),
        ("xaes-256-gcm", Cipher::Xaes256Gcm),
    ] {
        let header = Header { cipher, key: Id::from_bytes([0x22; 16]), version: 3 };
        let ready = MessageKey::derive(vault, &header, &key).unwrap();
        let sealed = ready.seal(b"row 7", b"hunter2", &Rising(0x40)).unwrap();
        put(&format!("message.{name}"), &sealed);
        if cipher == Cipher::Xaes256Gcm {
            continue;
        }
        let stream = StreamHeader::new(header, &Rising(0x60)).unwrap();
        let begin = || StreamSealer::new(vault, &stream, &key, b"row 7").unwrap();
        let (mut one, mut two) = (begin(), begin());
        assert!(one.push(b"hunter2").unwrap().is_empty());
        put(&format!("stream.{name}"), &[stream.encode(), one.finish().unwrap()].concat());
        let long = [vec![0; SEGMENT_BYTES], b"hunter2".to_vec()].concat();
        let whole = [vec![stream.encode()], two.push(&long).unwrap(), vec![two.finish().unwrap()]];
        put(&format!("stream.{name}-two-sha256"), &sha256(&whole.concat().concat()));
    }
}
