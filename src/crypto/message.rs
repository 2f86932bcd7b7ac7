//! Messages under named keys: a header that says which key and version, then what it encrypts.
//!
//! Nonces are drawn here and never given by a caller. With random nonces of 96 bits a key serves a
//! bounded number of messages, which whoever holds the keys counts.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::aead::{
    NONCE_BYTES as XAES_NONCE_BYTES, TAG_BYTES, open as xaes_open, seal as xaes_seal,
};
use super::encode::Encoder;
use super::{CryptoError, Result, hkdf_sha256};
use crate::types::{Entropy, Id, SecretBytes, VaultId};

/// Length of a header, in bytes.
pub const HEADER_BYTES: usize = 21;
/// Length of a nonce of AES-256-GCM and of ChaCha20-Poly1305, in bytes.
const SHORT_NONCE_BYTES: usize = 12;
/// Length of a version's key, and of what is derived from it, in bytes.
const KEY_BYTES: usize = 32;
/// What a message's associated data begins with, and what its key is derived for.
const DOMAIN: &str = "strongroom/keys/message/v1";

/// How messages are encrypted. The number stands in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D), nonce of 12 bytes.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439), nonce of 12 bytes.
    ChaCha20Poly1305,
    /// XAES-256-GCM (c2sp.org/XAES-256-GCM), nonce of 24 bytes.
    Xaes256Gcm,
}

impl Cipher {
    const ALL: [Self; 3] = [Self::Aes256Gcm, Self::ChaCha20Poly1305, Self::Xaes256Gcm];

    const fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
            Self::Xaes256Gcm => 3,
        }
    }

    const fn nonce_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => SHORT_NONCE_BYTES,
            Self::Xaes256Gcm => XAES_NONCE_BYTES,
        }
    }
}

/// What a message says of itself: format, key, version. All of it is bound in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How it is encrypted.
    pub cipher: Cipher,
    /// The named key's id.
    pub key: Id,
    /// The key's version.
    pub version: u32,
}

impl Header {
    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let (key, version) = (*self.key.as_bytes(), self.version.to_be_bytes());
        let bytes = [self.cipher.number()].into_iter().chain(key).chain(version);
        for (place, byte) in out.iter_mut().zip(bytes) {
            *place = byte;
        }
        out
    }

    /// Reads it off a message.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for what is too short to be a message, or of no known format.
    pub fn parse(message: &[u8]) -> Result<Self> {
        let malformed = CryptoError::Malformed("ciphertext");
        let (head, rest) = message.split_first_chunk().ok_or(malformed)?;
        let header = Self::decode(head).ok_or(malformed)?;
        let least = header.cipher.nonce_bytes().saturating_add(TAG_BYTES);
        if rest.len() < least { Err(malformed) } else { Ok(header) }
    }

    /// Reads its bytes; none for a format that is not known.
    pub(super) fn decode(head: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (number, rest) = head.split_first()?;
        let cipher = Cipher::ALL.into_iter().find(|cipher| cipher.number() == *number)?;
        let (key, version) = rest.split_first_chunk()?;
        let version = u32::from_be_bytes(*version.first_chunk()?);
        Some(Self { cipher, key: Id::from_bytes(*key), version })
    }
}

/// A version of a named key, ready to encrypt: what is the same in each of its messages is kept.
#[derive(Debug)]
pub struct MessageKey {
    cipher: MessageCipher,
    head: [u8; HEADER_BYTES],
    /// What each message's associated data begins with.
    bound: Encoder,
}

