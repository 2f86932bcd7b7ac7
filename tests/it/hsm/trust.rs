//! Keys that somebody else made, or changed: each is refused for its own reason.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use strongroom::hsm::{Hsm, HsmError, KeyKind, Pkcs11Hsm};

use super::conformance::block_on;
use crate::support::softhsm::{self, Token};

const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x22];
const SECP256K1: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// A way into the token that asks nobody.
fn back_door(token: &Token) -> Session {
    let context = Pkcs11::new(&token.module).unwrap();
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    let pin = AuthPin::new(String::from_utf8(token.pin.expose().to_vec()).unwrap().into());
    session.login(UserType::User, Some(&pin)).unwrap();
    session
}

/// The attributes of a key as the vault makes it, some of them replaced.
fn template(label: &str, mechanism: MechanismType, changes: &[Attribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(vec![7; 16]),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![mechanism]),
    ];
    for change in changes {
        template.retain(|known| known.attribute_type() != change.attribute_type());
        template.push(change.clone());
    }
    template
}

fn make_pair(
    session: &Session,
    label: &str,
    public_label: &str,
    curve: &[u8],
    changes: &[Attribute],
) {
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(public_label.as_bytes().to_vec()),
        Attribute::Id(vec![7; 16]),
        Attribute::EcParams(curve.to_vec()),
        Attribute::Verify(true),
    ];
    let changes = [&[Attribute::SignRecover(false)], changes].concat();
    let private = template(label, MechanismType::ECDSA, &changes);
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}

fn make_secret(session: &Session, label: &str, len_bytes: u64, changes: &[Attribute]) {
    let mut defaults = vec![
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen(len_bytes.into()),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
    ];
    defaults.extend_from_slice(changes);
    let secret = template(label, MechanismType::SHA256_HMAC, &defaults);
    session.generate_key(&Mechanism::GenericSecretKeyGen, &secret).unwrap();
}

#[test]
fn a_key_that_is_not_as_promised_is_refused_for_its_own_reason() {
    let test = "hsm::trust::a_key_that_is_not_as_promised_is_refused_for_its_own_reason";
    softhsm::in_child(test, |token| {
        let session = back_door(token);
        let cases = make_bad_keys(&session);
        make_pair(&session, "good", "good", P256, &[]);
        make_pair(&session, "good agreement", "good agreement", P256, &agreement());
        make_secret(&session, "good secret", 32, &[]);
        block_on(async {
            let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
            hsm.login(token.pin.clone()).await.unwrap();
            for label in ["good", "good agreement", "good secret"] {
                assert!(hsm.lookup_key(label).await.unwrap().is_some(), "the table starts right");
            }
            for (label, fault) in cases {
                for refused in [
                    hsm.lookup_key(label).await.map(drop),
                    hsm.sign(label, b"m").await.map(drop),
                    hsm.hmac(label, b"m").await.map(drop),
                ] {
                    let Err(error @ HsmError::KeyUntrusted { .. }) = refused else {
                        panic!("{label}: {refused:?}");
                    };
                    assert!(error.to_string().contains(fault), "{label}: {error}");
                }
            }
        });
    });
}

/// What makes a key agree, in place of signing.
fn agreement() -> [Attribute; 3] {
    [
        Attribute::Sign(false),
        Attribute::Derive(true),
        Attribute::AllowedMechanisms(vec![MechanismType::ECDH1_DERIVE]),
    ]
}

