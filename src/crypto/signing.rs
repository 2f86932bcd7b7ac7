//! Signatures and MACs under named keys that are used in memory.

use aws_lc_rs::agreement::{ECDH_P256, ECDH_P384, PrivateKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
    VerificationAlgorithm,
};
use aws_lc_rs::{constant_time, hmac};
use zeroize::Zeroizing;

use super::{CryptoError, Result};
use crate::types::{Entropy, SecretBytes};

/// How many scalars are tried: one of 2^32 is none on P-256, and fewer on P-384.
const TRIES: usize = 8;

/// How something is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Ed25519 (RFC 8032, pure).
    Ed25519,
    /// ECDSA on P-256 with SHA-256, DER.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384, DER.
    EcdsaP384,
    /// RSA-PSS with SHA-256 and a salt as long (RFC 8017, section 8.1).
    RsaPssSha256,
    /// RSA-PSS with SHA-384 and a salt as long.
    RsaPssSha384,
}

/// A key that signs, made in memory.
#[derive(Debug)]
pub struct NewSigner {
    /// The seed of Ed25519, or the scalar of ECDSA.
    pub private: SecretBytes,
    /// DER of its `SubjectPublicKeyInfo`.
    pub public: Vec<u8>,
}

/// Makes a key that signs.
///
/// # Errors
/// [`CryptoError::Failed`] when the generator fails; [`CryptoError::Malformed`] for RSA, whose keys
/// are made in the HSM alone.
pub fn new_signer(scheme: Scheme, entropy: &dyn Entropy) -> Result<NewSigner> {
    let len_bytes = match scheme {
        Scheme::Ed25519 | Scheme::EcdsaP256 => 32,
        Scheme::EcdsaP384 => 48,
        Scheme::RsaPssSha256 | Scheme::RsaPssSha384 => {
            return Err(CryptoError::Malformed("algorithm"));
        }
    };
    for _ in 0..TRIES {
        let mut private = Zeroizing::new(vec![0; len_bytes]);
        entropy.fill(&mut private).map_err(|_logged| CryptoError::Failed)?;
        let private = SecretBytes::from(private);
        if let Some(public) = public_of(scheme, &private) {
            return Ok(NewSigner { private, public });
        }
    }
    Err(CryptoError::Failed)
}

/// Computes the public half; none for what is no private key of the scheme.
#[must_use]
pub fn public_of(scheme: Scheme, private: &SecretBytes) -> Option<Vec<u8>> {
    match scheme {
        Scheme::Ed25519 => {
            let pair = Ed25519KeyPair::from_seed_unchecked(private.expose()).ok()?;
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
            Some(der.as_ref().to_vec())
        }
        Scheme::EcdsaP256 | Scheme::EcdsaP384 => {
            let pair = pair_of(scheme, private)?;
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
            Some(der.as_ref().to_vec())
        }
        Scheme::RsaPssSha256 | Scheme::RsaPssSha384 => None,
    }
}

