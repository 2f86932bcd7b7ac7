//! Suite 1, `hmac-kdf`: a key wrapped under a key that the HSM derives with HMAC.
//!
//! The wrapping key is HMAC-SHA-256 under the root key over [`kdf_input`]; the HSM computes it, and
//! this file never sees the root key. The blob is salt ‖ nonce ‖ ciphertext ‖ tag, with the same
//! associated data in the derivation and in the encryption.

use super::aead::{open, seal};
use super::{CryptoError, Encoder, Result};
use crate::types::{Entropy, SecretBytes};

/// The suite's number in `key_wraps`.
pub const SUITE_HMAC_KDF: i64 = 1;
/// The number of wraps for a recovery set: HPKE, with the associated data of the wrap.
pub(super) const SUITE_HPKE: i64 = 2;
/// The same for one whose private half is in a token.
pub(super) const SUITE_HPKE_P256: i64 = 3;
/// Length of the salt, in bytes.
pub const SALT_BYTES: usize = 32;

/// Encodes what the HSM computes HMAC-SHA-256 over to yield the wrapping key.
#[must_use]
pub fn kdf_input(aad: &[u8], salt: &[u8; SALT_BYTES]) -> Vec<u8> {
    Encoder::new("strongroom/wrap/hmac-kdf/v1").bytes(aad).bytes(salt).finish()
}

/// Wraps a key under a wrapping key that was derived with this salt and associated data.
///
/// # Errors
/// As [`seal`].
pub fn wrap_key(
    wrapping_key: &SecretBytes,
    salt: &[u8; SALT_BYTES],
    aad: &[u8],
    key: &SecretBytes,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let sealed = seal(wrapping_key, aad, key.expose(), entropy)?;
    Ok([salt.as_slice(), &sealed].concat())
}

/// Takes the salt out of a blob, to derive the wrapping key with.
///
/// # Errors
/// [`CryptoError::Open`] when the blob is too short to hold one.
pub fn wrap_salt(blob: &[u8]) -> Result<&[u8; SALT_BYTES]> {
    blob.first_chunk().ok_or(CryptoError::Open)
}

/// Unwraps a key.
///
/// # Errors
/// As [`open`].
pub fn unwrap_key(wrapping_key: &SecretBytes, aad: &[u8], blob: &[u8]) -> Result<SecretBytes> {
    let (_salt, sealed) = blob.split_first_chunk::<SALT_BYTES>().ok_or(CryptoError::Open)?;
    open(wrapping_key, aad, sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hmac_sha256;
    use crate::types::SystemEntropy;

    fn wrapping_key(aad: &[u8], salt: &[u8; SALT_BYTES]) -> SecretBytes {
        SecretBytes::new(hmac_sha256(b"root", &[&kdf_input(aad, salt)]).to_vec())
    }

    #[test]
    fn a_wrapped_key_opens_only_with_its_own_salt_and_place() {
        let (salt, key) = ([5; SALT_BYTES], SecretBytes::new(vec![9; 32]));
        let blob =
            wrap_key(&wrapping_key(b"here", &salt), &salt, b"here", &key, &SystemEntropy).unwrap();
        assert_eq!(blob.len(), 104);
        let found = *wrap_salt(&blob).unwrap();
        assert_eq!(unwrap_key(&wrapping_key(b"here", &found), b"here", &blob), Ok(key));

        let moved = unwrap_key(&wrapping_key(b"there", &found), b"there", &blob);
        assert_eq!(moved, Err(CryptoError::Open));
        let mut salted = blob.clone();
        salted[0] ^= 1;
        let other = *wrap_salt(&salted).unwrap();
        let refused = unwrap_key(&wrapping_key(b"here", &other), b"here", &salted);
        assert_eq!(refused, Err(CryptoError::Open));
        assert_eq!(wrap_salt(&blob[..31]), Err(CryptoError::Open));
    }
}
