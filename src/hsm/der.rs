//! The few DER structures between a token and the world: public keys and ECDSA signatures.
//!
//! Only what PKCS#11 leaves to its caller; must not know sessions or objects.

use aws_lc_rs::agreement::{self, ECDH_P256, ParsedPublicKey, PrivateKey, agree};
use aws_lc_rs::digest;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
};

use super::KeyKind;
use crate::types::SecretBytes;

/// `CKA_EC_PARAMS` of P-256: OID 1.2.840.10045.3.1.7 (RFC 5480, section 2.1.1.1).
pub(super) const P256_OID: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// `CKA_EC_PARAMS` of P-384: OID 1.3.132.0.34 (RFC 5480, section 2.1.1.1).
pub(super) const P384_OID: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// `CKA_EC_PARAMS` of Ed25519: OID 1.3.101.112 (RFC 8410, section 3).
pub(super) const ED25519_OID: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
/// `CKA_EC_PARAMS` of Ed25519 by name: `PrintableString` (PKCS#11 3.0, section 2.3.10).
pub(super) const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 3, 1, 7, 0x03, 0x42, 0x00,
];
const P384_SPKI: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 0x04,
    0x00, 0x22, 0x03, 0x62, 0x00,
];
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 5, 0x06, 3, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// `AlgorithmIdentifier` of an RSA key (RFC 3279, section 2.3.1).
const RSA_ALGORITHM: &[u8] =
    &[0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
/// First octet of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

/// Takes the bare point out of `CKA_EC_POINT`: a DER OCTET STRING, a BIT STRING, or bare already.
///
/// None for another length or a compressed point. Source: PKCS#11 3.0, section 2.3.3.
pub(super) fn point(kind: KeyKind, attribute: &[u8]) -> Option<&[u8]> {
    let len_bytes = match kind {
        KeyKind::HmacSha256 | KeyKind::RsaPss3072 | KeyKind::RsaPss4096 | KeyKind::RsaOaep3072 => {
            return None;
        }
        KeyKind::EcdsaP256 | KeyKind::EcdhP256 => 65,
        KeyKind::EcdsaP384 => 97,
        KeyKind::Ed25519 => 32,
    };
    let bare = match attribute {
        bare if bare.len() == len_bytes => bare,
        [OCTET_STRING, len, bare @ ..]
            if bare.len() == len_bytes && usize::from(*len) == len_bytes =>
        {
            bare
        }
        [BIT_STRING, len, 0, bare @ ..]
            if bare.len() == len_bytes && usize::from(*len) == len_bytes + 1 =>
        {
            bare
        }
        _ => return None,
    };
    match kind {
        KeyKind::Ed25519 => Some(bare),
        KeyKind::HmacSha256
        | KeyKind::RsaPss3072
        | KeyKind::RsaPss4096
        | KeyKind::RsaOaep3072
        | KeyKind::EcdsaP256
        | KeyKind::EcdhP256
        | KeyKind::EcdsaP384 => (bare.first() == Some(&UNCOMPRESSED)).then_some(bare),
    }
}

/// Writes an RSA public key, of unsigned big-endian numbers; none for a length of no kind.
///
/// Source: RFC 8017, appendix A.1.1.
pub(super) fn rsa_public(modulus: &[u8], exponent: &[u8]) -> Option<(KeyKind, Vec<u8>)> {
    let strip = |number: &[u8]| -> Vec<u8> {
        number.iter().copied().skip_while(|digit| *digit == 0).collect()
    };
    let (modulus, exponent) = (strip(modulus), strip(exponent));
    let kind = match (modulus.len(), modulus.first()) {
        (384, Some(0x80..)) => KeyKind::RsaPss3072,
        (512, Some(0x80..)) => KeyKind::RsaPss4096,
        (_, _) => return None,
    };
    let unsigned = |number: &[u8]| {
        let pad: &[u8] =
            if number.first().is_some_and(|digit| *digit >= 0x80) { &[0] } else { &[] };
        tlv(INTEGER, &[pad, number].concat())
    };
    Some((kind, tlv(SEQUENCE, &[unsigned(&modulus)?, unsigned(&exponent)?].concat())?))
}

/// Writes tag, length and value; none for more than 64 KiB.
fn tlv(tag: u8, value: &[u8]) -> Option<Vec<u8>> {
    let len_bytes = u16::try_from(value.len()).ok()?;
    let [high, low] = len_bytes.to_be_bytes();
    let head = match len_bytes {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        0x100.. => vec![tag, 0x82, high, low],
    };
    Some([head.as_slice(), value].concat())
}

/// Writes the `SubjectPublicKeyInfo` of a bare point, or of an RSA public key; none for a secret
/// key.
///
/// Source: RFC 5480, section 2; RFC 8410, section 4; RFC 3279, section 2.3.1.
pub(super) fn spki(kind: KeyKind, point: &[u8]) -> Option<Vec<u8>> {
    let prefix = match kind {
        KeyKind::HmacSha256 => return None,
        KeyKind::RsaPss3072 | KeyKind::RsaPss4096 | KeyKind::RsaOaep3072 => {
            let bits = tlv(BIT_STRING, &[&[0], point].concat())?;
            return tlv(SEQUENCE, &[RSA_ALGORITHM, &bits].concat());
        }
        KeyKind::EcdsaP256 | KeyKind::EcdhP256 => P256_SPKI,
        KeyKind::EcdsaP384 => P384_SPKI,
        KeyKind::Ed25519 => ED25519_SPKI,
    };
    Some([prefix, point].concat())
}

/// Pins a public key: SHA-256 of its SPKI.
pub(super) fn spki_hash(spki: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, spki).as_ref().to_vec()
}