impl MessageKey {
    /// Derives what encrypts messages from a version's key of 32 bytes, which is used for derivation
    /// alone: streams are encrypted under others.
    ///
    /// Whoever brings one key twice, or as a key of two algorithms, has messages under different keys
    /// all the same: each version's count of its messages is true.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn derive(vault: VaultId, header: &Header, key: &SecretBytes) -> Result<Self> {
        if key.len_bytes() != KEY_BYTES {
            return Err(CryptoError::KeyLength);
        }
        let head = header.encode();
        let info = Encoder::new(DOMAIN).bytes(&head).finish();
        let derived = hkdf_sha256(key.expose(), vault.0.as_bytes(), &info, KEY_BYTES)?;
        let cipher = MessageCipher::new(header.cipher, &derived)?;
        let bound = Encoder::new(DOMAIN).bytes(vault.0.as_bytes()).bytes(&head);
        Ok(Self { cipher, head, bound })
    }

    /// Encrypts under a fresh random nonce: header ‖ nonce ‖ ciphertext ‖ tag.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] when the generator fails, [`CryptoError::TooLong`].
    pub fn seal(
        &self,
        associated_data: &[u8],
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>> {
        let aad = self.bound.clone().bytes(associated_data).finish();
        self.cipher.seal(&self.head, &aad, plaintext, entropy)
    }

    /// Decrypts a message; nothing of the plaintext is left when it fails.
    ///
    /// # Errors
    /// [`CryptoError::Open`], whatever of it is not what was sealed; also for another version's.
    pub fn open(&self, associated_data: &[u8], message: &[u8]) -> Result<SecretBytes> {
        let body = message.strip_prefix(&self.head).ok_or(CryptoError::Open)?;
        let aad = self.bound.clone().bytes(associated_data).finish();
        self.cipher.open(&aad, body)
    }
}

/// A cipher with its key.
#[derive(Debug)]
pub(super) enum MessageCipher {
    Short(Box<LessSafeKey>),
    Xaes(SecretBytes),
}

impl MessageCipher {
    /// Prepares a key of 32 bytes.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub(super) fn new(cipher: Cipher, key: &SecretBytes) -> Result<Self> {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Xaes256Gcm if key.len_bytes() == KEY_BYTES => {
                return Ok(Self::Xaes(key.clone()));
            }
            Cipher::Xaes256Gcm => return Err(CryptoError::KeyLength),
        };
        let key = UnboundKey::new(algorithm, key.expose());
        let key = key.map_err(|_length| CryptoError::KeyLength)?;
        Ok(Self::Short(Box::new(LessSafeKey::new(key))))
    }

    /// Encrypts behind what stands before it: nonce ‖ ciphertext ‖ tag.
    pub(super) fn seal(
        &self,
        before: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>> {
        let key = match self {
            Self::Xaes(key) => {
                return Ok([before, &xaes_seal(key, aad, plaintext, entropy)?].concat());
            }
            Self::Short(key) => key,
        };
        let mut nonce = [0; SHORT_NONCE_BYTES];
        entropy.fill(&mut nonce).map_err(|_logged| CryptoError::Failed)?;
        // Reserved at once, so that no reallocation leaves a plaintext behind.
        let begin = before.len().saturating_add(SHORT_NONCE_BYTES);
        let len_bytes = begin.saturating_add(plaintext.len()).saturating_add(TAG_BYTES);
        let mut out = Vec::with_capacity(len_bytes);
        out.extend_from_slice(before);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let body = out.get_mut(begin..).ok_or(CryptoError::Failed)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let Ok(tag) = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body) else {
            out.zeroize();
            return Err(CryptoError::TooLong("the plaintext"));
        };
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts nonce ‖ ciphertext ‖ tag.
    pub(super) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<SecretBytes> {
        let key = match self {
            Self::Xaes(key) => return xaes_open(key, aad, sealed),
            Self::Short(key) => key,
        };
        let (nonce, body) = sealed.split_first_chunk().ok_or(CryptoError::Open)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        open_in_place(key, Nonce::assume_unique_for_key(*nonce), aad, &mut buffer)?;
        Ok(buffer.into())
    }
}