fn make_bad_keys(session: &Session) -> Vec<(&'static str, &'static str)> {
    make_pair(session, "extractable", "extractable", P256, &[Attribute::Extractable(true)]);
    make_pair(session, "readable", "readable", P256, &[Attribute::Sensitive(false)]);
    make_pair(session, "derives", "derives", P256, &[Attribute::Derive(true)]);
    make_pair(session, "decrypts", "decrypts", P256, &[Attribute::Decrypt(true)]);
    let recovers = [Attribute::SignRecover(true)];
    make_pair(session, "recovers", "recovers", P256, &recovers);
    make_pair(session, "idle", "idle", P256, &[Attribute::Sign(false)]);
    make_pair(session, "public", "public", P256, &[Attribute::Private(false)]);
    let free = Attribute::AllowedMechanisms(vec![MechanismType::ECDSA, MechanismType::ECDSA_SHA1]);
    make_pair(session, "loose", "loose", P256, &[free]);
    make_pair(session, "other id", "other id", P256, &[Attribute::Id(vec![8; 16])]);
    make_pair(session, "curve", "curve", SECP256K1, &[]);
    make_pair(session, "swapped", "left over", P256, &[]);
    make_pair(session, "also left over", "swapped", P256, &[]);
    make_pair(session, "crossed", "agrees alone", P256, &agreement());
    make_pair(session, "agrees beside", "crossed", P256, &agreement());
    make_pair(session, "long", "long", P384, &agreement());
    let signs_too = [&agreement()[..2], &[Attribute::Sign(true)]].concat();
    make_pair(session, "signs too", "signs too", P256, &signs_too);
    let [stays, derives, _] = agreement();
    make_pair(session, "signs inside", "signs inside", P256, &[stays, derives]);
    make_secret(session, "verifies", 32, &[Attribute::Verify(true)]);
    make_secret(session, "wraps", 32, &[Attribute::Wrap(true)]);
    make_secret(session, "short", 16, &[]);
    make_secret(session, "exported", 32, &[Attribute::Extractable(true)]);
    let imported = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::Value(vec![9; 32]),
    ];
    session.create_object(&template("imported", MechanismType::SHA256_HMAC, &imported)).unwrap();
    let aes = [Attribute::ValueLen(32.into()), Attribute::Encrypt(false)];
    let aes = template("aes", MechanismType::SHA256_HMAC, &aes);
    session.generate_key(&Mechanism::AesKeyGen, &aes).unwrap();
    vec![
        ("extractable", "Extractable is true"),
        ("readable", "Sensitive is false"),
        ("derives", "second usage, Derive"),
        ("decrypts", "second usage, Decrypt"),
        ("recovers", "second usage, SignRecover"),
        ("idle", "Sign is false"),
        ("public", "Private is false"),
        ("loose", "CKA_ALLOWED_MECHANISMS"),
        ("other id", "another id"),
        ("curve", "its curve"),
        ("swapped", "belongs to another private key"),
        ("left over", "private key is missing"),
        ("also left over", "public key is missing"),
        ("crossed", "belongs to another private key"),
        ("agrees alone", "private key is missing"),
        ("long", "has not the usage Derive"),
        ("signs too", "second usage, Derive"),
        ("signs inside", "CKA_ALLOWED_MECHANISMS"),
        ("verifies", "second usage, Verify"),
        ("wraps", "second usage, Wrap"),
        ("short", "length is not 32"),
        ("exported", "Extractable is true"),
        ("imported", "AlwaysSensitive is false"),
        ("aes", "CKA_KEY_TYPE"),
    ]
}

#[test]
fn a_duplicate_label_is_refused() {
    softhsm::in_child("hsm::trust::a_duplicate_label_is_refused", |token| {
        let session = back_door(token);
        make_secret(&session, "two", 32, &[]);
        make_secret(&session, "two", 32, &[]);
        make_pair(&session, "mixed", "mixed", P256, &[]);
        make_secret(&session, "mixed", 32, &[]);
        block_on(async {
            let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
            hsm.login(token.pin.clone()).await.unwrap();
            for label in ["two", "mixed"] {
                let refused = Err(HsmError::KeyNotUnique(label.to_owned()));
                assert_eq!(hsm.lookup_key(label).await.map(drop), refused);
                assert_eq!(hsm.hmac(label, b"m").await.map(drop), refused);
                assert_eq!(hsm.create_key(label, KeyKind::Ed25519).await.map(drop), refused);
            }
        });
    });
}

