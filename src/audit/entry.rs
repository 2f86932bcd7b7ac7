//! One entry: what happened, as deterministic CBOR (RFC 8949, section 4.2.1).
//!
//! A map with small integer keys in ascending order. Identities and resources appear as ids.
//! Names, addresses and reasons appear as HMAC-SHA-256 under a fresh salt of 128 bits; the value
//! and its salt stand in the batch's side, so that erasing them leaves the log whole. Secrets never
//! appear, not even hashed.

use std::borrow::Cow;
use std::convert::Infallible;

use minicbor::encode::Write;
use minicbor::{Decoder, Encoder};

use super::draft::Draft;
use super::factors::{self, FactorFact, ReadFactor};
use crate::crypto::hmac_sha256;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::{Change, Entry};
use crate::types::{CredentialId, Entropy, Id, IdentityId, RequestId, UnixMillis};

/// Bytes of a salt.
pub(super) const SALT_BYTES: usize = 16;

/// What an entry says that is known before the operation runs.
#[derive(Debug, Clone)]
pub struct EntryFacts<'a> {
    /// When the request was decided.
    pub at: UnixMillis,
    /// The request.
    pub request: RequestId,
    /// Who asked.
    pub caller: CallerFact,
    /// What was asked for.
    pub action: &'a str,
    /// On what.
    pub resources: Vec<ResourceFact<'a>>,
    /// What was decided, and by which grant or rule.
    pub decision: DecisionFact<'a>,
    /// The factors that the caller's credential had proven.
    pub factors: Vec<FactorFact>,
    /// What may have to be erased.
    pub private: Vec<(Field, Cow<'a, str>)>,
}

/// What an entry says of how the operation came out.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// `OK`, or the reason of the error.
    pub outcome: &'a str,
    /// Keys used.
    pub keys: &'a [KeyUse],
    /// How long it took up to the commit, in microseconds.
    pub duration_us: u64,
    /// Sealed rows changed.
    pub changes: &'a [Change],
    /// The credential that was issued, renewed or ended.
    pub credential: Option<CredentialId>,
}

impl<'a> Ending<'a> {
    /// An ending of which nothing is to be said but its outcome.
    #[must_use]
    pub const fn plain(outcome: &'a str) -> Self {
        Self { outcome, keys: &[], duration_us: 0, changes: &[], credential: None }
    }
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerFact {
    /// An identity, by a credential.
    Identity {
        /// The identity.
        identity: IdentityId,
        /// Its credential.
        credential: CredentialId,
        /// How it was proved.
        method: &'static str,
    },
    /// The vault itself, by the worker's name.
    System(&'static str),
}

/// A thing that was touched: its noun, and its id where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceFact<'a> {
    /// The noun.
    pub noun: Cow<'a, str>,
    /// The id of its row; none for what has none or does not exist.
    pub id: Option<Id>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionFact<'a> {
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why.
    pub reason: &'a str,
    /// The grant's id or the rule's name.
    pub by: Cow<'a, str>,
}

/// What a private value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The caller's name.
    Identity,
    /// A resource's full name.
    Resource,
    /// Where the request came from.
    Source,
    /// A reason that a person gave.
    Reason,
    /// What went wrong, or what exactly was changed.
    Detail,
}

impl Field {
    const ALL: [Self; 5] =
        [Self::Identity, Self::Resource, Self::Source, Self::Reason, Self::Detail];

    /// Names the field as the format does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Resource => "resource",
            Self::Source => "source",
            Self::Reason => "reason",
            Self::Detail => "detail",
        }
    }

    /// Finds the field by its name in the format.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == text)
    }
}

/// A private value as the batch's side holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideValue {
    /// What it is.
    pub field: Field,
    /// The salt of its commitment.
    pub salt: [u8; SALT_BYTES],
    /// The value.
    pub value: String,
}

impl SideValue {
    /// Computes the commitment that the entry holds.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        commitment(&self.salt, self.field, &self.value)
    }
}

pub(super) fn commitment(salt: &[u8], field: Field, value: &str) -> [u8; 32] {
    hmac_sha256(salt, &[field.as_str().as_bytes(), &[0], value.as_bytes()])
}

