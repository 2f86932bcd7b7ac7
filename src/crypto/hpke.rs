//! Hybrid public-key encryption (RFC 9180), one message: DHKEM over X25519 or P-256, HKDF-SHA256,
//! AES-256-GCM. What is sealed is the encapsulated key ‖ ciphertext ‖ tag.
//!
//! In base mode anybody seals for a public half; with a key that sealer and recipient share, its
//! holders alone. A private half on P-256 is in a token: this room never sees one, only what the token
//! agreed on.

#[cfg(test)]
mod tests;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{
    Algorithm, ECDH_P256, PrivateKey, PublicKey, UnparsedPublicKey, X25519, agree,
};
use zeroize::Zeroizing;

use super::aead::TAG_BYTES;
use super::message::open_in_place;
use super::wrap::{SUITE_HPKE, SUITE_HPKE_P256};
use super::{CryptoError, Result, hmac_sha256};
use crate::types::{Entropy, SecretBytes};

/// Length of a private half, of a public one on X25519, and of a shared key, in bytes.
pub const HPKE_KEY_BYTES: usize = 32;
/// Length of a public half on P-256, in bytes: an uncompressed point.
pub const HPKE_POINT_BYTES: usize = 65;

const VERSION: &[u8] = b"HPKE-v1";
const NONCE_BYTES: usize = 12;
/// Names every shared key.
const PSK_ID: &[u8] = b"strongroom/recovery";
/// First octet of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 0x04;
/// How often a scalar of P-256 is drawn: one of 2^32 that are drawn is none.
const DRAWS: usize = 4;

/// The public half of a recipient's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HpkePublic {
    /// On X25519: the private half is 32 bytes that somebody has.
    X25519([u8; HPKE_KEY_BYTES]),
    /// On P-256, uncompressed: the private half is in a token.
    P256([u8; HPKE_POINT_BYTES]),
}

impl HpkePublic {
    /// Reads one; which it is shows by its length. Whether it is a point shows when something is
    /// sealed for it.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if let Ok(key) = bytes.try_into() {
            return Ok(Self::X25519(key));
        }
        match bytes.try_into() {
            Ok(point) if bytes.first() == Some(&UNCOMPRESSED) => Ok(Self::P256(point)),
            Ok(_) | Err(_) => Err(CryptoError::Malformed("public key")),
        }
    }

    /// Shows its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::X25519(key) => key,
            Self::P256(point) => point,
        }
    }

    /// Tells the number of wraps for it.
    #[must_use]
    pub const fn suite(&self) -> i64 {
        match self {
            Self::X25519(_) => SUITE_HPKE,
            Self::P256(_) => SUITE_HPKE_P256,
        }
    }

    fn kem(&self) -> &'static Kem {
        match self {
            Self::X25519(_) => &KEM_X25519,
            Self::P256(_) => &KEM_P256,
        }
    }
}

/// How a secret is agreed on; with HKDF-SHA256 and AES-256-GCM behind it.
///
/// Source: RFC 9180, section 7.
pub(super) struct Kem {
    algorithm: &'static Algorithm,
    id: &'static [u8],
    suite: &'static [u8],
}

pub(super) static KEM_X25519: Kem =
    Kem { algorithm: &X25519, id: b"KEM\x00\x20", suite: b"HPKE\x00\x20\x00\x01\x00\x02" };
static KEM_P256: Kem =
    Kem { algorithm: &ECDH_P256, id: b"KEM\x00\x10", suite: b"HPKE\x00\x10\x00\x01\x00\x02" };

/// What is extracted and expanded on the way to a key.
type Secret = Zeroizing<[u8; 32]>;

/// Makes the private half of a recipient's key, on X25519.
///
/// # Errors
/// [`CryptoError::Failed`] when the generator fails.
pub fn hpke_private(entropy: &dyn Entropy) -> Result<SecretBytes> {
    let mut key = Zeroizing::new(vec![0; HPKE_KEY_BYTES]);
    entropy.fill(&mut key).map_err(|_logged| CryptoError::Failed)?;
    Ok(key.into())
}

