//! The one suite that every implementation of `Hsm` passes.

use std::future::Future;
use std::process::Command;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, agree};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
};
use strongroom::hsm::memory::MemoryFault;
use strongroom::hsm::{Hsm, HsmError, KeyInfo, KeyKind, MemoryHsm, Pkcs11Hsm};
use strongroom::types::SecretBytes;

use crate::support::softhsm;
use crate::support::target::until;

const KINDS: [(&str, KeyKind); 6] = [
    ("strongroom/root/1", KeyKind::HmacSha256),
    ("strongroom/ca", KeyKind::EcdsaP256),
    ("strongroom/root-ca", KeyKind::EcdsaP384),
    ("strongroom/checkpoint", KeyKind::Ed25519),
    ("strongroom/key/1", KeyKind::RsaPss3072),
    ("strongroom/key/2", KeyKind::RsaPss4096),
];

const PSS: [&str; 4] = ["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"];

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn memory_double_conforms() {
    let pin = SecretBytes::new(b"1234".to_vec());
    block_on(conforms(&MemoryHsm::new(pin.clone()), pin));
}

#[test]
fn softhsm_conforms() {
    softhsm::in_child("hsm::conformance::softhsm_conforms", |token| {
        block_on(async {
            let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
            conforms(&hsm, token.pin.clone()).await;
            // A thread says that it is done before it waits for more, or ends.
            let yields = |nice: &[i32]| !nice.is_empty() && nice.iter().all(|nice| *nice == 5);
            until("they yield", || async { yields(&nice_values("hsm-yielding")) }).await;
            assert!(nice_values("hsm").iter().all(|nice| *nice == 0));
            hsm.close().await.unwrap();
            until("they end", || async { nice_values("hsm-yielding").is_empty() }).await;
        });
    });
}

/// The nice values of this process's threads of a name.
///
/// Source: proc(5), `/proc/pid/stat`: the nineteenth field, the second of which is the name.
fn nice_values(name: &str) -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let of_name = stats.filter_map(|stat| {
        let (before, after) = stat.rsplit_once(')')?;
        let found = before.split_once('(')?.1 == name;
        found.then(|| after.split_whitespace().nth(16)?.parse().ok()).flatten()
    });
    of_name.collect()
}

#[test]
fn a_double_with_a_fault_answers_like_a_token_with_one() {
    block_on(async {
        let hsm = MemoryHsm::unsealed();
        hsm.set_fault(Some(MemoryFault::Unavailable));
        assert!(matches!(hsm.random(1).await, Err(HsmError::Unavailable(_))));
        hsm.set_fault(Some(MemoryFault::LoggedOut));
        assert_eq!(hsm.random(1).await, Err(HsmError::LoggedOut));
        hsm.set_fault(None);
        assert_eq!(hsm.random(1).await.unwrap().len_bytes(), 1);
    });
}

#[test]
fn probe_tells_what_the_token_can_do_before_any_login() {
    softhsm::in_child(
        "hsm::conformance::probe_tells_what_the_token_can_do_before_any_login",
        |token| {
            block_on(async {
                let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
                let probe = hsm.probe().await.unwrap();
                probe.require().unwrap();
                assert_eq!(probe.token_label, token.label);
                assert_eq!(probe.token_serial, token.serial);
                let all: Vec<_> = KINDS.iter().map(|(_, kind)| *kind).collect();
                let others = [KeyKind::RsaOaep3072, KeyKind::EcdhP256];
                assert_eq!(probe.kinds, [all.as_slice(), &others].concat());
                assert_eq!(probe.module_sha256.len(), 64);

                let mut config = token.config();
                config.token = strongroom::hsm::TokenSelector::Serial(token.serial.clone());
                assert!(Pkcs11Hsm::open(&config).unwrap().probe().await.is_ok());
                config.token = strongroom::hsm::TokenSelector::Label("another".to_owned());
                let missing = Pkcs11Hsm::open(&config).unwrap().probe().await;
                assert!(matches!(missing, Err(HsmError::TokenMissing(_))), "{missing:?}");
            });
        },
    );
}

