//! The file of a backup: a header in the open, bound to everything behind it, and a stream of
//! segments under a key of its own. `docs/formats.md` has every byte.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::cli::{Exit, Failure, Outcome};
use crate::crypto::{self, Cipher, STREAM_HEADER_BYTES, StreamHeader, StreamOpener, StreamSealer};
use crate::error::{Error, Result};
use crate::keyring::BackupWrap;
use crate::store::backup::{Content, Summary};
use crate::types::{Entropy, Id, SecretBytes, UnixMillis, VaultId};

/// What a backup begins with.
const MAGIC: &[u8; 20] = b"strongroom backup 1\n";
/// Longest header, in bytes.
const MOST_HEADER_BYTES: u32 = 65_536;
/// What is read at a time, in bytes.
const CHUNK: usize = 65_536;

/// What a backup says of itself. Whoever changes a byte of it has a file that does not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// The backup.
    id: String,
    /// The vault.
    vault_id: String,
    /// What it holds.
    content: String,
    /// When it was made, in Unix milliseconds.
    pub(super) created_at_ms: i64,
    /// The program that made it.
    pub(super) program: String,
    /// The store's schema.
    pub(super) schema: i64,
    /// Entries in the log.
    pub(super) log_size: i64,
    /// The root over them, in lowercase hexadecimal.
    pub(super) log_root: String,
    /// The version of the root key that wraps the backup's key.
    root_version: i64,
    /// How it does.
    suite: i64,
    /// The wrap, in base64.
    wrap: String,
    /// The same for each recovery set.
    sets: Vec<SetWrap>,
}

/// The backup's key, sealed to a recovery set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetWrap {
    /// The set.
    set: String,
    /// The wrap, in base64.
    wrap: String,
}

/// What a header comes to once it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub(super) id: Id,
    pub(super) vault: VaultId,
    pub(super) content: Content,
    pub(super) wrap: BackupWrap,
}

impl Header {
    pub(super) fn new(about: &About, summary: &Summary, now: UnixMillis) -> Self {
        let About { id, vault, content, wrap } = about;
        Self {
            id: id.to_string(),
            vault_id: vault.to_string(),
            content: content.as_str().to_owned(),
            created_at_ms: now.0,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            schema: summary.schema,
            log_size: summary.log_size,
            log_root: crypto::hex(&summary.log_root),
            root_version: wrap.root_version,
            suite: wrap.suite,
            wrap: STANDARD.encode(&wrap.blob),
            sets: wrap
                .sets
                .iter()
                .map(|(set, blob)| SetWrap { set: set.to_string(), wrap: STANDARD.encode(blob) })
                .collect(),
        }
    }

    /// Reads what it says; none where it says what no vault wrote.
    pub(super) fn about(&self) -> Option<About> {
        let blob = STANDARD.decode(&self.wrap).ok()?;
        let content = Content::ALL.into_iter().find(|one| one.as_str() == self.content)?;
        let read = |one: &SetWrap| Some((one.set.parse().ok()?, STANDARD.decode(&one.wrap).ok()?));
        let sets = self.sets.iter().map(read).collect::<Option<Vec<_>>>()?;
        Some(About {
            id: self.id.parse().ok()?,
            vault: self.vault_id.parse().ok()?,
            content,
            wrap: BackupWrap { root_version: self.root_version, suite: self.suite, blob, sets },
        })
    }

    /// Tells whether a copy is what the header says of it.
    pub(super) fn describes(&self, copy: &Summary) -> bool {
        self.schema == copy.schema
            && self.log_size == copy.log_size
            && self.log_root == crypto::hex(&copy.log_root)
    }
}

/// Encrypts a copy into a backup.
///
/// # Errors
/// What writing answers, as a full disk; that randomness failed.
pub(super) fn write(
    header: &Header,
    about: &About,
    key: &SecretBytes,
    entropy: &dyn Entropy,
    (from, to): (&mut impl Read, &mut impl Write),
) -> Result<()> {
    let failed = |error: io::Error| Error::precondition(format!("the backup: {error}"));
    let text = serde_json::to_vec(header).map_err(Error::internal)?;
    let len = u32::try_from(text.len()).map_err(Error::internal)?;
    let of = crypto::Header { cipher: Cipher::Aes256Gcm, key: about.id, version: 1 };
    let stream = StreamHeader::new(of, entropy)?;
    let mut sealer = StreamSealer::new(about.vault, &stream, key, &text)?;
    for part in [MAGIC.as_slice(), &len.to_be_bytes(), &text, &stream.encode()] {
        to.write_all(part).map_err(failed)?;
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            break;
        }
        for segment in sealer.push(chunk.get(..count).unwrap_or_default())? {
            to.write_all(&segment).map_err(failed)?;
        }
    }
    to.write_all(&sealer.finish()?).map_err(failed)
}

/// A backup whose header is read.
#[derive(Debug)]
pub(super) struct Opened<R> {
    pub(super) header: Header,
    pub(super) about: About,
    text: Vec<u8>,
    rest: R,
}

