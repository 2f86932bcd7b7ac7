//! Streams under named keys: segments that open in their order, all of them, or not at all.
//!
//! The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015) as age writes it: each stream
//! has a key of its own, a segment's nonce is its number and whether it is the last. So a stream
//! that is cut off, or whose segments are reordered, repeated or left out, fails.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use zeroize::Zeroizing;

use super::aead::TAG_BYTES;
use super::encode::Encoder;
use super::message::{Cipher, HEADER_BYTES, Header, open_in_place};
use super::{CryptoError, Result, hkdf_sha256};
use crate::types::{Entropy, SecretBytes, VaultId};

/// Plaintext of a segment, in bytes; the last may have less.
pub const SEGMENT_BYTES: usize = 64 * 1_024;
/// A segment with its tag, in bytes.
const SEALED_BYTES: usize = SEGMENT_BYTES + TAG_BYTES;
/// Length of a stream's header, in bytes.
pub const STREAM_HEADER_BYTES: usize = HEADER_BYTES + SALT_BYTES;
const SALT_BYTES: usize = 32;
/// What the derivation of a stream's key begins with.
const DOMAIN: &str = "strongroom/keys/stream/v1";
/// What is added to the number of a message's format to make that of a stream's.
const STREAM: u8 = 0x10;

/// What a stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// As a message says it.
    pub of: Header,
    salt: [u8; SALT_BYTES],
}

impl StreamHeader {
    /// Begins a stream.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] when the generator fails.
    pub fn new(of: Header, entropy: &dyn Entropy) -> Result<Self> {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt).map_err(|_logged| CryptoError::Failed)?;
        Ok(Self { of, salt })
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.named().as_slice(), &self.salt].concat()
    }

    /// Reads it off the beginning of a stream.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for what is too short, or of no known format.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed = CryptoError::Malformed("stream");
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(malformed)?;
        let salt = *rest.first_chunk().ok_or(malformed)?;
        let mut head = *head;
        let [number, ..] = &mut head;
        *number = number.checked_sub(STREAM).ok_or(malformed)?;
        Ok(Self { of: Header::decode(&head).ok_or(malformed)?, salt })
    }

    /// Format, key and version.
    fn named(&self) -> [u8; HEADER_BYTES] {
        let mut head = self.of.encode();
        let [number, ..] = &mut head;
        *number = number.saturating_add(STREAM);
        head
    }

    /// Derives the stream's key.
    fn key(
        &self,
        vault: VaultId,
        key: &SecretBytes,
        associated_data: &[u8],
    ) -> Result<LessSafeKey> {
        let info = Encoder::new(DOMAIN).bytes(vault.0.as_bytes()).bytes(&self.named());
        let info = info.bytes(associated_data).finish();
        let derived = hkdf_sha256(key.expose(), &self.salt, &info, 32)?;
        let algorithm: &'static Algorithm = match self.of.cipher {
            // A key of its own needs no longer nonce.
            Cipher::Aes256Gcm | Cipher::Xaes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, derived.expose());
        Ok(LessSafeKey::new(key.map_err(|_length| CryptoError::KeyLength)?))
    }
}

/// Numbers segments.
#[derive(Debug, Default)]
struct Counter(u64);

