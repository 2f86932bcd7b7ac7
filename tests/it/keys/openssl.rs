//! Keys that OpenSSL makes, wraps and uses, and what OpenSSL makes of ours.

use std::path::Path;
use std::process::Command;

use strongroom::crypto::{Encoder, hex};
use strongroom::proto::MakeDataKeyRequest;
use strongroom::types::VaultId;

use super::Place;
use super::import::{awaits, import, wrap};
use super::signatures::{MESSAGE, exported, openssl_verifies, sign, verify};
use crate::support::hand::Hand;
use crate::support::node::Backend;

/// What signs in memory, with how OpenSSL makes such a key and hashes for it.
const SIGNERS: [(&str, &str, &[&str]); 3] = [
    ("ed25519", "ed25519", &[]),
    ("ecdsa-p256", "EC -pkeyopt ec_paramgen_curve:P-256", &["-digest", "sha256"]),
    ("ecdsa-p384", "EC -pkeyopt ec_paramgen_curve:P-384", &["-digest", "sha384"]),
];

/// Types commands in a directory; what they print.
fn typed(dir: &Path, commands: &str) -> Vec<u8> {
    let done = Command::new("sh").args(["-eu", "-c", commands]).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The lines between the first and the last.
fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("---")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_openssl_makes_and_wraps_signs_and_verifies_alike_here_and_there() {
    let p = Place::new(Backend::Sqlite).await;
    let mut alice = p.alice();
    for (algorithm, makes, digest) in SIGNERS {
        let name = format!("team/{algorithm}");
        let wrapping = awaits(&mut alice, &name, algorithm).await;
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        std::fs::write(dir.join("wrapping.pem"), wrapping).unwrap();
        std::fs::write(dir.join("message"), MESSAGE).unwrap();
        let digest_of = digest.join(" ");
        typed(
            dir,
            &format!(
                "openssl genpkey -algorithm {makes} -outform DER -out made.der
                 openssl pkcs8 -topk8 -nocrypt -inform DER -in made.der -outform DER -out private.der
                 openssl pkey -inform DER -in private.der -pubout -out public.pem
                 openssl pkeyutl -sign -keyform DER -inkey private.der -rawin {digest_of} \
                     -in message -out theirs
                 openssl rand -out once.key 32
                 openssl pkeyutl -encrypt -pubin -inkey wrapping.pem -in once.key -out wrapped \
                     -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1 \
                     -pkeyopt rsa_mgf1_md:sha1
                 openssl enc -e -id-aes256-wrap-pad -iv a65959a6 \
                     -K \"$(od -An -v -tx1 once.key | tr -d ' \n')\" -in private.der >> wrapped"
            ),
        );
        let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
        import(&mut alice, &name, &read("wrapped")).await.unwrap();
        let theirs = read("theirs");
        assert!(verify(&mut alice, &name, MESSAGE, &theirs, 2).await, "{algorithm}");
        assert!(!verify(&mut alice, &name, b"another", &theirs, 2).await, "{algorithm}");
        let public = String::from_utf8(read("public.pem")).unwrap();
        let (ours, _) = sign(&mut alice, &name).await;
        assert!(openssl_verifies(&public, MESSAGE, &ours, digest), "{algorithm}");
        assert!(!openssl_verifies(&public, b"another", &ours, digest), "{algorithm}");
        assert_eq!(body(&exported(&mut alice, &name, 2).await), body(&public));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_was_wrapped_here_is_opened_by_openssl_with_the_key_alone() {
    let p = Place::new(Backend::Sqlite).await;
    let mut alice = p.alice();
    let vault = Hand::new(&p.f.parts.location).ask("SELECT id FROM vault").await.remove(0);
    let vault: VaultId = vault.parse().unwrap();
    let key = [5; 32];
    // Its program knows no tags: it opens by the stream that is under them, from their second block on.
    for (algorithm, stream) in [("aes-256-gcm", "-aes-256-ctr"), ("chacha20-poly1305", "-chacha20")]
    {
        let name = format!("team/{algorithm}");
        let wrapping = awaits(&mut alice, &name, algorithm).await;
        import(&mut alice, &name, &wrap(&wrapping, &key)).await.unwrap();
        let request = MakeDataKeyRequest { name, ..Default::default() };
        let made = alice.make_data_key(request).await.unwrap().into_inner();
        let (header, sealed) = made.ciphertext.split_at(21);
        let (nonce, sealed) = sealed.split_at(12);
        let nonce = match algorithm {
            "aes-256-gcm" => format!("{}00000002", hex(nonce)),
            _ => format!("01000000{}", hex(nonce)),
        };
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("sealed"), &sealed[..sealed.len() - 16]).unwrap();
        let info = Encoder::new("strongroom/keys/message/v1").bytes(header).finish();
        let (key, salt, info) = (hex(&key), hex(vault.0.as_bytes()), hex(&info));
        let opened = typed(
            home.path(),
            &format!(
                "derived=$(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:{key} \
                     -kdfopt hexsalt:{salt} -kdfopt hexinfo:{info} -binary HKDF |
                     od -An -v -tx1 | tr -d ' \n')
                 openssl enc -d {stream} -K \"$derived\" -iv {nonce} -in sealed"
            ),
        );
        assert_eq!(opened, made.plaintext, "{algorithm}");
    }
}
