//! The factors that a caller's credential had proven, as an entry of format 2 says them after all
//! that format 1 says. An entry of a caller who proved none stays of format 1.

use minicbor::{Decoder, Encoder};

use super::entry::{Read, Written, count, id, key, list};
use crate::types::{FactorId, UnixMillis};

/// Key of the pair that format 2 has beyond format 1.
const KEY: u8 = 13;

/// The format of an entry: its version, and the pairs of its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryFormat {
    /// Without factors.
    One,
    /// With factors.
    Two,
}

/// A factor that was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactorFact {
    /// Which.
    pub factor: FactorId,
    /// By what it proves.
    pub kind: &'static str,
    /// When it was proven last.
    pub at: UnixMillis,
}

/// A factor read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFactor {
    /// Which.
    pub factor: FactorId,
    /// By what it proves.
    pub kind: String,
    /// When it was proven last.
    pub at: UnixMillis,
}

/// Begins an entry.
pub(super) fn write_format(e: &mut Encoder<Vec<u8>>, factors: &[FactorFact]) -> Written {
    let (pairs, version) = if factors.is_empty() { (13, 1) } else { (14, 2) };
    e.map(pairs)?.u8(0)?.u8(version)?;
    Ok(())
}

/// Ends an entry.
pub(super) fn write(e: &mut Encoder<Vec<u8>>, factors: &[FactorFact]) -> Written {
    if factors.is_empty() {
        return Ok(());
    }
    e.u8(KEY)?.array(count(factors))?;
    for FactorFact { factor, kind, at } in factors {
        e.array(3)?.bytes(factor.0.as_bytes())?.str(kind)?.i64(at.0)?;
    }
    Ok(())
}

pub(super) fn read_format(d: &mut Decoder<'_>) -> Read<EntryFormat> {
    let pairs = d.map()?;
    key(d, 0)?;
    match (d.u8()?, pairs) {
        (1, Some(13)) => Ok(EntryFormat::One),
        (2, Some(14)) => Ok(EntryFormat::Two),
        (_, _) => Err(minicbor::decode::Error::message("format")),
    }
}

pub(super) fn read(d: &mut Decoder<'_>, format: EntryFormat) -> Read<Vec<ReadFactor>> {
    match format {
        EntryFormat::One => return Ok(Vec::new()),
        EntryFormat::Two => key(d, KEY)?,
    }
    list(d, |d| {
        d.array()?;
        Ok(ReadFactor {
            factor: FactorId(id(d)?),
            kind: d.str()?.to_owned(),
            at: UnixMillis(d.i64()?),
        })
    })
}
