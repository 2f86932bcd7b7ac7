//! XAES-256-GCM: AES-256-GCM with a 192-bit nonce, which may be random for as many messages as
//! will ever be (2^80 with a collision risk of 2^-32).
//!
//! Source: c2sp.org/XAES-256-GCM. A sealed message is nonce ‖ ciphertext ‖ tag.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use zeroize::{Zeroize, Zeroizing};

use super::{CryptoError, Result};
use crate::types::{Entropy, SecretBytes};

/// Length of the nonce, in bytes.
pub const NONCE_BYTES: usize = 24;
/// Length of the tag, in bytes.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a plaintext, in bytes.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

const KEY_BYTES: usize = 32;

/// Encrypts under a 32-byte key and a fresh random nonce, and binds the associated data.
///
/// # Errors
/// [`CryptoError::KeyLength`], [`CryptoError::TooLong`] beyond 64 GiB, [`CryptoError::Failed`]
/// when the generator fails.
pub fn seal(
    key: &SecretBytes,
    aad: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce).map_err(|_logged| CryptoError::Failed)?;
    seal_with_nonce(key, &nonce, aad, plaintext)
}

/// Decrypts what [`seal`] made; nothing of the plaintext is left anywhere when it fails.
///
/// # Errors
/// [`CryptoError::Open`] when a bit of nonce, ciphertext, tag, associated data or key differs;
/// [`CryptoError::KeyLength`].
pub fn open(key: &SecretBytes, aad: &[u8], sealed: &[u8]) -> Result<SecretBytes> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(CryptoError::Open)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError::Open)?;
    let (cipher, gcm_nonce) = derive(key, nonce)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    open_in_place(&cipher, gcm_nonce, aad, (buffer.as_mut_slice(), *tag))?;
    Ok(buffer.into())
}

/// Decrypts a ciphertext where it is: what is left is the plaintext, or, where it does not open, zeros.
fn open_in_place(
    cipher: &Aes256Gcm,
    nonce: [u8; 12],
    aad: &[u8],
    (buffer, tag): (&mut [u8], [u8; TAG_BYTES]),
) -> Result<()> {
    let opened = cipher.decrypt_inout_detached(
        &Nonce::from(nonce),
        aad,
        (&mut *buffer).into(),
        &Tag::from(tag),
    );
    opened.map_err(|_forged| {
        buffer.zeroize();
        CryptoError::Open
    })
}

