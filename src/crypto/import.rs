//! Keys that come from elsewhere: unwrapped, and read.
//!
//! What comes is `CKM_RSA_AES_KEY_WRAP` (PKCS#11 3.0, section 2.1.21): an AES key under RSA-OAEP, which
//! the HSM opens, and then the key itself under that, by AES key wrap with padding (RFC 5649).

use aws_lc_rs::encoding::{AsBigEndian as _, Curve25519SeedBin, EcPrivateKeyBin};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair,
};
use zeroize::Zeroizing;

use super::Scheme;
use crate::types::SecretBytes;

/// Bytes of a wrapped key at most: PKCS#8 of what may be imported is far shorter.
pub const WRAPPED_BYTES: usize = 1_024;

/// Unwraps a key by AES-256 key wrap with padding (RFC 5649); none for what does not open.
#[must_use]
pub fn unwrap_padded(wrapping: &SecretBytes, wrapped: &[u8]) -> Option<SecretBytes> {
    if wrapped.len() > WRAPPED_BYTES {
        return None;
    }
    let key = AesKek::new(&AES_256, wrapping.expose()).ok()?;
    let mut opened = Zeroizing::new(vec![0; wrapped.len()]);
    let len_bytes = key.unwrap_with_padding(wrapped, &mut opened).ok()?.len();
    opened.get(..len_bytes).map(|opened| SecretBytes::new(opened.to_vec()))
}

/// Reads a private key out of PKCS#8 (RFC 5208), as [`super::sign`] takes it; none for another
/// algorithm's, or one whose parts do not belong together.
#[must_use]
pub fn private_of_pkcs8(scheme: Scheme, pkcs8: &SecretBytes) -> Option<SecretBytes> {
    let signing: &'static EcdsaSigningAlgorithm = match scheme {
        Scheme::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.expose()).ok()?;
            let seed: Curve25519SeedBin<'_> = pair.seed().ok()?.as_be_bytes().ok()?;
            return Some(SecretBytes::new(seed.as_ref().to_vec()));
        }
        Scheme::EcdsaP256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
        Scheme::EcdsaP384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        Scheme::RsaPssSha256 | Scheme::RsaPssSha384 => return None,
    };
    let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.expose()).ok()?;
    let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().ok()?;
    Some(SecretBytes::new(scalar.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::parse_hex;

    #[test]
    fn unwrapping_yields_a_key_that_openssl_wrapped_and_no_changed_bit_of_it_opens() {
        // Wrapped by OpenSSL 3.0 (`enc -id-aes256-wrap-pad`): of 20 bytes, so that it is padded.
        let wrapping = SecretBytes::new((0..32).collect());
        let wrapped =
            parse_hex("f5129e80e156263174db3eb593dca415b34a59ac30626fd4157e7241c590b6b4").unwrap();
        let opened = unwrap_padded(&wrapping, &wrapped).unwrap();
        assert_eq!(opened.expose(), (100..120).collect::<Vec<u8>>());
        for at in 0..wrapped.len() {
            let mut bad = wrapped.clone();
            bad[at] ^= 1;
            assert_eq!(unwrap_padded(&wrapping, &bad), None, "{at}");
        }
        for wrong in [&wrapped[1..], &wrapped[..16], &[], &[0; WRAPPED_BYTES + 8]] {
            assert_eq!(unwrap_padded(&wrapping, wrong), None);
        }
        assert_eq!(unwrap_padded(&SecretBytes::new(vec![0; 16]), &wrapped), None);
    }

    #[test]
    fn private_keys_are_read_for_their_own_algorithm_alone() {
        let rng = aws_lc_rs::rand::SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
        let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &rng).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        let made = [
            (Scheme::EcdsaP256, SecretBytes::new(p256.as_ref().to_vec())),
            (Scheme::EcdsaP384, SecretBytes::new(p384.as_ref().to_vec())),
            (Scheme::Ed25519, SecretBytes::new(ed25519.as_ref().to_vec())),
        ];
        for (scheme, pkcs8) in &made {
            let private = private_of_pkcs8(*scheme, pkcs8).unwrap();
            let public = crate::crypto::public_of(*scheme, &private).unwrap();
            let signature = crate::crypto::sign(*scheme, &private, b"x").unwrap();
            assert!(crate::crypto::verifies(*scheme, &public, b"x", &signature));
            for (other, _) in made.iter().filter(|(other, _)| other != scheme) {
                assert_eq!(private_of_pkcs8(*other, pkcs8), None, "{scheme:?} as {other:?}");
            }
            let cut = SecretBytes::new(pkcs8.expose()[1..].to_vec());
            assert_eq!(private_of_pkcs8(*scheme, &cut), None);
        }
    }
}
