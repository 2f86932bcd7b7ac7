//! Hybrid public-key encryption (RFC 9180), one message: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! AES-256-GCM. What is sealed is the encapsulated key ‖ ciphertext ‖ tag.
//!
//! In base mode anybody seals for a public half; with a key that sealer and recipient share, its
//! holders alone.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::Zeroizing;

use super::aead::TAG_BYTES;
use super::message::open_in_place;
use super::{CryptoError, Result, hmac_sha256};
use crate::types::{Entropy, SecretBytes};

/// Length of a key of either half, in bytes.
pub const HPKE_KEY_BYTES: usize = 32;

const VERSION: &[u8] = b"HPKE-v1";
/// DHKEM(X25519, HKDF-SHA256).
const KEM: &[u8] = b"KEM\x00\x20";
/// The KEM, HKDF-SHA256, AES-256-GCM.
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";
const NONCE_BYTES: usize = 12;
/// Names every shared key.
const PSK_ID: &[u8] = b"strongroom/recovery";

/// The public half of a recipient's key.
pub type HpkePublic = [u8; HPKE_KEY_BYTES];

/// What is extracted and expanded on the way to a key.
type Secret = Zeroizing<[u8; 32]>;

/// Makes the private half of a recipient's key.
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
    let public = parse(private)?.compute_public_key();
    let public = public.map_err(|_unspecified| CryptoError::Failed)?;
    public.as_ref().try_into().map_err(|_length| CryptoError::Failed)
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
    let ephemeral = hpke_private(entropy)?;
    let sent = hpke_public(&ephemeral)?;
    let shared = shared(&ephemeral, public, (&sent, public))?;
    let (key, nonce) = schedule(&shared, psk, info)?;
    // Of the final size at once: growing would leave a copy behind.
    let room = plaintext.len().saturating_add(TAG_BYTES);
    let mut message = Zeroizing::new(Vec::with_capacity(room));
    message.extend_from_slice(plaintext);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut *message)
        .map_err(|_long| CryptoError::TooLong("the message"))?;
    Ok([sent.as_slice(), message.as_slice()].concat())
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
    let (sent, ciphertext) =
        sealed.split_first_chunk::<HPKE_KEY_BYTES>().ok_or(CryptoError::Open)?;
    let public = hpke_public(private)?;
    let shared = shared(private, sent, (sent, &public)).map_err(|_none| CryptoError::Open)?;
    let (key, nonce) = schedule(&shared, psk, info)?;
    let mut message = Zeroizing::new(ciphertext.to_vec());
    open_in_place(&key, nonce, aad, &mut message)?;
    Ok(message.into())
}

fn parse(private: &SecretBytes) -> Result<PrivateKey> {
    PrivateKey::from_private_key(&X25519, private.expose())
        .map_err(|_rejected| CryptoError::KeyLength)
}

/// Agrees on a secret: of what was sent and for whom it depends as well.
///
/// Source: RFC 9180, section 4.1.
pub(super) fn shared(
    private: &SecretBytes,
    peer: &HpkePublic,
    (sent, public): (&HpkePublic, &HpkePublic),
) -> Result<Secret> {
    let malformed = CryptoError::Malformed("public key");
    let context = [sent.as_slice(), public].concat();
    // A peer whose key has a small order is refused by the library: the secret would be zero.
    agree(&parse(private)?, UnparsedPublicKey::new(&X25519, peer), malformed, |dh| {
        Ok(of_agreed(dh, &context))
    })
}

/// Derives the shared secret from what X25519 agrees on.
pub(super) fn of_agreed(dh: &[u8], context: &[u8]) -> Secret {
    let prk = extract(KEM, &[], b"eae_prk", dh);
    expand(KEM, &prk, b"shared_secret", context, 32)
}

