//! A key as its backup holds it: what is sealed, and the bytes around it (`docs/formats.md`).
//!
//! Sealed under its owner's key, so that shredding the owner shreds every backup as well; bound to the
//! vault, the key and its newest version.

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder, decode, encode};

use crate::error::{Error, Result};
use crate::keyring::Place;
use crate::store::named_keys::NamedKeyRow;
use crate::types::{
    Id, IdentityId, KeyAlgorithm, KeyName, KeyOrigin, ObjectId, SecretBytes, UnixMillis,
};

/// First byte of a backup.
const FORMAT: u8 = 0x20;
/// Bytes before what is sealed: format, key, owner, the owner's key, newest version.
const HEAD_BYTES: usize = 1 + 16 + 16 + 16 + 8;

/// Where what is sealed belongs.
pub(super) const fn place(key: ObjectId, newest: i64) -> Place {
    Place {
        table: "named_key_backups",
        column: "key",
        row: key.0,
        object: key.0,
        object_version: newest,
    }
}

/// What stands before what is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) key: ObjectId,
    pub(super) owner: IdentityId,
    /// The owner's key that it is sealed under.
    pub(super) wrap_key: Id,
    pub(super) newest: i64,
}

impl Head {
    /// Joins it with what is sealed.
    pub(super) fn join(&self, sealed: &[u8]) -> Vec<u8> {
        [
            [FORMAT].as_slice(),
            self.key.0.as_bytes(),
            self.owner.0.as_bytes(),
            self.wrap_key.as_bytes(),
            &self.newest.to_be_bytes(),
            sealed,
        ]
        .concat()
    }

    /// Parts a backup; none for what is not one.
    pub(super) fn part(backup: &[u8]) -> Option<(Self, &[u8])> {
        let (head, sealed) = backup.split_first_chunk::<HEAD_BYTES>()?;
        let (format, rest) = head.split_first()?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (owner, rest) = rest.split_first_chunk::<16>()?;
        let (wrap_key, rest) = rest.split_first_chunk::<16>()?;
        let newest = i64::from_be_bytes(*rest.first_chunk::<8>()?);
        let head = Self {
            key: ObjectId(Id::from_bytes(*key)),
            owner: IdentityId(Id::from_bytes(*owner)),
            wrap_key: Id::from_bytes(*wrap_key),
            newest,
        };
        (*format == FORMAT).then_some((head, sealed))
    }
}

/// A version as a backup holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) number: i64,
    pub(super) material: SecretBytes,
    pub(super) public_key: Option<Vec<u8>>,
    pub(super) origin: KeyOrigin,
}

/// A key as a backup holds it: whatever makes it what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyCopy {
    pub(super) name: KeyName,
    pub(super) algorithm: KeyAlgorithm,
    pub(super) origin: KeyOrigin,
    pub(super) min_version: i64,
    pub(super) rotate_every_s: Option<i64>,
    pub(super) labels: String,
    pub(super) created_at: UnixMillis,
    pub(super) created_by: String,
    pub(super) versions: Vec<Version>,
}

impl KeyCopy {
    /// Copies a key.
    pub(super) fn of(row: &NamedKeyRow, versions: Vec<Version>) -> Self {
        Self {
            name: row.name.clone(),
            algorithm: row.algorithm,
            origin: row.origin,
            min_version: row.min_version,
            rotate_every_s: row.rotate_every_s,
            labels: row.labels.clone(),
            created_at: row.created_at,
            created_by: row.created_by.clone(),
            versions,
        }
    }

    /// Encodes it, as CBOR.
    pub(super) fn encode(&self) -> Result<SecretBytes> {
        let long = |version: &Version| {
            let public = version.public_key.as_ref().map_or(0, Vec::len);
            version.material.len_bytes().saturating_add(public).saturating_add(64)
        };
        let versions = self.versions.iter().map(long).fold(0_usize, usize::saturating_add);
        // Grown, it would leave keys behind where it was.
        let room = versions.saturating_add(self.labels.len()).saturating_add(2_048);
        let mut encoder = Encoder::new(Vec::with_capacity(room));
        self.write(&mut encoder).map_err(Error::internal)?;
        Ok(SecretBytes::new(encoder.into_writer()))
    }