async fn conforms(hsm: &dyn Hsm, pin: SecretBytes) {
    everything_is_refused_when_logged_out(hsm).await;
    let wrong = SecretBytes::new(b"00000000".to_vec());
    assert_eq!(hsm.login(wrong).await, Err(HsmError::PinIncorrect));
    assert_eq!(hsm.random(1).await, Err(HsmError::LoggedOut));
    hsm.login(pin.clone()).await.unwrap();
    hsm.login(pin.clone()).await.unwrap();

    let infos = keys_are_made_once_and_found_again(hsm).await;
    one_of_many_racing_creations_wins(hsm).await;
    what_is_destroyed_is_gone(hsm).await;
    for info in &infos {
        key_does_its_one_job(hsm, info).await;
    }
    what_is_encrypted_opens_and_the_key_does_nothing_else(hsm).await;
    both_ends_agree_and_the_key_does_nothing_else(hsm).await;
    data_objects_are_replaced_whole(hsm).await;
    random_is_bounded_and_fresh(hsm).await;
    labels_are_checked(hsm).await;

    hsm.logout().await.unwrap();
    everything_is_refused_when_logged_out(hsm).await;
    hsm.login(pin).await.unwrap();
    for info in &infos {
        assert_eq!(hsm.lookup_key(&info.label).await.unwrap().as_ref(), Some(info));
        key_does_its_one_job(hsm, info).await;
    }
}

/// Encrypts with the public half alone, as whoever imports a key does.
async fn what_is_encrypted_opens_and_the_key_does_nothing_else(hsm: &dyn Hsm) {
    let label = "strongroom/import/1";
    let info = hsm.create_key(label, KeyKind::RsaOaep3072).await.unwrap();
    assert_eq!(hsm.lookup_key(label).await.unwrap().as_ref(), Some(&info));
    let spki = info.public_key_spki.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("public.der"), &spki).unwrap();
    std::fs::write(path("plain"), [7; 32]).unwrap();
    let done = Command::new("openssl")
        .args(["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey"])
        .arg(path("public.der"))
        .arg("-in")
        .arg(path("plain"))
        .arg("-out")
        .arg(path("sealed"))
        .args(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1"])
        .args(["-pkeyopt", "rsa_mgf1_md:sha1"])
        .status();
    assert!(done.unwrap().success());
    let sealed = std::fs::read(path("sealed")).unwrap();
    assert_eq!(sealed.len(), strongroom::hsm::OAEP_BYTES);
    let opened = hsm.decrypt(label, &sealed).await.unwrap().unwrap();
    assert_eq!(opened.expose(), [7; 32]);
    // Whatever is wrong, the answer is the same, and the next one opens.
    let (mut bad, mut longer) = (sealed.clone(), sealed.clone());
    bad[100] ^= 1;
    longer.push(0);
    for wrong in [&bad[..], &longer, &sealed[1..], &[], &[0; 384], &[0xff; 384]] {
        assert_eq!(hsm.decrypt(label, wrong).await, Ok(None), "{} bytes", wrong.len());
        assert!(hsm.decrypt(label, &sealed).await.unwrap().is_some());
    }
    assert!(matches!(hsm.sign(label, b"x").await, Err(HsmError::KeyUntrusted { .. })));
    assert!(matches!(hsm.hmac(label, b"x").await, Err(HsmError::KeyUntrusted { .. })));
    let signs = hsm.decrypt("strongroom/key/1", &sealed).await;
    assert!(matches!(signs, Err(HsmError::KeyUntrusted { .. })));
    let missing = hsm.decrypt("strongroom/import/2", &sealed).await;
    assert!(matches!(missing, Err(HsmError::KeyMissing(_))));
    hsm.destroy_key(label).await.unwrap();
}

/// Agrees with the public half alone, as whoever wraps for the token does.
async fn both_ends_agree_and_the_key_does_nothing_else(hsm: &dyn Hsm) {
    let label = "strongroom/recovery/spare";
    let info = hsm.create_key(label, KeyKind::EcdhP256).await.unwrap();
    assert_eq!((info.kind, info.label.as_str()), (KeyKind::EcdhP256, label));
    assert_eq!(hsm.lookup_key(label).await.unwrap().as_ref(), Some(&info));
    let spki = info.public_key_spki.as_ref().unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
    assert_eq!(info.check, hash.as_ref());
    let theirs = &spki[spki.len() - 65..];
    let mut point = Vec::new();
    for _ in 0..8 {
        let ours = PrivateKey::generate(&ECDH_P256).unwrap();
        point = ours.compute_public_key().unwrap().as_ref().to_vec();
        let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, theirs);
        let expected = agree(&ours, peer, (), |secret| Ok(secret.to_vec())).unwrap();
        let agreed = hsm.agree(label, &point).await.unwrap().unwrap();
        assert_eq!(agreed.expose(), expected);
    }
    // Whatever is wrong with a point, the next one is agreed with.
    let (mut beside, wrapped) = (point.clone(), [&[4, 65][..], &point].concat());
    beside[64] ^= 1;
    let compressed = [&[2][..], &point[1..33]].concat();
    for wrong in [&beside[..], &wrapped, &compressed, &point[1..], &[], &[0; 65]] {
        assert_eq!(hsm.agree(label, wrong).await, Ok(None), "{} bytes", wrong.len());
        assert!(hsm.agree(label, &point).await.unwrap().is_some());
    }
    assert!(matches!(hsm.sign(label, b"x").await, Err(HsmError::KeyUntrusted { .. })));
    assert!(matches!(hsm.hmac(label, b"x").await, Err(HsmError::KeyUntrusted { .. })));
    assert!(matches!(hsm.decrypt(label, b"x").await, Err(HsmError::KeyUntrusted { .. })));
    for other in ["strongroom/ca", "strongroom/root/1"] {
        let agrees = hsm.agree(other, &point).await;
        assert!(matches!(agrees, Err(HsmError::KeyUntrusted { .. })), "{other}");
    }
    let missing = hsm.agree("strongroom/recovery/other", &point).await;
    assert!(matches!(missing, Err(HsmError::KeyMissing(_))));
    hsm.destroy_key(label).await.unwrap();
}

