//! Parts of the log as they are published: entry bundles with what stands beside them, and tiles.
//!
//! What was removed or made unreadable is served as nothing in its place, never shifted together,
//! so that whoever verifies can name it.

use minicbor::{Decoder, Encoder};

use super::entry::{SideValue, read_side, write_side};
use super::questions::entries_of;
use crate::crypto::{HASH_BYTES, TILE_WIDTH, TileId, TilePath, encode_bundle};
use crate::error::{Error, Result};
use crate::store::{Tx, records};

/// A part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The bytes of the tile or bundle.
    pub data: Vec<u8>,
    /// For a bundle, what stands beside its entries: an array of an array for each, or null where
    /// that cannot be read. Empty for a tile.
    pub side: Vec<u8>,
}

/// Reads a tile or an entry bundle; nothing where the tree does not reach, or where it is missing.
///
/// # Errors
/// What the store answers.
pub async fn part(tx: &mut Tx, path: TilePath) -> Result<Option<Part>> {
    let size = u64::try_from(records::head(tx).await?.size).unwrap_or(0);
    match path {
        TilePath::Hashes(id) if reaches(id, size) => {
            let index = i64::try_from(id.index).map_err(Error::internal)?;
            let Some(mut data) = records::tile(tx, i64::from(id.level), index).await? else {
                return Ok(None);
            };
            data.truncate(usize::from(id.width).saturating_mul(HASH_BYTES));
            Ok(Some(Part { data, side: Vec::new() }))
        }
        TilePath::Entries { index, width } if reaches(TileId { level: 0, index, width }, size) => {
            let first = index.saturating_mul(u64::from(TILE_WIDTH));
            let first = i64::try_from(first).map_err(Error::internal)?;
            bundle(tx, first, width).await.map(Some)
        }
        TilePath::Hashes(_) | TilePath::Entries { .. } => Ok(None),
    }
}

/// Tells whether a tree of this size has all the hashes of a tile.
fn reaches(id: TileId, size: u64) -> bool {
    let hashes = size.checked_shr(8 * u32::from(id.level)).unwrap_or(0);
    let end = id.index.checked_mul(u64::from(TILE_WIDTH));
    end.and_then(|first| first.checked_add(u64::from(id.width))).is_some_and(|end| end <= hashes)
}

async fn bundle(tx: &mut Tx, first: i64, width: u16) -> Result<Part> {
    let to = first.saturating_add(i64::from(width));
    let mut stored = entries_of(tx, first, to).await?.into_iter().peekable();
    let mut leaves = Vec::with_capacity(usize::from(width));
    let mut sides = Vec::with_capacity(usize::from(width));
    for index in first..to {
        let found = stored.next_if(|entry| entry.index == index);
        let (leaf, side) = found.map_or((Vec::new(), None), |entry| (entry.leaf, entry.side));
        leaves.push(leaf);
        sides.push(side);
    }
    Ok(Part { data: encode_bundle(&leaves)?, side: encode_sides(&sides).map_err(Error::internal)? })
}

type Encoded = Result<Vec<u8>, minicbor::encode::Error<std::convert::Infallible>>;

fn encode_sides(sides: &[Option<Vec<SideValue>>]) -> Encoded {
    let mut out = Encoder::new(Vec::with_capacity(sides.len().saturating_mul(128)));
    out.array(u64::try_from(sides.len()).unwrap_or(u64::MAX))?;
    for side in sides {
        match side {
            Some(side) => write_side(&mut out, side)?,
            None => drop(out.null()?),
        }
    }
    Ok(out.into_writer())
}

/// Reads what stands beside a bundle's entries; none for an entry where it cannot be read.
///
/// # Errors
/// [`Error::Invalid`] for what no vault serves.
pub fn decode_sides(bytes: &[u8]) -> Result<Vec<Option<Vec<SideValue>>>> {
    let mut d = Decoder::new(bytes);
    let mut read = || -> Result<_, minicbor::decode::Error> {
        let entries = d.array()?.unwrap_or(0);
        let mut sides = Vec::new();
        for _ in 0..entries {
            if d.datatype()? == minicbor::data::Type::Null {
                d.null()?;
                sides.push(None);
            } else {
                sides.push(Some(read_side(&mut d)?));
            }
        }
        Ok(sides)
    };
    read().map_err(|_malformed| Error::invalid("not what stands beside the entries of a bundle"))
}

#[cfg(test)]
mod tests {
    use super::super::Field;
    use super::*;

    #[test]
    fn a_tile_is_reached_only_with_all_its_hashes() {
        for (level, index, width, size, within) in [
            (0, 0, 1, 1, true),
            (0, 0, 2, 1, false),
            (0, 0, 256, 255, false),
            (0, 0, 256, 256, true),
            (0, 1, 1, 256, false),
            (1, 0, 1, 255, false),
            (1, 0, 1, 256, true),
            (1, 0, 2, 511, false),
            (63, 0, 1, u64::MAX, false),
            (0, u64::MAX, 256, u64::MAX, false),
        ] {
            let id = TileId { level, index, width };
            assert_eq!(reaches(id, size), within, "{id:?} in {size}");
        }
    }

    #[test]
    fn what_stands_beside_entries_is_read_as_it_was_written() {
        let value = SideValue { field: Field::Reason, salt: [3; 16], value: "why\n".into() };
        let sides = vec![Some(vec![value]), None, Some(Vec::new())];
        let bytes = encode_sides(&sides).unwrap();
        assert_eq!(decode_sides(&bytes), Ok(sides));
        for end in 0..bytes.len() {
            assert!(decode_sides(&bytes[..end]).is_err(), "{end}");
        }
    }
}