impl EntryFacts<'_> {
    /// Encodes what is known, and what stands beside it.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is larger than an entry may be, or randomness fails.
    pub fn draft(&self, entropy: &dyn Entropy) -> Result<Draft> {
        let mut head = Encoder::new(Vec::with_capacity(192));
        let mut tail = Encoder::new(Vec::new());
        self.write(&mut head)
            .and_then(|()| factors::write(&mut tail, &self.factors))
            .map_err(Error::internal)?;
        let mut draft = Draft::new(head.into_writer(), tail.into_writer());
        draft.add(&self.private, entropy)?;
        Ok(draft)
    }

    /// Encodes the whole entry.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is larger than an entry may be, or randomness fails.
    pub fn encode(&self, ending: &Ending<'_>, entropy: &dyn Entropy) -> Result<Entry> {
        self.draft(entropy)?.end(ending)
    }

    fn write(&self, e: &mut Encoder<Vec<u8>>) -> Written {
        factors::write_format(e, &self.factors)?;
        e.u8(1)?.i64(self.at.0)?;
        e.u8(2)?.bytes(self.request.0.as_bytes())?;
        e.u8(3)?;
        match self.caller {
            CallerFact::Identity { identity, credential, method } => e
                .array(3)?
                .bytes(identity.0.as_bytes())?
                .bytes(credential.0.as_bytes())?
                .str(method)?,
            CallerFact::System(worker) => e.array(1)?.str(worker)?,
        };
        e.u8(4)?.str(self.action)?;
        e.u8(5)?.array(count(&self.resources))?;
        for resource in &self.resources {
            e.array(2)?.str(&resource.noun)?;
            match &resource.id {
                Some(id) => e.bytes(id.as_bytes())?,
                None => e.null()?,
            };
        }
        let decision = &self.decision;
        e.u8(6)?.array(3)?.bool(decision.allowed)?.str(decision.reason)?.str(&decision.by)?;
        Ok(())
    }
}

impl Ending<'_> {
    pub(super) fn write(&self, e: &mut Encoder<Vec<u8>>) -> Written {
        e.u8(7)?.str(self.outcome)?;
        e.u8(8)?.array(count(self.keys))?;
        for used in self.keys {
            e.array(3)?.str(&used.key)?.i64(used.version)?.str(used.purpose)?;
        }
        e.u8(9)?.u64(self.duration_us)?;
        e.u8(10)?.array(count(self.changes))?;
        for change in self.changes {
            e.array(4)?.str(change.table)?.str(&change.key)?;
            e.i64(change.version)?.bytes(&change.hash)?;
        }
        e.u8(11)?;
        match self.credential {
            Some(credential) => e.bytes(credential.0.as_bytes())?,
            None => e.null()?,
        };
        Ok(())
    }
}

pub(super) type Written = std::result::Result<(), minicbor::encode::Error<Infallible>>;

pub(super) fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// Writes what stands beside one entry.
pub(super) fn write_side(e: &mut Encoder<Vec<u8>>, values: &[SideValue]) -> Written {
    e.array(count(values))?;
    for SideValue { field, salt, value } in values {
        write_side_value(e, *field, salt, value)?;
    }
    Ok(())
}

pub(super) fn write_side_value<W: Write<Error = Infallible>>(
    e: &mut Encoder<W>,
    field: Field,
    salt: &[u8],
    value: &str,
) -> Written {
    e.array(3)?.str(field.as_str())?.bytes(salt)?.str(value)?;
    Ok(())
}

/// Reads what stands beside one entry.
pub(super) fn read_side(d: &mut Decoder<'_>) -> Result<Vec<SideValue>, minicbor::decode::Error> {
    let mut values = Vec::new();
    for _ in 0..d.array()?.unwrap_or(0) {
        d.array()?;
        let field = Field::parse(d.str()?)
            .ok_or_else(|| minicbor::decode::Error::message("unknown field"))?;
        let salt = d
            .bytes()?
            .try_into()
            .map_err(|_length| minicbor::decode::Error::message("salt length"))?;
        values.push(SideValue { field, salt, value: d.str()?.to_owned() });
    }
    Ok(values)
}