/// Encrypts under a nonce that the caller answers for: test vectors only, beside [`seal`].
pub(super) fn seal_with_nonce(
    key: &SecretBytes,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>> {
    let too_long = CryptoError::TooLong("the plaintext");
    let (cipher, gcm_nonce) = derive(key, nonce)?;
    // Reserved at once, so that no reallocation leaves a plaintext behind.
    let capacity = plaintext.len().checked_add(OVERHEAD_BYTES).ok_or(too_long)?;
    let mut sealed = Zeroizing::new(Vec::with_capacity(capacity));
    sealed.extend_from_slice(nonce);
    sealed.extend_from_slice(plaintext);
    let body = sealed.get_mut(NONCE_BYTES..).ok_or(CryptoError::Failed)?;
    let tag = cipher
        .encrypt_inout_detached(&Nonce::from(gcm_nonce), aad, body.into())
        .map_err(|_too_long| too_long)?;
    sealed.extend_from_slice(&tag);
    Ok(std::mem::take(&mut *sealed))
}

/// Derives the message's AES-256-GCM key and 96-bit nonce (steps 1 to 6 of the specification).
fn derive(key: &SecretBytes, nonce: &[u8; NONCE_BYTES]) -> Result<(Aes256Gcm, [u8; 12])> {
    let block_cipher =
        Aes256::new_from_slice(key.expose()).map_err(|_length| CryptoError::KeyLength)?;
    let (context, gcm_nonce) = nonce.split_at(NONCE_BYTES - 12);

    let mut l = [0; 16];
    block_cipher.encrypt_block((&mut l).into());
    let doubled = Zeroizing::new(double(u128::from_be_bytes(l)).to_be_bytes());
    l.zeroize();

    let mut derived = Zeroizing::new([0; KEY_BYTES]);
    for (half, counter) in derived.chunks_exact_mut(16).zip([1, 2]) {
        let mut block = Zeroizing::new([0; 16]);
        let prefix = [0, counter, b'X', 0];
        for ((out, byte), mask) in
            block.iter_mut().zip(prefix.iter().chain(context)).zip(doubled.iter())
        {
            *out = byte ^ mask;
        }
        block_cipher.encrypt_block((&mut *block).into());
        half.copy_from_slice(&*block);
    }

    let mut short_nonce = [0; 12];
    short_nonce.copy_from_slice(gcm_nonce);
    Ok((Aes256Gcm::new((&*derived).into()), short_nonce))
}

/// Doubles in GF(2^128) as CMAC does (NIST SP 800-38B, section 6.1), without a branch on secrets.
fn double(l: u128) -> u128 {
    (l << 1) ^ ((l >> 127) * 0x87)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{hex, parse_hex};
    use crate::types::SystemEntropy;

    fn key(byte: u8) -> SecretBytes {
        SecretBytes::new(vec![byte; 32])
    }

    #[test]
    fn both_vectors_of_the_specification_are_met() {
        for (byte, aad, want) in [
            (1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (
                3,
                "c2sp.org/XAES-256-GCM",
                "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
            ),
        ] {
            let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
            let sealed =
                seal_with_nonce(&key(byte), nonce, aad.as_bytes(), b"XAES-256-GCM").unwrap();
            assert_eq!(&sealed[..NONCE_BYTES], nonce);
            assert_eq!(hex(&sealed[NONCE_BYTES..]), want);
            let opened = open(&key(byte), aad.as_bytes(), &sealed).unwrap();
            assert_eq!(opened.expose(), b"XAES-256-GCM");
        }
    }

    #[test]
    fn the_two_intermediate_keys_of_the_specification_are_met() {
        for (l, k1) in [
            ("7298caa565031eadc6ce23d23ea66378", "e531954aca063d5b8d9c47a47d4cc6f0"),
            ("91c08762876dccf9ba204a33768fa5fe", "23810ec50edb99f374409466ed1f4b7b"),
        ] {
            let l: [u8; 16] = parse_hex(l).unwrap().try_into().unwrap();
            assert_eq!(hex(&double(u128::from_be_bytes(l)).to_be_bytes()), k1);
        }
    }

    #[test]
    fn two_seals_of_one_plaintext_share_no_nonce() {
        let a = seal(&key(1), b"", b"x", &SystemEntropy).unwrap();
        let b = seal(&key(1), b"", b"x", &SystemEntropy).unwrap();
        assert_ne!(a[..NONCE_BYTES], b[..NONCE_BYTES]);
        assert_eq!(a.len(), 1 + OVERHEAD_BYTES);
    }

    #[test]
    fn a_key_of_another_length_and_a_short_message_are_refused() {
        let sealed = seal(&key(1), b"", b"x", &SystemEntropy).unwrap();
        for len in [0, 16, 31, 33] {
            let bad = SecretBytes::new(vec![1; len]);
            assert_eq!(seal(&bad, b"", b"x", &SystemEntropy), Err(CryptoError::KeyLength));
            assert_eq!(open(&bad, b"", &sealed), Err(CryptoError::KeyLength));
        }
        for len in 0..sealed.len() {
            assert_eq!(open(&key(1), b"", &sealed[..len]), Err(CryptoError::Open), "{len} bytes");
        }
    }

    #[test]
    fn nothing_of_a_plaintext_is_left_where_it_does_not_open() {
        let (cipher, nonce) = derive(&key(7), &[9; NONCE_BYTES]).unwrap();
        let plaintext = b"hunter2, and more than a block of it";
        let mut sealed = plaintext.to_vec();
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), b"aad", sealed.as_mut_slice().into())
            .unwrap();
        let tag = <[u8; TAG_BYTES]>::try_from(&tag[..]).unwrap();
        for at in 0..sealed.len() + TAG_BYTES {
            let (mut buffer, mut tag) = (sealed.clone(), tag);
            match buffer.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => tag[at - sealed.len()] ^= 1,
            }
            let opened = open_in_place(&cipher, nonce, b"aad", (buffer.as_mut_slice(), tag));
            assert_eq!((opened, buffer), (Err(CryptoError::Open), vec![0; sealed.len()]), "{at}");
        }
        let opened = open_in_place(&cipher, nonce, b"aae", (sealed.clone().as_mut_slice(), tag));
        assert_eq!(opened, Err(CryptoError::Open));
        assert_eq!(open_in_place(&cipher, nonce, b"aad", (sealed.as_mut_slice(), tag)), Ok(()));
        assert_eq!(sealed, plaintext);
    }

    fn flip(bytes: &mut [u8], bit: usize) {
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_any_changed_bit_does_not(
            key in prop::collection::vec(any::<u8>(), 32),
            aad in prop::collection::vec(any::<u8>(), 1..40),
            plaintext in prop::collection::vec(any::<u8>(), 0..70),
            bit in any::<usize>(),
        ) {
            let secret = SecretBytes::new(key.clone());
            let sealed = seal(&secret, &aad, &plaintext, &SystemEntropy).unwrap();
            let opened = open(&secret, &aad, &sealed).unwrap();
            prop_assert_eq!(opened.expose(), plaintext);

            // Nonce, ciphertext and tag: every byte of the message, one bit each.
            for i in 0..sealed.len() {
                let mut bad = sealed.clone();
                flip(&mut bad, i * 8 + bit % 8);
                prop_assert_eq!(open(&secret, &aad, &bad), Err(CryptoError::Open));
            }
            let mut bad = aad.clone();
            flip(&mut bad, bit);
            prop_assert_eq!(open(&secret, &bad, &sealed), Err(CryptoError::Open));
            let mut bad = key;
            flip(&mut bad, bit);
            prop_assert_eq!(open(&SecretBytes::new(bad), &aad, &sealed), Err(CryptoError::Open));
        }
    }
}
