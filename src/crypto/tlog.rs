//! What a tile log publishes beside its hash tiles: entry bundles, paths and checkpoints.
//!
//! Source: c2sp.org/tlog-tiles, c2sp.org/tlog-checkpoint.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{VerifierKey, verify_note};
use super::{CryptoError, Hash, Result, TILE_WIDTH, TileId};

/// Most bytes in one entry: its length is 16 bits.
pub const ENTRY_BYTES: usize = 65_535;

/// Encodes up to 256 entries as a bundle: each behind its length, 2 bytes big endian.
///
/// # Errors
/// [`CryptoError::TooLong`] for an entry beyond [`ENTRY_BYTES`] or more than 256 entries.
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>> {
    if entries.len() > usize::from(TILE_WIDTH) {
        return Err(CryptoError::TooLong("the entry bundle"));
    }
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let len = u16::try_from(entry.len()).map_err(|_long| CryptoError::TooLong("the entry"))?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(entry);
    }
    Ok(out)
}

/// Reads the entries of a bundle.
///
/// # Errors
/// [`CryptoError::Malformed`] when an entry is cut off or there are more than 256.
pub fn decode_bundle(bundle: &[u8]) -> Result<Vec<&[u8]>> {
    let malformed = CryptoError::Malformed("entry bundle");
    let (mut entries, mut rest) = (Vec::new(), bundle);
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk().ok_or(malformed)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (entry, after) = after.split_at_checked(len).ok_or(malformed)?;
        if entries.len() == usize::from(TILE_WIDTH) {
            return Err(malformed);
        }
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

/// Where a tile is published, below the log's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TilePath {
    /// `tile/<level>/<index>[.p/<width>]`
    Hashes(TileId),
    /// `tile/entries/<index>[.p/<width>]`
    Entries {
        /// The index; the bundle holds the entries of the level 0 tile of that index.
        index: u64,
        /// Entries in the bundle, 1 to 256.
        width: u16,
    },
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match self {
            Self::Hashes(id) => {
                write!(f, "tile/{}/", id.level)?;
                (id.index, id.width)
            }
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                (*index, *width)
            }
        };
        write_index(f, index)?;
        if width < TILE_WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
    }
}

/// Writes 1234067 as `x001/x234/067`.
fn write_index(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    let mut groups = vec![index % 1_000];
    let mut rest = index / 1_000;
    while rest > 0 {
        groups.push(rest % 1_000);
        rest /= 1_000;
    }
    for (place, group) in groups.iter().enumerate().rev() {
        if place > 0 {
            write!(f, "x{group:03}/")?;
        } else {
            write!(f, "{group:03}")?;
        }
    }
    Ok(())
}

impl FromStr for TilePath {
    type Err = CryptoError;

    /// Reads the canonical form only.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = CryptoError::Malformed("tile path");
        let rest = text.strip_prefix("tile/").ok_or(malformed)?;
        let (kind, rest) = rest.split_once('/').ok_or(malformed)?;
        let (digits, width) = match rest.split_once(".p/") {
            Some((digits, width)) => (digits, width.parse().map_err(|_number| malformed)?),
            None => (rest, TILE_WIDTH),
        };
        let index = read_index(digits).ok_or(malformed)?;
        let path = if kind == "entries" {
            Self::Entries { index, width }
        } else {
            let level = kind.parse().map_err(|_number| malformed)?;
            Self::Hashes(TileId { level, index, width })
        };
        // Writing it again refuses leading zeroes, signs and a partial width of 256.
        let in_range = (1..=TILE_WIDTH).contains(&width)
            && matches!(path, Self::Entries { .. } | Self::Hashes(TileId { level: 0..=63, .. }));
        if in_range && path.to_string() == text { Ok(path) } else { Err(malformed) }
    }
}

/// Reads `x001/x234/067` as 1234067; the caller compares with the canonical form.
fn read_index(text: &str) -> Option<u64> {
    text.split('/').try_fold(0_u64, |index, group| {
        let group: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
        index.checked_mul(1_000)?.checked_add(group)
    })
}

