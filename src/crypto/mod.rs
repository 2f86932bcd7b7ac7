//! Encryption, hashing, the Merkle tree and the encodings that a hash, a MAC or a signature covers.
//!
//! Does no I/O; must not know whose keys these are, where anything is stored, or the HSM. The
//! formats are written down, with test vectors, in `docs/formats.md`: they cannot change later.

mod aad;
mod aead;
mod dsse;
mod encode;
mod hpke;
mod import;
mod merkle;
mod message;
mod note;
mod otp;
mod scram;
mod segments;
mod shamir;
mod signing;
mod tiles;
mod tlog;
#[cfg(test)]
mod vectors;
mod wrap;
#[cfg(test)]
mod wycheproof;

use std::fmt;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{constant_time, digest, hkdf, hmac};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::types::SecretBytes;

pub use aad::{AssociatedData, Format, Subject};
pub use aead::{NONCE_BYTES, OVERHEAD_BYTES, TAG_BYTES, open, seal};
pub use dsse::{
    PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, Sha256, pre_authentication, scheme_of,
};
pub use encode::{Encoder, base32, hex, parse_base32, parse_hex};
pub use hpke::{
    HPKE_KEY_BYTES, HPKE_POINT_BYTES, HpkePublic, hpke_open, hpke_open_agreed, hpke_open_shared,
    hpke_private, hpke_public, hpke_seal, hpke_seal_shared, hpke_sent_point,
};
pub use import::{WRAPPED_BYTES, private_of_pkcs8, unwrap_padded};
pub use merkle::{
    EMPTY_ROOT, Frontier, HASH_BYTES, Hash, leaf_hash, node_hash, verify_consistency,
    verify_inclusion,
};
pub use message::{Cipher, HEADER_BYTES, Header, MessageKey};
pub use note::{Note, NoteSignature, SignatureKind, VerifierKey, parse_note, signature_line};
pub use note::{sign_note, verify_note};
pub use otp::{OTP_SECRET_BYTES, OtpCode, STEP_S, hotp, otp_secret_text, otp_step, totp_step};
pub use scram::scram_sha_256_verifier;
pub use segments::{SEGMENT_BYTES, STREAM_HEADER_BYTES, StreamHeader, StreamOpener, StreamSealer};
pub use shamir::{join_shares, split_secret};
pub use signing::{MacHash, NamedMac, NewSigner, Scheme, new_signer, public_of, sign, verifies};
pub use tiles::{ProofPlan, TILE_WIDTH, Tile, TileEdge, TileId, TileReader};
pub use tlog::{Checkpoint, ENTRY_BYTES, TilePath, decode_bundle, encode_bundle, note_body};
pub use wrap::{SALT_BYTES, SUITE_HMAC_KDF, kdf_input, unwrap_key, wrap_key, wrap_salt};

/// The result of this room.
pub type Result<T, E = CryptoError> = std::result::Result<T, E>;

/// What went wrong, without a word about what was inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Nonce, ciphertext, tag, associated data or key is not what was sealed.
    #[error("the ciphertext does not open")]
    Open,
    /// A key has not the length that its use demands.
    #[error("a key has the wrong length")]
    KeyLength,
    /// More was asked for than the algorithm or the format can hold.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// A text or encoding from outside is not in its format.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// An index or a size lies outside the tree.
    #[error("the index or size lies outside the tree")]
    OutOfRange,
    /// A stored tile or frontier is missing or has not the shape that the tree's size demands.
    #[error("the stored tree is damaged at level {level}, tile {index}")]
    Tile {
        /// The tile's level; leaf hashes are level 0.
        level: u8,
        /// The tile's index within its level.
        index: u64,
    },
    /// An inclusion or consistency proof does not hold.
    #[error("the proof does not hold")]
    Proof,
    /// No signature of the key, or one that does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// The generator of randomness or the cryptographic library failed.
    #[error("the cryptographic library failed")]
    Failed,
}

impl From<CryptoError> for Error {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::TooLong(_) | CryptoError::Malformed(_) | CryptoError::OutOfRange => {
                Self::invalid(error.to_string())
            }
            CryptoError::Open
            | CryptoError::KeyLength
            | CryptoError::Tile { .. }
            | CryptoError::Proof
            | CryptoError::Signature
            | CryptoError::Failed => Self::internal(error),
        }
    }
}

/// Hashes with SHA-256 (FIPS 180-4).
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_array(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Computes HMAC-SHA-256 (RFC 2104) over the concatenation of the parts.
///
/// Parts are not framed: what could be cut in two ways goes through [`Encoder`] first.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    MacKey::new(key).tag(parts)
}