/// Decrypts ciphertext ‖ tag where it is: what is left is the plaintext, or, where it does not open,
/// zeros.
pub(super) fn open_in_place(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let opened = key.open_in_place(nonce, Aad::from(aad), buffer);
    let Ok(len_bytes) = opened.map(|plaintext| plaintext.len()) else {
        buffer.as_mut_slice().zeroize();
        return Err(CryptoError::Open);
    };
    buffer.truncate(len_bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::SystemEntropy;

    const VAULT: VaultId = VaultId(Id::from_bytes([0x11; 16]));

    fn key(byte: u8) -> SecretBytes {
        SecretBytes::new(vec![byte; 32])
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_any_changed_bit_does_not(
            aad in prop::collection::vec(any::<u8>(), 0..40),
            plaintext in prop::collection::vec(any::<u8>(), 1..70),
            version in 1_u32..,
            bit in 0_usize..8,
        ) {
            for cipher in Cipher::ALL {
                let header = Header { cipher, key: Id::from_bytes([0x22; 16]), version };
                let ready = MessageKey::derive(VAULT, &header, &key(7)).unwrap();
                let sealed =
                    ready.seal(&aad, &plaintext, &SystemEntropy).unwrap();
                prop_assert_eq!(Header::parse(&sealed), Ok(header));
                let opened = ready.open(&aad, &sealed).unwrap();
                prop_assert_eq!(opened.expose(), plaintext.as_slice());
                for place in 0..sealed.len() {
                    let mut bad = sealed.clone();
                    bad[place] ^= 1 << bit;
                    // Where the header still says something, that is what it is opened by.
                    let Ok(said) = Header::parse(&bad) else { continue };
                    let by = MessageKey::derive(VAULT, &said, &key(7)).unwrap();
                    prop_assert_eq!(by.open(&aad, &bad), Err(CryptoError::Open));
                    prop_assert_eq!(ready.open(&aad, &bad), Err(CryptoError::Open));
                }
                let longer = [aad.as_slice(), &[0]].concat();
                prop_assert!(ready.open(&longer, &sealed).is_err());
                let elsewhere = VaultId(Id::from_bytes([0x12; 16]));
                let elsewhere = MessageKey::derive(elsewhere, &header, &key(7)).unwrap();
                prop_assert!(elsewhere.open(&aad, &sealed).is_err());
                let other = MessageKey::derive(VAULT, &header, &key(8)).unwrap();
                prop_assert!(other.open(&aad, &sealed).is_err());
                // One key that was brought twice encrypts under two.
                let twin_header = Header { key: Id::from_bytes([0x23; 16]), ..header };
                let twin = MessageKey::derive(VAULT, &twin_header, &key(7)).unwrap();
                let mut as_twins = sealed.clone();
                as_twins[..HEADER_BYTES].copy_from_slice(&twin_header.encode());
                prop_assert!(twin.open(&aad, &as_twins).is_err());
                prop_assert!(ready.open(&aad, &sealed[..sealed.len() - 1]).is_err());
            }
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart_and_what_is_too_short_is_none() {
        for cipher in Cipher::ALL {
            let header = Header { cipher, key: Id::from_bytes([0x22; 16]), version: 1 };
            let ready = MessageKey::derive(VAULT, &header, &key(7)).unwrap();
            let sealed = ready.seal(b"", b"x", &SystemEntropy).unwrap();
            let least = sealed.len() - 1;
            for len_bytes in 0..least {
                assert!(Header::parse(&sealed[..len_bytes]).is_err(), "{len_bytes}");
            }
            let short = MessageKey::derive(VAULT, &header, &SecretBytes::new(vec![1; 31]));
            assert_eq!(short.err(), Some(CryptoError::KeyLength));
        }
        for format in [0, 4, 0x11, 0xff] {
            assert!(Header::parse(&[format; 100]).is_err(), "{format}");
        }
    }

    #[test]
    fn nothing_of_a_plaintext_is_left_where_it_does_not_open() {
        for algorithm in [&AES_256_GCM, &CHACHA20_POLY1305] {
            let key = LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).unwrap());
            let nonce = || Nonce::assume_unique_for_key([9; SHORT_NONCE_BYTES]);
            let mut good = b"hunter2, and more than a block of it".to_vec();
            key.seal_in_place_append_tag(nonce(), Aad::from(b"aad"), &mut good).unwrap();
            for at in 0..=good.len() {
                let (mut buffer, mut aad) = (good.clone(), *b"aad");
                match buffer.get_mut(at) {
                    Some(byte) => *byte ^= 1,
                    None => aad[0] ^= 1,
                }
                let opened = open_in_place(&key, nonce(), &aad, &mut buffer);
                assert_eq!(
                    (opened, &buffer),
                    (Err(CryptoError::Open), &vec![0; good.len()]),
                    "{at}"
                );
            }
            let mut buffer = good.clone();
            assert_eq!(open_in_place(&key, nonce(), b"aad", &mut buffer), Ok(()));
            assert_eq!(buffer, b"hunter2, and more than a block of it");
        }
    }
}