#[test]
fn one_of_several_nodes_that_make_the_same_key_wins() {
    let test = "hsm::trust::one_of_several_nodes_that_make_the_same_key_wins";
    softhsm::in_child(test, |token| {
        block_on(async {
            let nodes: Vec<_> = (0..3).map(|_| Pkcs11Hsm::open(&token.config()).unwrap()).collect();
            for node in &nodes {
                node.login(token.pin.clone()).await.unwrap();
            }
            for (label, kind) in [("a", KeyKind::EcdsaP256), ("b", KeyKind::HmacSha256)] {
                let racing = nodes.iter().map(|node| node.create_key(label, kind));
                let results = futures_util::future::join_all(racing).await;
                let winners: Vec<_> = results.iter().flatten().collect();
                assert_eq!(winners.len(), 1, "{results:?}");
                for node in &nodes {
                    let found = node.lookup_key(label).await.unwrap();
                    assert_eq!(found.as_ref(), Some(winners[0]));
                }
            }
        });
    });
}

/// Tells whether SoftHSM has written an object.
fn has_object(dir: &std::path::Path) -> bool {
    let tokens = std::fs::read_dir(dir.join("tokens")).unwrap();
    tokens.flat_map(|token| std::fs::read_dir(token.unwrap().path()).unwrap()).any(|file| {
        let name = file.unwrap().file_name();
        let name = name.to_string_lossy();
        name.ends_with(".object") && name != "token.object"
    })
}

#[test]
fn a_creation_that_another_process_crosses_destroys_its_own_key() {
    let test = "hsm::trust::a_creation_that_another_process_crosses_destroys_its_own_key";
    softhsm::in_child(test, |token| {
        let session = back_door(token);
        let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
        let label = [Attribute::Label(b"root".to_vec())];
        let created = std::thread::scope(|scope| {
            let creating = scope.spawn(|| {
                block_on(async {
                    hsm.login(token.pin.clone()).await.unwrap();
                    hsm.create_key("root", KeyKind::HmacSha256).await
                })
            });
            // Looked for in the files: SoftHSM fails a creation that another session looks at.
            while !has_object(&token.dir) && !creating.is_finished() {
                std::thread::yield_now();
            }
            // The middle of the 150 ms in which a new key settles.
            std::thread::sleep(std::time::Duration::from_millis(75));
            make_secret(&session, "root", 32, &[]);
            creating.join().unwrap()
        });
        assert_eq!(created, Err(HsmError::KeyNotUnique("root".to_owned())));
        assert_eq!(session.find_objects(&label).unwrap().len(), 1, "the other one's");
    });
}

#[test]
fn a_key_that_was_exchanged_behind_our_back_is_refused_after_the_next_login() {
    let test = "hsm::trust::\
                a_key_that_was_exchanged_behind_our_back_is_refused_after_the_next_login";
    softhsm::in_child(test, |token| {
        let session = back_door(token);
        block_on(async {
            let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
            hsm.login(token.pin.clone()).await.unwrap();
            hsm.create_key("root", KeyKind::HmacSha256).await.unwrap();
            hsm.create_key("other", KeyKind::HmacSha256).await.unwrap();
            let label = Attribute::Label(b"root".to_vec());
            let found = session.find_objects(&[label]).unwrap();
            assert_eq!(found.len(), 1);
            session.destroy_object(found[0]).unwrap();
            make_secret(&session, "root", 32, &[]);

            let refused = hsm.hmac("root", b"m").await.unwrap_err();
            assert!(matches!(refused, HsmError::KeyUntrusted { .. }), "{refused}");
            hsm.hmac("other", b"m").await.unwrap();
        });
    });
}

#[test]
fn keys_that_the_vault_makes_say_of_themselves_that_they_cannot_leave() {
    let test = "hsm::trust::keys_that_the_vault_makes_say_of_themselves_that_they_cannot_leave";
    softhsm::in_child(test, |token| {
        let session = back_door(token);
        block_on(async {
            let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
            hsm.login(token.pin.clone()).await.unwrap();
            for kind in
                [KeyKind::HmacSha256, KeyKind::EcdsaP384, KeyKind::Ed25519, KeyKind::EcdhP256]
            {
                let label = format!("{kind:?}");
                hsm.create_key(&label, kind).await.unwrap();
                let wanted =
                    [Attribute::Label(label.into_bytes()), Attribute::NeverExtractable(true)];
                let found = session.find_objects(&wanted).unwrap();
                assert_eq!(found.len(), 1, "{kind:?}");
                let value = session.get_attributes(found[0], &[AttributeType::Value]).unwrap();
                assert!(value.is_empty(), "{kind:?} shows its value");
            }
        });
    });
}