impl Counter {
    fn nonce(&mut self, last: bool) -> Result<Nonce> {
        let mut nonce = [0; 12];
        let [_, _, _, number @ .., end] = &mut nonce;
        *number = self.0.to_be_bytes();
        *end = u8::from(last);
        self.0 = self.0.checked_add(1).ok_or(CryptoError::TooLong("the stream"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Encrypts a stream as it comes.
#[derive(Debug)]
pub struct StreamSealer {
    key: LessSafeKey,
    counter: Counter,
    /// What is not encrypted yet: whether it is the last is not known.
    pending: Zeroizing<Vec<u8>>,
}

impl StreamSealer {
    /// Begins with a key of 32 bytes.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(
        vault: VaultId,
        header: &StreamHeader,
        key: &SecretBytes,
        associated_data: &[u8],
    ) -> Result<Self> {
        let key = header.key(vault, key, associated_data)?;
        Ok(Self { key, counter: Counter::default(), pending: room() })
    }

    /// Takes what comes next and gives the segments that are full.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`].
    pub fn push(&mut self, mut data: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        while !data.is_empty() {
            if self.pending.len() == SEGMENT_BYTES {
                out.push(self.segment(false)?);
            }
            data = fill(&mut self.pending, data, SEGMENT_BYTES);
        }
        Ok(out)
    }

    /// Ends the stream with its last segment.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`].
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.segment(true)
    }

    fn segment(&mut self, last: bool) -> Result<Vec<u8>> {
        let nonce = self.counter.nonce(last)?;
        let mut segment = std::mem::replace(&mut self.pending, room());
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut *segment);
        sealed.map_err(|_long| CryptoError::TooLong("the stream"))?;
        Ok(std::mem::take(&mut *segment))
    }
}

/// Decrypts a stream as it comes, behind its header.
#[derive(Debug)]
pub struct StreamOpener {
    key: LessSafeKey,
    counter: Counter,
    pending: Zeroizing<Vec<u8>>,
}

impl StreamOpener {
    /// Begins with a key of 32 bytes.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(
        vault: VaultId,
        header: &StreamHeader,
        key: &SecretBytes,
        associated_data: &[u8],
    ) -> Result<Self> {
        let key = header.key(vault, key, associated_data)?;
        Ok(Self { key, counter: Counter::default(), pending: room() })
    }

    /// Takes what comes next and gives the segments that open.
    ///
    /// # Errors
    /// [`CryptoError::Open`] for a segment that is not the next of this stream.
    pub fn push(&mut self, mut data: &[u8]) -> Result<Vec<SecretBytes>> {
        let mut out = Vec::new();
        while !data.is_empty() {
            if self.pending.len() == SEALED_BYTES {
                out.push(self.segment(false)?);
            }
            data = fill(&mut self.pending, data, SEALED_BYTES);
        }
        Ok(out)
    }

    /// Ends the stream with what is left, which has to be its last segment.
    ///
    /// # Errors
    /// [`CryptoError::Open`] for a stream that was cut off.
    pub fn finish(mut self) -> Result<SecretBytes> {
        let first = self.counter.0 == 0;
        let last = self.segment(true)?;
        // One stream has one form: only one that holds nothing ends with nothing.
        if last.len_bytes() == 0 && !first { Err(CryptoError::Open) } else { Ok(last) }
    }

    fn segment(&mut self, last: bool) -> Result<SecretBytes> {
        let nonce = self.counter.nonce(last)?;
        let mut segment = std::mem::replace(&mut self.pending, room());
        open_in_place(&self.key, nonce, &[], &mut segment)?;
        Ok(segment.into())
    }
}

/// Room for a segment, so that no reallocation leaves a plaintext behind.
fn room() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(SEALED_BYTES))
}