    fn write(&self, out: &mut Encoder<Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        out.array(9)?.str(self.name.as_str())?.str(self.algorithm.as_str())?;
        out.str(self.origin.as_str())?.i64(self.min_version)?;
        match self.rotate_every_s {
            Some(every) => out.i64(every)?,
            None => out.null()?,
        };
        out.str(&self.labels)?.i64(self.created_at.0)?.str(&self.created_by)?;
        out.array(u64::try_from(self.versions.len()).unwrap_or(u64::MAX))?;
        for version in &self.versions {
            out.array(4)?.i64(version.number)?.bytes(version.material.expose())?;
            match &version.public_key {
                Some(public) => out.bytes(public)?,
                None => out.null()?,
            };
            out.str(version.origin.as_str())?;
        }
        Ok(())
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`Error::Internal`]: what was sealed is what was encoded.
    pub(super) fn decode(bytes: &SecretBytes) -> Result<Self> {
        Self::read(&mut Decoder::new(bytes.expose())).map_err(Error::internal)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        array(from, 9)?;
        let (name, algorithm, origin) = (word(from)?, word(from)?, word(from)?);
        let min_version = from.i64()?;
        let rotate_every_s = from.decode::<Option<i64>>()?;
        let labels = from.str()?.to_owned();
        let (created_at, created_by) = (UnixMillis(from.i64()?), from.str()?.to_owned());
        let count = from.array()?.ok_or_else(|| decode::Error::message("an open list"))?;
        let mut versions = Vec::new();
        for _ in 0..count {
            array(from, 4)?;
            let number = from.i64()?;
            let material = SecretBytes::new(from.bytes()?.to_vec());
            let public_key = if from.datatype()? == Type::Null {
                from.null()?;
                None
            } else {
                Some(from.bytes()?.to_vec())
            };
            versions.push(Version { number, material, public_key, origin: word(from)? });
        }
        Ok(Self {
            name,
            algorithm,
            origin,
            min_version,
            rotate_every_s,
            labels,
            created_at,
            created_by,
            versions,
        })
    }
}

fn array(from: &mut Decoder<'_>, parts: u64) -> Result<(), decode::Error> {
    match from.array()? {
        Some(found) if found == parts => Ok(()),
        Some(_) | None => Err(decode::Error::message("another number of parts")),
    }
}

fn word<T: std::str::FromStr>(from: &mut Decoder<'_>) -> Result<T, decode::Error> {
    from.str()?.parse().map_err(|_malformed| decode::Error::message("another word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_holds_all_that_a_key_is() {
        let version = |number, public_key| Version {
            number,
            material: SecretBytes::new(vec![7; 32]),
            public_key,
            origin: KeyOrigin::Imported,
        };
        let mut copy = KeyCopy {
            name: "team/a".parse().unwrap(),
            algorithm: KeyAlgorithm::Ed25519,
            origin: KeyOrigin::Made,
            min_version: 2,
            rotate_every_s: Some(3_600),
            labels: r#"{"a":"b"}"#.to_owned(),
            created_at: UnixMillis(5),
            created_by: "somebody".to_owned(),
            versions: vec![version(2, None), version(4, Some(vec![3; 44]))],
        };
        assert_eq!(KeyCopy::decode(&copy.encode().unwrap()).unwrap(), copy);
        copy.rotate_every_s = None;
        copy.versions.clear();
        let bytes = copy.encode().unwrap();
        assert_eq!(KeyCopy::decode(&bytes).unwrap(), copy);
        let cut = SecretBytes::new(bytes.expose()[1..].to_vec());
        assert!(KeyCopy::decode(&cut).is_err());
    }

    #[test]
    fn what_is_no_backup_has_no_head() {
        let id = Id::from_bytes;
        let head = Head {
            key: ObjectId(id([1; 16])),
            owner: IdentityId(id([2; 16])),
            wrap_key: id([3; 16]),
            newest: 9,
        };
        let joined = head.join(b"sealed");
        assert_eq!(Head::part(&joined), Some((head, &b"sealed"[..])));
        assert_eq!(Head::part(&joined[..HEAD_BYTES - 1]), None);
        let mut other = joined;
        other[0] ^= 1;
        assert_eq!(Head::part(&other), None);
        assert_eq!(Head::part(b""), None);
    }
}
