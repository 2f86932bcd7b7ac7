//! Signatures and MACs, made here and checked elsewhere, and the other way round.

use std::process::Command;

use strongroom::proto::{
    CreateKeyRequest, ExportKeyRequest, MacItem, MacRequest, SignItem, SignRequest, UsedKey,
    VerifyItem, VerifyMacItem, VerifyMacRequest, VerifyRequest,
};

use super::{Client, Place, create, rotate, spec};
use crate::support::node::BACKENDS;

pub(super) const MESSAGE: &[u8] = b"a message to sign";

/// What signs, each with how OpenSSL checks it.
const SIGNERS: [(&str, &str, &[&str]); 8] = [
    ("ed25519", "sealed", &[]),
    ("ed25519", "hsm", &[]),
    ("ecdsa-p256", "sealed", &["-digest", "sha256"]),
    ("ecdsa-p256", "hsm", &["-digest", "sha256"]),
    ("ecdsa-p384", "sealed", &["-digest", "sha384"]),
    ("ecdsa-p384", "hsm", &["-digest", "sha384"]),
    ("rsa-pss-3072", "hsm", PSS_256),
    ("rsa-pss-4096", "hsm", PSS_384),
];
const PSS_256: &[&str] = &[
    "-digest",
    "sha256",
    "-pkeyopt",
    "rsa_padding_mode:pss",
    "-pkeyopt",
    "rsa_pss_saltlen:digest",
];
const PSS_384: &[&str] = &[
    "-digest",
    "sha384",
    "-pkeyopt",
    "rsa_padding_mode:pss",
    "-pkeyopt",
    "rsa_pss_saltlen:digest",
];

pub(super) async fn sign(client: &mut Client, name: &str) -> (Vec<u8>, UsedKey) {
    let items = vec![SignItem { message: MESSAGE.to_vec() }];
    let request = SignRequest { name: name.to_owned(), items };
    let mut done = client.sign(request).await.unwrap().into_inner();
    (done.results.remove(0).signature, done.used.unwrap())
}

pub(super) async fn verify(
    client: &mut Client,
    name: &str,
    message: &[u8],
    signature: &[u8],
    version: i64,
) -> bool {
    let (message, signature) = (message.to_vec(), signature.to_vec());
    let items = vec![VerifyItem { message, signature, version }];
    let request = VerifyRequest { name: name.to_owned(), items };
    let one = client.verify(request).await.unwrap().into_inner().results.remove(0);
    assert_eq!(one.fault, None);
    one.valid
}

pub(super) async fn exported(client: &mut Client, name: &str, version: i64) -> String {
    let request = ExportKeyRequest { name: name.to_owned(), version };
    client.export_key(request).await.unwrap().into_inner().public_key_pem
}

pub(super) fn openssl_verifies(
    public: &str,
    message: &[u8],
    signature: &[u8],
    options: &[&str],
) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]);
    command.arg(file("key.pem", public.as_bytes()));
    command.arg("-in").arg(file("message", message));
    command.arg("-sigfile").arg(file("signature", signature)).args(options);
    command.output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_here_verifies_here_and_with_openssl_and_nothing_else_does() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for (algorithm, placement, options) in SIGNERS {
            // Making such keys takes long, and the store has no part in it.
            if algorithm == "rsa-pss-4096" && backend != BACKENDS[0] {
                continue;
            }
            let name = format!("team/{algorithm}-{placement}");
            let request =
                CreateKeyRequest { placement: placement.to_owned(), ..spec(&name, algorithm) };
            let key = alice.create_key(request).await.unwrap().into_inner().key.unwrap();
            assert_eq!(key.placement, placement);
            let (signature, used) = sign(&mut alice, &name).await;
            assert_eq!((used.placement.as_str(), used.version), (placement, 1));
            assert!(verify(&mut alice, &name, MESSAGE, &signature, 0).await, "{name}");
            assert!(!verify(&mut alice, &name, b"another", &signature, 0).await);
            let public = exported(&mut alice, &name, 0).await;
            assert!(openssl_verifies(&public, MESSAGE, &signature, options), "{name}");
            assert!(!openssl_verifies(&public, b"another", &signature, options), "{name}");
            for place in [0, signature.len() / 2, signature.len() - 1] {
                let mut bad = signature.clone();
                bad[place] ^= 1;
                assert!(!verify(&mut alice, &name, MESSAGE, &bad, 0).await, "{name} {place}");
            }
            // A signature of an older version verifies under its number alone.
            assert_eq!(rotate(&mut alice, &name, 1).await, Ok(2));
            assert!(verify(&mut alice, &name, MESSAGE, &signature, 1).await);
            assert!(!verify(&mut alice, &name, MESSAGE, &signature, 0).await);
            let (again, used) = sign(&mut alice, &name).await;
            assert_eq!(used.version, 2);
            assert!(verify(&mut alice, &name, MESSAGE, &again, 2).await);
            assert_ne!(exported(&mut alice, &name, 2).await, public);
            assert_eq!(exported(&mut alice, &name, 1).await, public);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn macs_are_hmac_of_the_message_and_hold_for_their_version() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for (algorithm, len_bytes) in [("hmac-sha-256", 32), ("hmac-sha-512", 64)] {
            let name = format!("team/{algorithm}");
            create(&mut alice, &name, algorithm).await;
            let items = vec![MacItem { message: MESSAGE.to_vec() }; 2];
            let request = MacRequest { name: name.clone(), items };
            let done = alice.mac(request).await.unwrap().into_inner();
            let mac = done.results[0].mac.clone();
            assert_eq!((mac.len(), &mac), (len_bytes, &done.results[1].mac));
            assert_eq!(rotate(&mut alice, &name, 1).await, Ok(2));
            let mut cut = mac.clone();
            cut.truncate(16);
            let mut flipped = mac.clone();
            flipped[0] ^= 0x80;
            for (message, mac, version, holds) in [
                (MESSAGE, mac.clone(), 1, true),
                (MESSAGE, mac.clone(), 0, false),
                (MESSAGE, mac.clone(), 2, false),
                (b"another", mac, 1, false),
                (MESSAGE, cut, 1, false),
                (MESSAGE, flipped, 1, false),
                (MESSAGE, Vec::new(), 1, false),
            ] {
                let items = vec![VerifyMacItem { message: message.to_vec(), mac, version }];
                let request = VerifyMacRequest { name: name.clone(), items };
                let one = alice.verify_mac(request).await.unwrap().into_inner().results.remove(0);
                assert_eq!((one.fault.clone(), one.valid), (None, holds), "{version}");
            }
        }
    }
}