/// A prepared HMAC-SHA-256 key: the key schedule is computed once; wiped on drop.
#[derive(Clone)]
pub struct MacKey(Box<hmac::Key>);

impl MacKey {
    /// Prepares a key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(Box::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// Computes the tag over the concatenation of the parts.
    #[must_use]
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        to_array(context.sign().as_ref())
    }

    /// Compares a tag in constant time; one of another length is wrong.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.tag(parts), tag).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Derives `len_bytes` bytes with HKDF-SHA-256 (RFC 5869).
///
/// # Errors
/// [`CryptoError::TooLong`] beyond 255 × 32 bytes.
pub fn hkdf_sha256(ikm: &[u8], salt: &[u8], info: &[u8], len_bytes: usize) -> Result<SecretBytes> {
    let mut out = Zeroizing::new(vec![0; len_bytes]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[info], OutputLength(len_bytes))
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_unspecified| CryptoError::TooLong("the derived key"))?;
    Ok(out.into())
}

/// Stretches a key that is used for nothing else over a buffer: the keystream of AES-256 in counter
/// mode (NIST SP 800-38A), from zero on.
///
/// # Errors
/// [`CryptoError::Failed`] for a key of another length.
pub fn stretch(key: &SecretBytes, buffer: &mut [u8]) -> Result<()> {
    buffer.fill(0);
    let zero = EncryptionContext::Iv128(FixedLength::from([0_u8; 16]));
    UnboundCipherKey::new(&AES_256, key.expose())
        .and_then(EncryptingKey::ctr)
        .and_then(|key| key.less_safe_encrypt(buffer, zero))
        .map(drop)
        .map_err(|_unspecified| CryptoError::Failed)
}

struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

/// Copies the 32 bytes that SHA-256 and HMAC-SHA-256 always yield.
fn to_array(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two blocks are H and the tag of test case 13 of the GCM specification, the third is
    /// the ciphertext of case 14.
    #[test]
    fn a_key_is_stretched_as_others_do_it() {
        let mut out = [7; 48];
        stretch(&SecretBytes::new(vec![0; 32]), &mut out).unwrap();
        let known = "dc95c078a2408989ad48a21492842087530f8afbc74536b9a963b4f1c4cb738b\
                     cea7403d4d606b6e074ec5d3baf39d18";
        assert_eq!(hex(&out), known);
        assert_eq!(stretch(&SecretBytes::new(vec![0; 31]), &mut out), Err(CryptoError::Failed));
    }

    #[test]
    fn sha256_yields_the_vector_of_fips_180_4() {
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), want);
    }

    #[test]
    fn hmac_yields_test_case_2_of_rfc_4231_however_its_input_is_cut() {
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        for parts in [
            [b"what do ya want ".as_slice(), b"for nothing?"],
            [b"".as_slice(), b"what do ya want for nothing?"],
        ] {
            assert_eq!(hex(&hmac_sha256(b"Jefe", &parts)), want);
        }
    }

    #[test]
    fn a_tag_with_a_changed_bit_or_another_length_is_refused() {
        let key = MacKey::new(&[7; 32]);
        let tag = key.tag(&[b"row"]);
        assert!(key.verify(&[b"row"], &tag));
        for i in 0..tag.len() {
            let mut bad = tag;
            bad[i] ^= 0x80;
            assert!(!key.verify(&[b"row"], &bad), "byte {i}");
        }
        assert!(!key.verify(&[b"row"], &tag[..31]));
        assert!(!key.verify(&[b"row"], &[]));
        assert!(!MacKey::new(&[8; 32]).verify(&[b"row"], &tag));
    }

    #[test]
    fn debug_of_a_key_shows_nothing() {
        assert_eq!(format!("{:?}", MacKey::new(b"hunter2")), "[REDACTED]");
    }

    #[test]
    fn hkdf_yields_test_cases_1_and_3_of_rfc_5869() {
        let ikm = [0x0b; 22];
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        for (salt, info, want) in [
            (
                salt.as_slice(),
                info.as_slice(),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf\
                 34007208d5b887185865",
            ),
            (
                &[],
                &[],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d\
                 9d201395faa4b61a96c8",
            ),
        ] {
            let okm = hkdf_sha256(&ikm, salt, info, 42).unwrap();
            assert_eq!(hex(okm.expose()), want);
        }
    }

    #[test]
    fn hkdf_refuses_more_than_255_blocks() {
        assert!(hkdf_sha256(b"k", b"", b"", 255 * 32).is_ok());
        let refused = hkdf_sha256(b"k", b"", b"", 255 * 32 + 1);
        assert_eq!(refused, Err(CryptoError::TooLong("the derived key")));
    }
}