/// A tree head: what a checkpoint's note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's identity, one line.
    pub origin: String,
    /// Leaves in the tree.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads a note's text; extension lines are accepted and mean nothing here.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`].
    pub fn parse(body: &str) -> Result<Self> {
        let malformed = CryptoError::Malformed("checkpoint");
        let mut lines = body.strip_suffix('\n').ok_or(malformed)?.split('\n');
        let (origin, size, root) =
            (lines.next(), lines.next().ok_or(malformed)?, lines.next().ok_or(malformed)?);
        let root = STANDARD.decode(root).map_err(|_base64| malformed)?;
        let checkpoint = Self {
            origin: origin.filter(|line| !line.is_empty()).ok_or(malformed)?.to_owned(),
            size: size.parse().map_err(|_number| malformed)?,
            root: root.try_into().map_err(|_length| malformed)?,
        };
        let canonical = checkpoint.size.to_string() == size;
        let extended = lines.any(str::is_empty);
        if canonical && !extended { Ok(checkpoint) } else { Err(malformed) }
    }

    /// Verifies a signed note under the log's key and reads what it says.
    ///
    /// # Errors
    /// As [`verify_note`] and [`Checkpoint::parse`]; [`CryptoError::Signature`] when the origin is
    /// not the key's name, because the key then speaks for another log.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self> {
        let checkpoint = Self::parse(verify_note(note, key)?)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(CryptoError::Signature) }
    }
}

/// Writes the text of a checkpoint, which is what the log's key signs.
///
/// # Errors
/// [`CryptoError::Malformed`] for an origin that is empty or holds a control character.
pub fn note_body(origin: &str, size: u64, root: &Hash) -> Result<String> {
    if origin.is_empty() || origin.chars().any(char::is_control) {
        return Err(CryptoError::Malformed("origin"));
    }
    Ok(format!("{origin}\n{size}\n{}\n", STANDARD.encode(root)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_come_back_and_their_bounds_hold() {
        let entries: Vec<Vec<u8>> = vec![vec![], vec![1], vec![2; ENTRY_BYTES]];
        let bundle = encode_bundle(&entries).unwrap();
        assert_eq!(bundle[..5], [0, 0, 0, 1, 1]);
        assert_eq!(decode_bundle(&bundle).unwrap(), entries);
        assert_eq!(decode_bundle(&[]).unwrap(), Vec::<&[u8]>::new());

        assert!(encode_bundle(&[vec![0; ENTRY_BYTES + 1]]).is_err());
        assert!(encode_bundle(&vec![b""; 256]).is_ok());
        assert!(encode_bundle(&vec![b""; 257]).is_err());
        assert!(decode_bundle(&[0; 2 * 256]).is_ok());
        assert!(decode_bundle(&[0; 2 * 257]).is_err());
        for cut in [&[0][..], &[0, 1], &[0, 0, 0], &[0, 2, 9]] {
            assert!(decode_bundle(cut).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn paths_are_those_of_the_specification_and_come_back() {
        let hashes = |level, index, width| TilePath::Hashes(TileId { level, index, width });
        for (path, text) in [
            (hashes(0, 0, 256), "tile/0/000"),
            (hashes(1, 1_234_067, 256), "tile/1/x001/x234/067"),
            (hashes(63, 999, 1), "tile/63/999.p/1"),
            (hashes(0, 1_000, 255), "tile/0/x001/000.p/255"),
            (TilePath::Entries { index: 1_234_067, width: 256 }, "tile/entries/x001/x234/067"),
            (TilePath::Entries { index: 0, width: 112 }, "tile/entries/000.p/112"),
            (hashes(0, u64::MAX, 256), "tile/0/x018/x446/x744/x073/x709/x551/615"),
        ] {
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path));
        }
    }

    #[test]
    fn paths_that_are_not_canonical_are_refused() {
        for bad in [
            "",
            "tile/",
            "tile/0/",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/+1/000",
            "tile/64/000",
            "tile/256/000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000/",
            "tile/data/000",
            "tile/entries/../000",
            "/tile/0/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert!(bad.parse::<TilePath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn checkpoints_come_back_and_malformed_ones_are_refused() {
        let body = note_body("example.com/log", 42, &[7; 32]).unwrap();
        let hash = STANDARD.encode([7; 32]);
        assert_eq!(body, format!("example.com/log\n42\n{hash}\n"));
        let read = Checkpoint::parse(&body).unwrap();
        assert_eq!((read.size, read.root), (42, [7; 32]));
        assert_eq!(Checkpoint::parse(&format!("{body}extension\n")), Ok(read));
        for bad in [
            String::new(),
            "o\n42\n".to_owned(),
            format!("\n42\n{hash}\n"),
            format!("o\n042\n{hash}\n"),
            format!("o\n+42\n{hash}\n"),
            format!("o\n-1\n{hash}\n"),
            format!("o\n18446744073709551616\n{hash}\n"),
            format!("o\n42\n{hash}"),
            format!("o\n42\n{hash}\n\n"),
            format!("o\n42\n{}\n", STANDARD.encode([7; 31])),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a\nb", "a\0"] {
            assert!(note_body(bad, 0, &[0; 32]).is_err(), "{bad:?}");
        }
    }
}