/// Reads the header of a backup. Nothing of it is believed before the stream behind it opens.
pub(super) fn open<R: Read>(mut from: R) -> Outcome<Opened<R>> {
    let mut magic = [0; MAGIC.len()];
    let mut len = [0; 4];
    exact(&mut from, &mut magic)?;
    if &magic != MAGIC {
        return Err(damaged("it is no backup of this program, or of a newer one"));
    }
    exact(&mut from, &mut len)?;
    let len = u32::from_be_bytes(len);
    if len > MOST_HEADER_BYTES {
        return Err(damaged("its header is longer than one can be"));
    }
    let mut text = vec![0; usize::try_from(len).unwrap_or_default()];
    exact(&mut from, &mut text)?;
    let header: Option<Header> = serde_json::from_slice(&text).ok();
    let read = header.and_then(|header| header.about().map(|about| (header, about)));
    let (header, about) = read.ok_or_else(|| damaged("its header is none"))?;
    Ok(Opened { header, about, text, rest: from })
}

impl<R: Read> Opened<R> {
    /// Decrypts the rest.
    pub(super) fn decrypt(mut self, key: &SecretBytes, to: &mut impl Write) -> Outcome {
        let wrong = |_: crypto::CryptoError| {
            damaged("it is cut off, or a byte of it is not what was written")
        };
        let failed = |error: io::Error| Failure::new(Exit::Unexpected, error.to_string());
        let mut head = [0; STREAM_HEADER_BYTES];
        exact(&mut self.rest, &mut head)?;
        let stream = StreamHeader::parse(&head).map_err(wrong)?;
        let mut opener =
            StreamOpener::new(self.about.vault, &stream, key, &self.text).map_err(wrong)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.rest.read(&mut chunk).map_err(failed)?;
            if count == 0 {
                break;
            }
            for segment in opener.push(chunk.get(..count).unwrap_or_default()).map_err(wrong)? {
                to.write_all(segment.expose()).map_err(failed)?;
            }
        }
        to.write_all(opener.finish().map_err(wrong)?.expose()).map_err(failed)
    }
}

fn exact(from: &mut impl Read, buffer: &mut [u8]) -> Outcome {
    from.read_exact(buffer).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return damaged("it is cut off");
        }
        Failure::new(Exit::Unexpected, error.to_string())
    })
}

/// Says that a backup is none.
pub(super) fn damaged(why: &str) -> Failure {
    Failure::new(Exit::Unverified, format!("the backup is not in order: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemEntropy;

    fn backup(content: &[u8]) -> (SecretBytes, Vec<u8>) {
        let about = About {
            id: Id::from_bytes([3; 16]),
            vault: VaultId(Id::from_bytes([1; 16])),
            content: Content::Whole,
            wrap: BackupWrap {
                root_version: 1,
                suite: 1,
                blob: vec![9; 104],
                sets: vec![(Id::from_bytes([4; 16]), vec![8; 80])],
            },
        };
        let summary = Summary { schema: 8, log_size: 5, log_root: vec![7; 32] };
        let header = Header::new(&about, &summary, UnixMillis(1));
        assert_eq!(header.about(), Some(about.clone()));
        assert!(header.describes(&summary));
        let (key, mut out) = (SecretBytes::new(vec![5; 32]), Vec::new());
        write(&header, &about, &key, &SystemEntropy, (&mut &*content, &mut out)).unwrap();
        (key, out)
    }

    fn read(key: &SecretBytes, bytes: &[u8]) -> Outcome<Vec<u8>> {
        let mut out = Vec::new();
        open(bytes)?.decrypt(key, &mut out)?;
        Ok(out)
    }

    /// A disk with room for so much.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fills_up_fails_the_backup_wherever_it_does() {
        let store = vec![7; 3 * CHUNK];
        let (_, bytes) = backup(&store);
        let opened = open(bytes.as_slice()).unwrap();
        let (header, about) = (opened.header, opened.about);
        for room in [0, 30, 700, bytes.len() / 2, bytes.len() - 1] {
            let (mut from, mut disk) = (store.as_slice(), Disk(room));
            let key = SecretBytes::new(vec![5; 32]);
            let made = write(&header, &about, &key, &SystemEntropy, (&mut from, &mut disk));
            assert_eq!(made.unwrap_err().reason(), "PRECONDITION", "{room}");
        }
    }

    #[test]
    fn a_backup_opens_whole_and_with_no_bit_changed_or_no_byte_less() {
        for len in [0, 1, CHUNK, 3 * CHUNK + 17] {
            let content: Vec<_> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let (key, bytes) = backup(&content);
            assert_eq!(read(&key, &bytes).unwrap(), content);
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 97) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                let refused = read(&key, &flipped).unwrap_err();
                assert_eq!(refused.exit, Exit::Unverified, "byte {at} of {}", bytes.len());
                assert!(read(&key, &bytes[..at]).is_err(), "cut at {at}");
            }
            assert!(read(&SecretBytes::new(vec![6; 32]), &bytes).is_err());
        }
    }
}