/// Computes the public half.
///
/// # Errors
/// [`CryptoError::KeyLength`].
pub fn hpke_public(private: &SecretBytes) -> Result<HpkePublic> {
    HpkePublic::parse(public_of(&parse(private)?)?.as_ref())
}

/// Encrypts for a recipient.
///
/// # Errors
/// [`CryptoError::Malformed`] for a public half that is none; [`CryptoError::Failed`].
///
/// Source: RFC 9180, section 6.1.
pub fn hpke_seal(
    public: &HpkePublic,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    seal((public, &[]), info, aad, plaintext, entropy)
}

/// Encrypts for a recipient with whom a key of 32 random bytes is shared.
///
/// # Errors
/// As [`hpke_seal`]; [`CryptoError::KeyLength`].
pub fn hpke_seal_shared(
    (public, psk): (&HpkePublic, &SecretBytes),
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    seal((public, checked(psk)?), info, aad, plaintext, entropy)
}

/// A shared key that is none would be base mode.
fn checked(psk: &SecretBytes) -> Result<&[u8]> {
    let psk = psk.expose();
    if psk.len() == HPKE_KEY_BYTES { Ok(psk) } else { Err(CryptoError::KeyLength) }
}

fn seal(
    (public, psk): (&HpkePublic, &[u8]),
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let kem = public.kem();
    let ephemeral = ephemeral(kem, entropy)?;
    let sent = public_of(&ephemeral)?;
    let shared = shared(kem, &ephemeral, public.as_bytes(), (sent.as_ref(), public.as_bytes()))?;
    let (key, nonce) = schedule(kem, &shared, psk, info)?;
    // Of the final size at once: growing would leave a copy behind.
    let room = plaintext.len().saturating_add(TAG_BYTES);
    let mut message = Zeroizing::new(Vec::with_capacity(room));
    message.extend_from_slice(plaintext);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut *message)
        .map_err(|_long| CryptoError::TooLong("the message"))?;
    Ok([sent.as_ref(), message.as_slice()].concat())
}

