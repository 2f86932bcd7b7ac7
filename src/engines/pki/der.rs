//! The little DER that is written by hand: what surrounds a signature, and a common name.
//!
//! Must not know what is signed.

use super::key::KeyType;
use crate::error::{Error, Result};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;

/// `id-at-commonName`, tag and length included.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
/// `ecdsa-with-SHA256` as an `AlgorithmIdentifier` (RFC 5758, section 3.2).
pub(super) const ECDSA_SHA256: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// `ecdsa-with-SHA384` as an `AlgorithmIdentifier` (RFC 5758, section 3.2).
pub(super) const ECDSA_SHA384: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];

/// `id-Ed25519` as an `AlgorithmIdentifier` (RFC 8410, section 3).
pub(super) const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// PKCS#1 v1.5 with SHA-256, SHA-384 and SHA-512 (RFC 4055, section 5).
pub(super) const RSA_PKCS1: [&[u8]; 3] = [
    b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
    b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00",
    b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00",
];

/// Joins what was signed and its signature: `Certificate` and `CertificateList` (RFC 5280, sections
/// 4.1 and 5.1).
///
/// # Errors
/// [`Error::Internal`] for a key type that authorities do not have.
pub(super) fn signed(tbs: &[u8], signer: KeyType, signature: &[u8]) -> Result<Vec<u8>> {
    let algorithm = match signer {
        KeyType::P256 => ECDSA_SHA256,
        KeyType::P384 => ECDSA_SHA384,
        KeyType::Ed25519 | KeyType::Rsa => {
            return Err(Error::internal("an authority signs with ECDSA"));
        }
    };
    Ok(element(SEQUENCE, &[tbs, algorithm, &element(BIT_STRING, &[&[0], signature])]))
}

/// Writes a `Name` of one common name (RFC 5280, section 4.1.2.4).
pub(super) fn common_name(text: &str) -> Vec<u8> {
    let value = element(UTF8_STRING, &[text.as_bytes()]);
    element(SEQUENCE, &[&element(SET, &[&element(SEQUENCE, &[COMMON_NAME, &value])])])
}

/// Writes tag, shortest length, and contents (X.690, section 8.1.3).
fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let len: usize = contents.iter().map(|part| part.len()).sum();
    let mut der = Vec::with_capacity(len.saturating_add(6));
    der.push(tag);
    if let Ok(short @ 0..=0x7f) = u8::try_from(len) {
        der.push(short);
    } else {
        let bytes = len.to_be_bytes();
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        let significant = bytes.get(zeros..).unwrap_or_default();
        der.push(0x80 | u8::try_from(significant.len()).unwrap_or(0x7f));
        der.extend_from_slice(significant);
    }
    for part in contents {
        der.extend_from_slice(part);
    }
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, head) in [
            (0, &[0x04, 0x00][..]),
            (0x7f, &[0x04, 0x7f]),
            (0x80, &[0x04, 0x81, 0x80]),
            (0xff, &[0x04, 0x81, 0xff]),
            (0x100, &[0x04, 0x82, 0x01, 0x00]),
            (0x1_0000, &[0x04, 0x83, 0x01, 0x00, 0x00]),
        ] {
            let der = element(0x04, &[&vec![7; len]]);
            assert_eq!((&der[..head.len()], der.len()), (head, head.len() + len));
        }
    }
}