async fn everything_is_refused_when_logged_out(hsm: &dyn Hsm) {
    assert_eq!(hsm.random(1).await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.lookup_key("a").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.hmac("a", b"").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.hmac_many("a", vec![vec![]]).await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.sign("a", b"").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.decrypt("a", b"").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.agree("a", b"").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.read_data("a").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.write_data("a", b"").await.unwrap_err(), HsmError::LoggedOut);
    assert_eq!(hsm.destroy_key("a").await.unwrap_err(), HsmError::LoggedOut);
    let made = hsm.create_key("a", KeyKind::EcdsaP256).await;
    assert_eq!(made.unwrap_err(), HsmError::LoggedOut);
}

async fn keys_are_made_once_and_found_again(hsm: &dyn Hsm) -> Vec<KeyInfo> {
    let mut infos = Vec::new();
    for (label, kind) in KINDS {
        assert_eq!(hsm.lookup_key(label).await, Ok(None));
        let info = hsm.create_key(label, kind).await.unwrap();
        assert_eq!((info.label.as_str(), info.kind), (label, kind));
        assert_eq!(hsm.lookup_key(label).await.unwrap().as_ref(), Some(&info));
        for (_, other) in KINDS {
            let again = hsm.create_key(label, other).await;
            assert_eq!(again.unwrap_err(), HsmError::KeyNotUnique(label.to_owned()));
        }
        infos.push(info);
    }
    infos
}

async fn one_of_many_racing_creations_wins(hsm: &dyn Hsm) {
    let racing = (0..8).map(|_| hsm.create_key("race", KeyKind::EcdsaP256));
    let results = futures_util::future::join_all(racing).await;
    let refused = Err(HsmError::KeyNotUnique("race".to_owned()));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(results.iter().filter(|result| **result == refused).count(), 7, "{results:?}");
    assert!(hsm.lookup_key("race").await.unwrap().is_some());
}

async fn what_is_destroyed_is_gone(hsm: &dyn Hsm) {
    for kind in [KeyKind::HmacSha256, KeyKind::EcdsaP256] {
        let first = hsm.create_key("gone", kind).await.unwrap();
        hsm.destroy_key("gone").await.unwrap();
        hsm.destroy_key("gone").await.unwrap();
        assert_eq!(hsm.lookup_key("gone").await, Ok(None));
        let missing = HsmError::KeyMissing("gone".to_owned());
        assert_eq!(hsm.sign("gone", b"").await.unwrap_err(), missing);
        let second = hsm.create_key("gone", kind).await.unwrap();
        assert_ne!(first.check, second.check);
        hsm.destroy_key("gone").await.unwrap();
    }
}