/// An entry read back, for people and for questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEntry {
    /// When the request was decided.
    pub at: UnixMillis,
    /// The request.
    pub request: RequestId,
    /// Who asked; none when the vault itself did.
    pub identity: Option<IdentityId>,
    /// The credential that proved it.
    pub caller_credential: Option<CredentialId>,
    /// How it was proved, or the worker's name.
    pub method: String,
    /// What was asked for.
    pub action: String,
    /// On what: noun and id.
    pub resources: Vec<ResourceFact<'static>>,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// By which grant or rule.
    pub by: String,
    /// `OK`, or the reason of the error.
    pub outcome: String,
    /// Keys used: key, version, purpose.
    pub keys: Vec<(String, i64, String)>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Rows changed: table, key, version, hash.
    pub changes: Vec<(String, String, i64, Vec<u8>)>,
    /// The credential that was issued, renewed or ended.
    pub credential: Option<CredentialId>,
    /// Commitments: field and HMAC.
    pub commitments: Vec<(String, Vec<u8>)>,
    /// The factors that the caller's credential had proven.
    pub factors: Vec<ReadFactor>,
}

impl ReadEntry {
    /// Decodes a leaf.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not an entry of this format.
    pub fn decode(leaf: &[u8]) -> Result<Self> {
        read(leaf).map_err(|_malformed| Error::invalid("not an entry of the record"))
    }
}

/// Reads the next key of the map, which has one order only.
pub(super) fn key(d: &mut Decoder<'_>, want: u8) -> Read<()> {
    if d.u8()? == want { Ok(()) } else { Err(minicbor::decode::Error::message("key")) }
}

/// Refuses whatever follows the map.
fn end(d: &Decoder<'_>, leaf: &[u8]) -> Read<()> {
    if d.position() == leaf.len() { Ok(()) } else { Err(minicbor::decode::Error::message("end")) }
}

pub(super) type Read<T> = std::result::Result<T, minicbor::decode::Error>;

fn read(leaf: &[u8]) -> Read<ReadEntry> {
    let mut d = Decoder::new(leaf);
    let format = factors::read_format(&mut d)?;
    key(&mut d, 1)?;
    let at = UnixMillis(d.i64()?);
    key(&mut d, 2)?;
    let request = RequestId(id(&mut d)?);
    key(&mut d, 3)?;
    let (identity, caller_credential) = match d.array()? {
        Some(3) => (Some(IdentityId(id(&mut d)?)), Some(CredentialId(id(&mut d)?))),
        Some(_) | None => (None, None),
    };
    let method = d.str()?.to_owned();
    key(&mut d, 4)?;
    let action = d.str()?.to_owned();
    key(&mut d, 5)?;
    let resources = list(&mut d, |d| {
        d.array()?;
        Ok(ResourceFact { noun: d.str()?.to_owned().into(), id: optional_id(d)? })
    })?;
    key(&mut d, 6)?;
    d.array()?;
    let (allowed, reason, by) = (d.bool()?, d.str()?.to_owned(), d.str()?.to_owned());
    key(&mut d, 7)?;
    let outcome = d.str()?.to_owned();
    key(&mut d, 8)?;
    let keys = list(&mut d, |d| {
        d.array()?;
        Ok((d.str()?.to_owned(), d.i64()?, d.str()?.to_owned()))
    })?;
    key(&mut d, 9)?;
    let duration_us = d.u64()?;
    key(&mut d, 10)?;
    let changes = list(&mut d, |d| {
        d.array()?;
        Ok((d.str()?.to_owned(), d.str()?.to_owned(), d.i64()?, d.bytes()?.to_vec()))
    })?;
    key(&mut d, 11)?;
    let credential = optional_id(&mut d)?.map(CredentialId);
    key(&mut d, 12)?;
    let commitments = list(&mut d, |d| {
        d.array()?;
        Ok((d.str()?.to_owned(), d.bytes()?.to_vec()))
    })?;
    let factors = factors::read(&mut d, format)?;
    end(&d, leaf)?;
    Ok(ReadEntry {
        at,
        request,
        identity,
        caller_credential,
        method,
        action,
        resources,
        allowed,
        reason,
        by,
        outcome,
        keys,
        duration_us,
        changes,
        credential,
        commitments,
        factors,
    })
}

pub(super) fn list<T>(
    d: &mut Decoder<'_>,
    mut item: impl FnMut(&mut Decoder<'_>) -> Read<T>,
) -> Read<Vec<T>> {
    (0..d.array()?.unwrap_or(0)).map(|_| item(d)).collect()
}

pub(super) fn id(d: &mut Decoder<'_>) -> Read<Id> {
    let bytes = d.bytes()?.try_into();
    bytes.map(Id::from_bytes).map_err(|_length| minicbor::decode::Error::message("id"))
}

fn optional_id(d: &mut Decoder<'_>) -> Read<Option<Id>> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    id(d).map(Some)
}