/// Turns raw `r ‖ s` into DER `ECDSA-Sig-Value` with minimal INTEGERs; none when it has no halves.
///
/// Source: PKCS#11 2.40, section 2.3.1; RFC 3279, section 2.2.3.
pub(super) fn ecdsa_signature(raw: &[u8]) -> Option<Vec<u8>> {
    let half = raw.len().checked_div(2).filter(|half| half * 2 == raw.len() && *half > 0)?;
    let (r, s) = raw.split_at_checked(half)?;
    let body = [integer(r)?, integer(s)?].concat();
    let len = u8::try_from(body.len()).ok().filter(|len| *len < 0x80)?;
    Some([&[0x30, len], body.as_slice()].concat())
}

/// Writes an unsigned big-endian number as a DER INTEGER.
fn integer(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(start..)?;
    // A set top bit would make it negative; zero still needs one octet.
    let pad = digits.first().is_none_or(|first| *first >= 0x80);
    let len = u8::try_from(digits.len().checked_add(usize::from(pad))?).ok()?;
    let mut der = vec![0x02, len];
    if pad {
        der.push(0);
    }
    der.extend_from_slice(digits);
    Some(der)
}

/// Verifies a signature of the kind's algorithm under a bare point.
pub(super) fn verifies(kind: KeyKind, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let result = match kind {
        KeyKind::HmacSha256 | KeyKind::RsaOaep3072 | KeyKind::EcdhP256 => return false,
        KeyKind::EcdsaP256 => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
        }
        KeyKind::EcdsaP384 => {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point).verify(message, signature)
        }
        KeyKind::Ed25519 => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        KeyKind::RsaPss3072 => {
            UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, point).verify(message, signature)
        }
        KeyKind::RsaPss4096 => {
            UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, point).verify(message, signature)
        }
    };
    result.is_ok()
}

/// Encrypts by OAEP under a key of [`KeyKind::RsaOaep3072`], DER of its `SubjectPublicKeyInfo`.
pub(super) fn encrypts(spki: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
    let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(spki).ok()?).ok()?;
    let mut ciphertext = vec![0; public.ciphertext_size()];
    let done = public.encrypt(&OAEP_SHA1_MGF1SHA1, plaintext, &mut ciphertext, None).ok()?;
    Some(done.to_vec())
}

/// Tells whether bytes are an uncompressed point of P-256. Asked before a token is: one that agrees
/// with what is on another curve gives its private half away, piece by piece.
pub(super) fn is_point(bytes: &[u8]) -> bool {
    let unparsed = agreement::UnparsedPublicKey::new(&ECDH_P256, bytes);
    point(KeyKind::EcdhP256, bytes) == Some(bytes) && ParsedPublicKey::try_from(unparsed).is_ok()
}

/// Agrees on a secret with a bare point, by a key pair of the moment: what was sent, and what whoever
/// has the point's private half agrees on with that.
pub(super) fn agrees(point: &[u8]) -> Option<(Vec<u8>, SecretBytes)> {
    let private = PrivateKey::generate(&ECDH_P256).ok()?;
    let sent = private.compute_public_key().ok()?.as_ref().to_vec();
    let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
    let agreed = agree(&private, peer, (), |secret| Ok(SecretBytes::new(secret.to_vec()))).ok()?;
    Some((sent, agreed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_minimal_and_never_negative() {
        for (raw, der) in [
            (&[0x01, 0x02][..], &[0x30, 6, 2, 1, 1, 2, 1, 2][..]),
            (&[0x80, 0x7f], &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]),
            (&[0, 0, 0, 5], &[0x30, 6, 2, 1, 0, 2, 1, 5]),
            (&[0, 0x80, 0x12, 0x34], &[0x30, 8, 2, 2, 0, 0x80, 2, 2, 0x12, 0x34]),
        ] {
            assert_eq!(ecdsa_signature(raw).as_deref(), Some(der), "{raw:?}");
        }
    }

    #[test]
    fn signatures_without_halves_are_refused() {
        for raw in [&[][..], &[1], &[1, 2, 3], &[0xff; 200]] {
            assert_eq!(ecdsa_signature(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn points_are_found_in_every_wrapping_and_other_shapes_are_refused() {
        let bare = [[UNCOMPRESSED].as_slice(), &[7; 64]].concat();
        for good in [
            bare.clone(),
            [&[OCTET_STRING, 65][..], &bare].concat(),
            [&[BIT_STRING, 66, 0][..], &bare].concat(),
        ] {
            assert_eq!(point(KeyKind::EcdsaP256, &good), Some(bare.as_slice()), "{good:?}");
        }
        let compressed = [[2].as_slice(), &[7; 64]].concat();
        for bad in [&[][..], &bare[..64], &[OCTET_STRING, 65], &compressed, &[0; 97]] {
            assert_eq!(point(KeyKind::EcdsaP256, bad), None, "{bad:?}");
        }
        assert_eq!(point(KeyKind::HmacSha256, &bare), None);
        assert_eq!(point(KeyKind::EcdhP256, &bare), Some(bare.as_slice()));
        assert!(!is_point(&bare), "it has the shape, and is not on the curve");
        let (sent, _) = agrees(&somebodys_point()).unwrap();
        assert!(is_point(&sent));
        assert!(!is_point(&[&[OCTET_STRING, 65][..], &sent].concat()));
    }

    fn somebodys_point() -> Vec<u8> {
        let private = PrivateKey::generate(&ECDH_P256).unwrap();
        private.compute_public_key().unwrap().as_ref().to_vec()
    }
}