/// Derives key and nonce.
///
/// Source: RFC 9180, section 5.1: `mode_psk`, or `mode_base` where no key is shared.
fn schedule(shared: &[u8; 32], psk: &[u8], info: &[u8]) -> Result<(LessSafeKey, Nonce)> {
    let (mode, psk_id) = if psk.is_empty() { (0_u8, &[][..]) } else { (1, PSK_ID) };
    let context = [
        [mode].as_slice(),
        extract(SUITE, &[], b"psk_id_hash", psk_id).as_slice(),
        extract(SUITE, &[], b"info_hash", info).as_slice(),
    ]
    .concat();
    let secret = extract(SUITE, shared, b"secret", psk);
    let key = expand(SUITE, &secret, b"key", &context, 32);
    let nonce = expand(SUITE, &secret, b"base_nonce", &context, NONCE_BYTES);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{hex, parse_hex};
    use crate::types::SystemEntropy;

    /// A generator that says one thing.
    #[derive(Debug)]
    struct Says([u8; 32]);

    impl Entropy for Says {
        fn fill(&self, buffer: &mut [u8]) -> crate::error::Result<()> {
            buffer.copy_from_slice(&self.0);
            Ok(())
        }
    }

    fn bytes(text: &str) -> Vec<u8> {
        parse_hex(text).unwrap()
    }

    #[test]
    fn the_shared_secret_is_that_of_rfc_9180_a_1_1() {
        let ephemeral = "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736";
        let ephemeral = SecretBytes::new(bytes(ephemeral));
        let public = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d";
        let public: HpkePublic = bytes(public).try_into().unwrap();
        let sent = hpke_public(&ephemeral).unwrap();
        assert_eq!(hex(&sent), "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        let secret = shared(&ephemeral, &public, (&sent, &public)).unwrap();
        assert_eq!(
            hex(secret.as_slice()),
            "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"
        );
    }

    /// Made by a program of its own in Python, which the library `cryptography` opens.
    #[test]
    fn a_message_is_what_another_implementation_makes_of_it() {
        let private = SecretBytes::new(vec![0x55; 32]);
        let public = hpke_public(&private).unwrap();
        assert_eq!(
            hex(&public),
            "38ab664bd86f77d7e66bdd9ae0792913a94fd8b33a1260027e4b46c1f4884c67"
        );
        let plaintext: Vec<u8> = (0..32).collect();
        let sealed = hpke_seal(&public, b"info", b"aad", &plaintext, &Says([0x66; 32])).unwrap();
        let expected = "219e4d800da968d2a5fcb009c784f4746c7138edb9ee4844b739e830b05cf424\
                        8290ee3830a67c40bc1aeced23ed40d9d007e769fff5f3ea9d2d3ecb826b1d93\
                        3a65670a24ce7ccae447d91a51f2a3f2";
        assert_eq!(hex(&sealed), expected);
        assert_eq!(hpke_open(&private, b"info", b"aad", &sealed).unwrap().expose(), plaintext);

        let psk = SecretBytes::new(vec![0x77; 32]);
        let to = (&public, &psk);
        let sealed = hpke_seal_shared(to, b"info", b"aad", &plaintext, &Says([0x66; 32])).unwrap();
        let expected = "219e4d800da968d2a5fcb009c784f4746c7138edb9ee4844b739e830b05cf424\
                        a99602d45158b74914840bc46ad1e74fb28585b9deed4151a0bfd35ac784b674\
                        f3023b6a790c34d383dc8332ef4fb084";
        assert_eq!(hex(&sealed), expected);
        let opened = hpke_open_shared((&private, &psk), b"info", b"aad", &sealed);
        assert_eq!(opened.unwrap().expose(), plaintext);
    }

    #[test]
    fn who_has_not_the_shared_key_seals_nothing_that_opens_with_it() {
        let private = hpke_private(&SystemEntropy).unwrap();
        let public = hpke_public(&private).unwrap();
        let key = |byte| SecretBytes::new(vec![byte; 32]);
        let (ours, others) = (key(1), key(2));
        let base = hpke_seal(&public, b"info", b"aad", b"message", &SystemEntropy).unwrap();
        let to = (&public, &others);
        let foreign = hpke_seal_shared(to, b"info", b"aad", b"message", &SystemEntropy).unwrap();
        for forged in [base, foreign] {
            let refused = hpke_open_shared((&private, &ours), b"info", b"aad", &forged);
            assert_eq!(refused, Err(CryptoError::Open));
        }
        let none = SecretBytes::new(Vec::new());
        let refused = hpke_seal_shared((&public, &none), b"", b"", b"", &SystemEntropy);
        assert_eq!(refused, Err(CryptoError::KeyLength));
    }

    #[test]
    fn nothing_opens_with_a_bit_changed_or_for_somebody_else() {
        let private = hpke_private(&SystemEntropy).unwrap();
        let public = hpke_public(&private).unwrap();
        let sealed = hpke_seal(&public, b"info", b"aad", b"message", &SystemEntropy).unwrap();
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            let refused = hpke_open(&private, b"info", b"aad", &bent);
            assert_eq!(refused, Err(CryptoError::Open), "byte {at}");
            assert_eq!(hpke_open(&private, b"info", b"aad", &sealed[..at]), Err(CryptoError::Open));
        }
        let other = hpke_private(&SystemEntropy).unwrap();
        for (key, info, aad) in [
            (&other, b"info".as_slice(), b"aad".as_slice()),
            (&private, b"inf", b"aad"),
            (&private, b"info", b"add"),
        ] {
            assert_eq!(hpke_open(key, info, aad, &sealed), Err(CryptoError::Open));
        }
        // A public half of small order agrees with everybody on the same secret.
        let refused = hpke_seal(&[0; 32], b"", b"", b"message", &SystemEntropy);
        assert_eq!(refused, Err(CryptoError::Malformed("public key")));
    }
}