/// Fills a segment up, and gives what is left.
fn fill<'a>(pending: &mut Vec<u8>, data: &'a [u8], most: usize) -> &'a [u8] {
    let space = most.saturating_sub(pending.len()).min(data.len());
    let (now, rest) = data.split_at_checked(space).unwrap_or((data, &[]));
    pending.extend_from_slice(now);
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Id, SystemEntropy};

    const VAULT: VaultId = VaultId(Id::from_bytes([0x11; 16]));
    const CIPHERS: [Cipher; 3] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305, Cipher::Xaes256Gcm];

    fn key() -> SecretBytes {
        SecretBytes::new(vec![7; 32])
    }

    fn header(cipher: Cipher) -> StreamHeader {
        let of = Header { cipher, key: Id::from_bytes([0x22; 16]), version: 3 };
        StreamHeader::new(of, &SystemEntropy).unwrap()
    }

    /// The segments of a stream, cut into pieces on the way in.
    fn seal(header: &StreamHeader, plaintext: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut sealer = StreamSealer::new(VAULT, header, &key(), b"aad").unwrap();
        let pieces = plaintext.chunks(piece);
        let mut out: Vec<_> = pieces.flat_map(|piece| sealer.push(piece).unwrap()).collect();
        out.push(sealer.finish().unwrap());
        out
    }

    fn open(header: &StreamHeader, sealed: &[u8], piece: usize) -> Result<Vec<u8>> {
        let mut opener = StreamOpener::new(VAULT, header, &key(), b"aad")?;
        let mut out = Vec::new();
        for piece in sealed.chunks(piece) {
            for segment in opener.push(piece)? {
                out.extend_from_slice(segment.expose());
            }
        }
        out.extend_from_slice(opener.finish()?.expose());
        Ok(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_stream_comes_back_however_it_is_cut_on_the_way(
            length in 0_usize..200_000,
            pieces in (1_000_usize..150_000, 1_000_usize..150_000),
        ) {
            let plaintext: Vec<u8> = (0..length).map(|n| (n % 251).to_le_bytes()[0]).collect();
            for cipher in CIPHERS {
                let header = header(cipher);
                prop_assert_eq!(StreamHeader::parse(&header.encode()), Ok(header));
                let sealed = seal(&header, &plaintext, pieces.0).concat();
                let opened = open(&header, &sealed, pieces.1);
                prop_assert_eq!(opened.as_deref(), Ok(plaintext.as_slice()));
            }
        }
    }

    #[test]
    fn what_is_cut_off_reordered_repeated_left_out_or_altered_fails() {
        for length in [0, 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES, 200_000] {
            let plaintext = vec![b'x'; length];
            let header = header(Cipher::Aes256Gcm);
            let sealed = seal(&header, &plaintext, 10_000);
            assert_eq!(sealed.len(), length.div_ceil(SEGMENT_BYTES).max(1));
            let whole = sealed.concat();
            assert_eq!(open(&header, &whole, 70_000), Ok(plaintext));
            let mut bad = Vec::new();
            for cut in [1, 16, 17, SEALED_BYTES] {
                bad.extend(whole.len().checked_sub(cut).map(|end| whole[..end].to_vec()));
            }
            bad.push([whole.as_slice(), &[0]].concat());
            bad.push([whole.as_slice(), sealed.last().unwrap()].concat());
            for at in [0, whole.len() / 2, whole.len() - 1] {
                let mut altered = whole.clone();
                altered[at] ^= 1;
                bad.push(altered);
            }
            for one in 0..sealed.len() {
                let mut without = sealed.clone();
                without.remove(one);
                bad.push(without.concat());
                let mut twice = sealed.clone();
                twice.insert(one, sealed[one].clone());
                bad.push(twice.concat());
                for other in 0..one {
                    let mut swapped = sealed.clone();
                    swapped.swap(one, other);
                    bad.push(swapped.concat());
                }
            }
            for stream in bad {
                assert_eq!(open(&header, &stream, 70_000), Err(CryptoError::Open), "{length}");
            }
        }
    }

    #[test]
    fn a_stream_is_bound_to_its_header_vault_and_associated_data() {
        let header = header(Cipher::Aes256Gcm);
        let sealed = seal(&header, b"hunter2", 3).concat();
        let bytes = header.encode();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let Ok(said) = StreamHeader::parse(&altered) else { continue };
            assert_eq!(open(&said, &sealed, 100), Err(CryptoError::Open), "{bit}");
        }
        let elsewhere = VaultId(Id::from_bytes([0x12; 16]));
        for (vault, aad) in [(elsewhere, &b"aad"[..]), (VAULT, b"aae")] {
            let mut opener = StreamOpener::new(vault, &header, &key(), aad).unwrap();
            assert!(opener.push(&sealed).unwrap().is_empty());
            assert_eq!(opener.finish().err(), Some(CryptoError::Open));
        }
        assert!(StreamHeader::parse(&bytes[..52]).is_err());
        assert!(Header::parse(&[bytes.as_slice(), &[0; 99]].concat()).is_err(), "it is no message");
    }
}
