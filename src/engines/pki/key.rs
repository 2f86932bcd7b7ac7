//! Public keys that a certificate may vouch for, and keys made for those who ask for one.
//!
//! Must not know what a certificate is for.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData;
use serde::{Deserialize, Serialize};
use x509_parser::asn1_rs::FromDer;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::{edwards, rsa};
use crate::error::{Error, Result};
use crate::hsm::KeyKind;
use crate::types::SecretBytes;

/// What kinds of keys certificates vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA of 2048 bits or more.
    Rsa,
}

/// A public key that was found sound and is in canonical DER.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    spki_der: Vec<u8>,
    bits: Vec<u8>,
    key_type: KeyType,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` and refuses weak keys.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong with the key.
    ///
    /// Source: RFC 5480, section 2; RFC 8410, section 4; RFC 3279, section 2.3.1.
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        let malformed = || Error::invalid("the public key is not canonical DER");
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_malformed| malformed())?;
        let bits: &[u8] = &spki.subject_public_key.data;
        let key_type = key_type(&spki)?;
        let sound = match key_type {
            // Uncompressed points alone: 0x04, x, y.
            KeyType::P256 => bits.len() == 65 && bits.first() == Some(&4),
            KeyType::P384 => bits.len() == 97 && bits.first() == Some(&4),
            KeyType::Ed25519 => {
                edwards::check(bits)?;
                bits.len() == 32
            }
            KeyType::Rsa => {
                let (rest, key) = RSAPublicKey::from_der(bits).map_err(|_malformed| malformed())?;
                rsa::check(key.modulus, key.exponent)?;
                rest.is_empty()
            }
        };
        let key = Self { spki_der: der.to_vec(), bits: bits.to_vec(), key_type };
        // What would be written must be what was read, to the byte.
        if sound && rest.is_empty() && key.subject_public_key_info() == der {
            Ok(key)
        } else {
            Err(malformed())
        }
    }

    /// Shows the DER of the `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Tells what kind of key it is.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Tells whether a signature over a message was made with its private half, in the one way
    /// that TLS 1.3 signs with such a key.
    ///
    /// Source: RFC 8446, section 4.2.3.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.key_type {
            KeyType::P256 => &ECDSA_P256_SHA256_ASN1,
            KeyType::P384 => &ECDSA_P384_SHA384_ASN1,
            KeyType::Ed25519 => &ED25519,
            KeyType::Rsa => &RSA_PSS_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signature).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("key_type", &self.key_type).finish_non_exhaustive()
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.key_type {
            KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyType::Ed25519 => &rcgen::PKCS_ED25519,
            KeyType::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// Tells how an HSM's key signs certificates, where it can.
///
/// # Errors
/// [`Error::Internal`] for a key that no authority has.
pub(super) fn ca_key_type(kind: KeyKind) -> Result<KeyType> {
    match kind {
        KeyKind::EcdsaP256 => Ok(KeyType::P256),
        KeyKind::EcdsaP384 => Ok(KeyType::P384),
        KeyKind::HmacSha256
        | KeyKind::Ed25519
        | KeyKind::RsaPss3072
        | KeyKind::RsaPss4096
        | KeyKind::RsaOaep3072
        | KeyKind::EcdhP256 => {
            Err(Error::internal("an authority's key is ECDSA on P-256 or P-384"))
        }
    }
}

fn key_type(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyType> {
    let algorithm = &spki.algorithm.algorithm;
    let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        Ok(KeyType::Rsa)
    } else if *algorithm == OID_SIG_ED25519 {
        Ok(KeyType::Ed25519)
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
        Ok(KeyType::P256)
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_NIST_EC_P384) {
        Ok(KeyType::P384)
    } else {
        Err(Error::invalid("a key is ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 bits"))
    }
}

/// A key made in software for somebody who brings none; it is handed out once and kept nowhere.
#[derive(Debug)]
pub struct GeneratedKey {
    /// The public half.
    pub public: PublicKey,
    /// The private half: PKCS#8 as PEM.
    pub private_pem: SecretBytes,
}

impl GeneratedKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for RSA, which is slow to make: its owner makes it and sends a request.
    /// [`Error::Internal`] when the generator fails.
    ///
    /// Source: RFC 5208, section 5; RFC 7468, section 10.
    pub fn generate(key_type: KeyType) -> Result<Self> {
        match key_type {
            KeyType::P256 => Self::ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyType::P384 => Self::ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyType::Ed25519 => {
                let key = Ed25519KeyPair::generate().map_err(|_unspecified| failed())?;
                let pkcs8 = key.to_pkcs8v1().map_err(|_unspecified| failed())?;
                Self::of(key.public_key(), pkcs8.as_ref())
            }
            KeyType::Rsa => Err(Error::invalid("make RSA keys yourself and send a request (CSR)")),
        }
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Result<Self> {
        let key = EcdsaKeyPair::generate(algorithm).map_err(|_unspecified| failed())?;
        let pkcs8 = key.to_pkcs8v1().map_err(|_unspecified| failed())?;
        Self::of(key.public_key(), pkcs8.as_ref())
    }

    fn of(public: &impl AsDer<PublicKeyX509Der<'static>>, pkcs8: &[u8]) -> Result<Self> {
        let spki: PublicKeyX509Der<'_> = public.as_der().map_err(|_unspecified| failed())?;
        Ok(Self { public: PublicKey::from_spki(spki.as_ref())?, private_pem: private_pem(pkcs8)? })
    }
}

fn failed() -> Error {
    Error::internal("a key pair could not be made")
}

/// Writes PEM into memory that never moves while it grows, and is zeroed.
fn private_pem(pkcs8: &[u8]) -> Result<SecretBytes> {
    const LINE: usize = 64;
    let mut encoded = Zeroizing::new(vec![0; pkcs8.len().div_ceil(3) * 4]);
    let len = STANDARD.encode_slice(pkcs8, &mut encoded).map_err(Error::internal)?;
    let mut pem = Zeroizing::new(Vec::with_capacity(len + len / LINE + 64));
    pem.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    for line in encoded.get(..len).unwrap_or_default().chunks(LINE) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    Ok(pem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_readable_pkcs8_for_its_public_half() {
        for key_type in [KeyType::P256, KeyType::P384, KeyType::Ed25519] {
            let key = GeneratedKey::generate(key_type).unwrap();
            let pem = std::str::from_utf8(key.private_pem.expose()).unwrap();
            let pair = rcgen::KeyPair::from_pem(pem).unwrap();
            assert_eq!(pair.subject_public_key_info(), key.public.spki_der());
            assert_eq!(key.public.key_type(), key_type);
        }
        assert!(GeneratedKey::generate(KeyType::Rsa).is_err());
    }

    #[test]
    fn debug_shows_nothing_of_a_private_key() {
        let key = GeneratedKey::generate(KeyType::P256).unwrap();
        assert!(format!("{key:?}").contains("[REDACTED]"));
    }

    #[test]
    fn a_key_with_a_byte_more_or_less_is_refused() {
        let good = GeneratedKey::generate(KeyType::P256).unwrap().public;
        let longer = [good.spki_der(), &[0]].concat();
        let shorter = good.spki_der().split_last().unwrap().1;
        assert!(PublicKey::from_spki(good.spki_der()).is_ok());
        assert!(PublicKey::from_spki(&longer).is_err());
        assert!(PublicKey::from_spki(shorter).is_err());
    }
}