/// Decrypts what [`hpke_seal`] made for the holder of a private half.
///
/// # Errors
/// [`CryptoError::Open`] for anything that was not sealed for this key, with this info and data.
pub fn hpke_open(
    private: &SecretBytes,
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes> {
    open((private, &[]), info, aad, sealed)
}

/// Decrypts what [`hpke_seal_shared`] made.
///
/// # Errors
/// As [`hpke_open`], also for what somebody sealed who has not the shared key;
/// [`CryptoError::KeyLength`].
pub fn hpke_open_shared(
    (private, psk): (&SecretBytes, &SecretBytes),
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes> {
    open((private, checked(psk)?), info, aad, sealed)
}

fn open(
    (private, psk): (&SecretBytes, &[u8]),
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes> {
    let (sent, ciphertext) = sealed.split_at_checked(HPKE_KEY_BYTES).ok_or(CryptoError::Open)?;
    let (private, public) = (parse(private)?, hpke_public(private)?);
    let kem = public.kem();
    let shared = shared(kem, &private, sent, (sent, public.as_bytes()))
        .map_err(|_none| CryptoError::Open)?;
    decrypt(schedule(kem, &shared, psk, info)?, aad, ciphertext)
}

/// Takes the point out of what was sealed for a public half on P-256: the token that has the private
/// half agrees with it on a secret.
///
/// # Errors
/// [`CryptoError::Open`].
pub fn hpke_sent_point(sealed: &[u8]) -> Result<&[u8; HPKE_POINT_BYTES]> {
    sealed.first_chunk().ok_or(CryptoError::Open)
}

/// Decrypts with the secret that a token agreed on with [`hpke_sent_point`]: what [`hpke_seal`] made
/// for its public half, or with a shared key [`hpke_seal_shared`].
///
/// # Errors
/// As [`hpke_open_shared`].
pub fn hpke_open_agreed(
    agreed: &SecretBytes,
    (public, psk): (&HpkePublic, Option<&SecretBytes>),
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes> {
    let (sent, ciphertext) = sealed.split_at_checked(HPKE_POINT_BYTES).ok_or(CryptoError::Open)?;
    let psk = psk.map_or(Ok(&[][..]), checked)?;
    let kem = public.kem();
    let shared = extract_and_expand(kem, agreed.expose(), (sent, public.as_bytes()));
    decrypt(schedule(kem, &shared, psk, info)?, aad, ciphertext)
}

fn decrypt(
    (key, nonce): (LessSafeKey, Nonce),
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<SecretBytes> {
    let mut message = Zeroizing::new(ciphertext.to_vec());
    open_in_place(&key, nonce, aad, &mut message)?;
    Ok(message.into())
}

pub(super) fn parse(private: &SecretBytes) -> Result<PrivateKey> {
    PrivateKey::from_private_key(&X25519, private.expose())
        .map_err(|_rejected| CryptoError::KeyLength)
}

fn public_of(private: &PrivateKey) -> Result<PublicKey> {
    private.compute_public_key().map_err(|_unspecified| CryptoError::Failed)
}

/// Makes the key of one message.
fn ephemeral(kem: &Kem, entropy: &dyn Entropy) -> Result<PrivateKey> {
    for _ in 0..DRAWS {
        let drawn = hpke_private(entropy)?;
        if let Ok(key) = PrivateKey::from_private_key(kem.algorithm, drawn.expose()) {
            return Ok(key);
        }
    }
    Err(CryptoError::Failed)
}

/// Agrees on a secret: of what was sent and for whom it depends as well.
///
/// Source: RFC 9180, section 4.1.
pub(super) fn shared(
    kem: &Kem,
    private: &PrivateKey,
    peer: &[u8],
    sent_for: (&[u8], &[u8]),
) -> Result<Secret> {
    let malformed = CryptoError::Malformed("public key");
    let peer = UnparsedPublicKey::new(kem.algorithm, peer);
    // A peer that is no point of the curve, or on X25519 one of small order, is refused by the
    // library: of the latter the secret would be zero.
    agree(private, peer, malformed, |dh| Ok(extract_and_expand(kem, dh, sent_for)))
}

/// Source: RFC 9180, section 4.1.
pub(super) fn extract_and_expand(
    kem: &Kem,
    dh: &[u8],
    (sent, public): (&[u8], &[u8]),
) -> Secret {
    let prk = extract(kem.id, &[], b"eae_prk", dh);
    expand(kem.id, &prk, b"shared_secret", &[sent, public].concat(), 32)
}

/// Derives key and nonce.
///
/// Source: RFC 9180, section 5.1: `mode_psk`, or `mode_base` where no key is shared.
fn schedule(kem: &Kem, shared: &[u8; 32], psk: &[u8], info: &[u8]) -> Result<(LessSafeKey, Nonce)> {
    let (mode, psk_id) = if psk.is_empty() { (0_u8, &[][..]) } else { (1, PSK_ID) };
    let context = [
        [mode].as_slice(),
        extract(kem.suite, &[], b"psk_id_hash", psk_id).as_slice(),
        extract(kem.suite, &[], b"info_hash", info).as_slice(),
    ]
    .concat();
    let secret = extract(kem.suite, shared, b"secret", psk);
    let key = expand(kem.suite, &secret, b"key", &context, 32);
    let nonce = expand(kem.suite, &secret, b"base_nonce", &context, NONCE_BYTES);
    let nonce = nonce.first_chunk::<NONCE_BYTES>().ok_or(CryptoError::Failed)?;
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice());
    let key = LessSafeKey::new(key.map_err(|_length| CryptoError::KeyLength)?);
    // A key encrypts one message, so its first nonce is its only one.
    Ok((key, Nonce::assume_unique_for_key(*nonce)))
}

fn extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Secret {
    Zeroizing::new(hmac_sha256(salt, &[VERSION, suite, label, ikm]))
}

/// The first block of HKDF-Expand, which is all that is asked for: its first `len` bytes count, of
/// which there are 32 at the most.
fn expand(suite: &[u8], prk: &[u8; 32], label: &[u8], info: &[u8], len: usize) -> Secret {
    let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    Zeroizing::new(hmac_sha256(prk, &[&len, VERSION, suite, label, info, &[1]]))
}