fn pair_of(scheme: Scheme, private: &SecretBytes) -> Option<EcdsaKeyPair> {
    let (exchange, signing): (_, &'static EcdsaSigningAlgorithm) = match scheme {
        Scheme::EcdsaP256 => (&ECDH_P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
        Scheme::EcdsaP384 => (&ECDH_P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        Scheme::Ed25519 | Scheme::RsaPssSha256 | Scheme::RsaPssSha384 => return None,
    };
    let point = PrivateKey::from_private_key(exchange, private.expose()).ok()?;
    let point = point.compute_public_key().ok()?;
    EcdsaKeyPair::from_private_key_and_public_key(signing, private.expose(), point.as_ref()).ok()
}

/// Signs a message.
///
/// # Errors
/// [`CryptoError::KeyLength`] for what is no private key of the scheme.
pub fn sign(scheme: Scheme, private: &SecretBytes, message: &[u8]) -> Result<Vec<u8>> {
    match scheme {
        Scheme::Ed25519 => {
            let pair = Ed25519KeyPair::from_seed_unchecked(private.expose());
            let pair = pair.map_err(|_rejected| CryptoError::KeyLength)?;
            Ok(pair.sign(message).as_ref().to_vec())
        }
        Scheme::EcdsaP256 | Scheme::EcdsaP384 => {
            let pair = pair_of(scheme, private).ok_or(CryptoError::KeyLength)?;
            let signature = pair.sign(&SystemRandom::new(), message);
            Ok(signature.map_err(|_unspecified| CryptoError::Failed)?.as_ref().to_vec())
        }
        Scheme::RsaPssSha256 | Scheme::RsaPssSha384 => Err(CryptoError::KeyLength),
    }
}

/// Tells whether a signature holds under a public key, DER of a `SubjectPublicKeyInfo`.
#[must_use]
pub fn verifies(scheme: Scheme, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match scheme {
        Scheme::Ed25519 => &ED25519,
        Scheme::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
        Scheme::EcdsaP384 => &ECDSA_P384_SHA384_ASN1,
        Scheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        Scheme::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
    };
    UnparsedPublicKey::new(algorithm, public).verify(message, signature).is_ok()
}

/// Which hash an HMAC is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacHash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A key that computes MACs, ready.
#[derive(Debug)]
pub struct NamedMac(hmac::Key);

impl NamedMac {
    /// Prepares a key.
    #[must_use]
    pub fn new(hash: MacHash, key: &SecretBytes) -> Self {
        let algorithm = match hash {
            MacHash::Sha256 => hmac::HMAC_SHA256,
            MacHash::Sha512 => hmac::HMAC_SHA512,
        };
        Self(hmac::Key::new(algorithm, key.expose()))
    }

    /// Computes HMAC (RFC 2104) of a message.
    #[must_use]
    pub fn compute(&self, message: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, message).as_ref().to_vec()
    }

    /// Compares in constant time; a MAC of another length is wrong.
    #[must_use]
    pub fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.compute(message), mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemEntropy;

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does() {
        for scheme in [Scheme::Ed25519, Scheme::EcdsaP256, Scheme::EcdsaP384] {
            let ours = new_signer(scheme, &SystemEntropy).unwrap();
            let theirs = new_signer(scheme, &SystemEntropy).unwrap();
            let signature = sign(scheme, &ours.private, b"message").unwrap();
            assert!(verifies(scheme, &ours.public, b"message", &signature), "{scheme:?}");
            assert!(!verifies(scheme, &ours.public, b"messagf", &signature));
            assert!(!verifies(scheme, &theirs.public, b"message", &signature));
            for place in 0..signature.len() {
                let mut bad = signature.clone();
                bad[place] ^= 1;
                assert!(!verifies(scheme, &ours.public, b"message", &bad), "{place}");
            }
            assert_eq!(public_of(scheme, &ours.private), Some(ours.public));
        }
        assert!(new_signer(Scheme::RsaPssSha256, &SystemEntropy).is_err());
    }

    #[test]
    fn scalars_that_are_none_are_refused() {
        for (scheme, len_bytes) in [(Scheme::EcdsaP256, 32), (Scheme::EcdsaP384, 48)] {
            for byte in [0, 0xff] {
                let private = SecretBytes::new(vec![byte; len_bytes]);
                assert_eq!(public_of(scheme, &private), None);
            }
        }
    }

    #[test]
    fn macs_yield_test_case_2_of_rfc_4231() {
        let key = SecretBytes::new(b"Jefe".to_vec());
        for (hash, begins) in [(MacHash::Sha256, "5bdcc146"), (MacHash::Sha512, "164b7a7b")] {
            let ready = NamedMac::new(hash, &key);
            let mac = ready.compute(b"what do ya want for nothing?");
            assert!(super::super::hex(&mac).starts_with(begins));
            assert!(ready.verify(b"what do ya want for nothing?", &mac));
            assert!(!ready.verify(b"what do ya want for nothing!", &mac));
            assert!(!ready.verify(b"what do ya want for nothing?", &mac[..16]));
        }
    }
}