async fn key_does_its_one_job(hsm: &dyn Hsm, info: &KeyInfo) {
    let label = info.label.as_str();
    let message = b"a message that is longer than one block of any hash: ".repeat(9);
    if info.kind == KeyKind::HmacSha256 {
        let tag = hsm.hmac(label, &message).await.unwrap();
        assert_eq!(tag.len_bytes(), 32);
        assert_eq!(hsm.hmac(label, &message).await.unwrap(), tag);
        let another = hsm.hmac(label, b"another").await.unwrap();
        assert_ne!(another, tag);
        let many = vec![message.clone(), b"another".to_vec(), message.clone()];
        assert_eq!(hsm.hmac_many(label, many).await.unwrap(), [tag.clone(), another, tag]);
        assert!(hsm.hmac_many(label, vec![]).await.unwrap().is_empty());
        let check = hsm.hmac(label, b"strongroom key check v1").await.unwrap();
        assert_eq!(check.expose()[..8], info.check, "the check value is a short HMAC");
        assert_eq!(info.public_key_spki, None);
        assert!(matches!(hsm.sign(label, b"").await, Err(HsmError::KeyUntrusted { .. })));
    } else {
        for round in 0..8_u8 {
            let message = [message.as_slice(), &[round]].concat();
            let signature = hsm.sign(label, &message).await.unwrap();
            verify(info, &message, &signature);
            if round == 0 {
                verify_with_openssl(info, &message, &signature);
            }
        }
        let spki = info.public_key_spki.as_ref().unwrap();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
        assert_eq!(info.check, hash.as_ref());
        assert!(matches!(hsm.hmac(label, b"").await, Err(HsmError::KeyUntrusted { .. })));
    }
    let missing = HsmError::KeyMissing("nothing".to_owned());
    assert_eq!(hsm.sign("nothing", b"").await.unwrap_err(), missing);
    assert_eq!(hsm.hmac("nothing", b"").await.unwrap_err(), missing);
    assert_eq!(hsm.hmac_many("nothing", vec![vec![]]).await.unwrap_err(), missing);
}

/// The bare point is the last field of a `SubjectPublicKeyInfo`.
fn verify(info: &KeyInfo, message: &[u8], signature: &[u8]) {
    let spki = info.public_key_spki.as_ref().unwrap();
    let end = |len: usize| &spki[spki.len() - len..];
    let verified = match info.kind {
        KeyKind::EcdsaP256 => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, end(65)).verify(message, signature)
        }
        KeyKind::EcdsaP384 => {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, end(97)).verify(message, signature)
        }
        KeyKind::Ed25519 => UnparsedPublicKey::new(&ED25519, end(32)).verify(message, signature),
        // The bit string of the key: behind two headers and the algorithm.
        KeyKind::RsaPss3072 => {
            let key = &spki[24..];
            UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key).verify(message, signature)
        }
        KeyKind::RsaPss4096 => {
            let key = &spki[24..];
            UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key).verify(message, signature)
        }
        KeyKind::HmacSha256 | KeyKind::RsaOaep3072 | KeyKind::EcdhP256 => panic!("no signature"),
    };
    verified.unwrap();
}

fn verify_with_openssl(info: &KeyInfo, message: &[u8], signature: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let key = file("key.der", info.public_key_spki.as_ref().unwrap());
    let message = file("message", message);
    let signature = file("signature", signature);
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey"]);
    command.arg(key).arg("-in").arg(message).arg("-sigfile").arg(signature);
    match info.kind {
        KeyKind::EcdsaP256 => command.args(["-digest", "sha256"]),
        KeyKind::EcdsaP384 => command.args(["-digest", "sha384"]),
        KeyKind::RsaPss3072 => command.args(["-digest", "sha256"]).args(PSS),
        KeyKind::RsaPss4096 => command.args(["-digest", "sha384"]).args(PSS),
        KeyKind::HmacSha256 | KeyKind::Ed25519 | KeyKind::RsaOaep3072 | KeyKind::EcdhP256 => {
            &mut command
        }
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}: {output:?}", info.kind);
}

async fn data_objects_are_replaced_whole(hsm: &dyn Hsm) {
    assert_eq!(hsm.read_data("head").await, Ok(None));
    for value in [&b"one"[..], b"", &[0xff; 2_048], b"two"] {
        hsm.write_data("head", value).await.unwrap();
        assert_eq!(hsm.read_data("head").await.unwrap().as_deref(), Some(value));
    }
    assert!(hsm.write_data("head", &[0; 2_049]).await.is_err());
    assert_eq!(hsm.read_data("head").await.unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(hsm.read_data("tail").await, Ok(None));
    assert_eq!(hsm.lookup_key("head").await, Ok(None), "a data object is no key");
}

async fn random_is_bounded_and_fresh(hsm: &dyn Hsm) {
    for len in [1, 32, 1_024] {
        assert_eq!(hsm.random(len).await.unwrap().len_bytes(), len);
    }
    assert!(hsm.random(1_025).await.is_err());
    assert_ne!(hsm.random(32).await.unwrap(), hsm.random(32).await.unwrap());
}

async fn labels_are_checked(hsm: &dyn Hsm) {
    for label in ["", "a\0b", "a\nb", &"x".repeat(129)] {
        for result in [
            hsm.create_key(label, KeyKind::EcdsaP256).await.map(drop),
            hsm.lookup_key(label).await.map(drop),
            hsm.read_data(label).await.map(drop),
            hsm.write_data(label, b"").await,
            hsm.destroy_key(label).await,
        ] {
            assert!(matches!(result, Err(HsmError::Configuration(_))), "{label:?}: {result:?}");
        }
    }
}
