//! Reads the log back: single entries, and pages of those that fit a question.

use std::collections::BTreeMap;

use super::batch::{cut_readable, read_sides};
use super::entry::{Field, ReadEntry, SideValue};
use super::filter::{Bloom, Key, entries_in};
use super::names::{Named, Names};
use super::{RecordCodec, head};
use crate::error::Result;
use crate::store::records;
use crate::store::{StoreError, Tx};
use crate::types::{Id, IdentityId, ResourcePattern, UnixMillis};

/// Entries in a bundle.
const WIDTH: i64 = 256;
/// Filters looked at in one call: bounds the work of a question that fits nothing.
const FILTERS: i64 = 4_096;
/// Bundles opened in one call.
const BUNDLES: usize = 64;

/// An entry with its place in the log and what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: i64,
    /// The bytes of the leaf.
    pub leaf: Vec<u8>,
    /// Its private values, as far as they were not erased; none when they cannot be read.
    pub side: Option<Vec<SideValue>>,
}

/// How an operation ended, as a question asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Exactly so: `OK`, or the reason of the error.
    As(String),
    /// Refused or failed: anything but `OK`, `INTENT` and `BEGUN`.
    Refused,
}

/// What a question asks for; everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose doing.
    pub identity: Option<IdentityId>,
    /// The vault's own doing, by the name of its worker.
    pub worker: Option<String>,
    /// The action.
    pub action: Option<String>,
    /// The outcome.
    pub outcome: Option<Ended>,
    /// The name of a resource; one that was erased fits nothing.
    pub resource: Option<ResourcePattern>,
    /// A resource or credential, by id.
    pub object: Option<Id>,
    /// Not before.
    pub from: Option<UnixMillis>,
    /// Not after.
    pub to: Option<UnixMillis>,
}

impl Filter {
    /// Tells whether an entry fits.
    #[must_use]
    pub fn fits(&self, entry: &ReadEntry, names: &Names) -> bool {
        let object = |wanted: &Id| {
            entry.resources.iter().any(|resource| resource.id.as_ref() == Some(wanted))
                || entry.credential.is_some_and(|credential| credential.0 == *wanted)
        };
        let worker = |worker: &String| entry.identity.is_none() && entry.method == worker.as_str();
        let ended = |ended: &Ended| match ended {
            Ended::As(outcome) => entry.outcome == *outcome,
            Ended::Refused => !matches!(entry.outcome.as_str(), "OK" | "INTENT" | "BEGUN" | "LEFT"),
        };
        let touched = |pattern: &ResourcePattern| {
            names.of(Field::Resource).any(|name| match name {
                Named::Known(name) => pattern.matches(name),
                Named::Erased | Named::Altered => false,
            })
        };
        self.identity.is_none_or(|identity| entry.identity == Some(identity))
            && self.worker.as_ref().is_none_or(worker)
            && self.action.as_ref().is_none_or(|action| entry.action == *action)
            && self.outcome.as_ref().is_none_or(ended)
            && self.object.as_ref().is_none_or(object)
            && self.from.is_none_or(|from| entry.at >= from)
            && self.to.is_none_or(|to| entry.at <= to)
            && self.resource.as_ref().is_none_or(touched)
    }

    fn may_be_in(&self, filter: &Bloom) -> bool {
        let ended = |ended: &Ended| match ended {
            Ended::As(outcome) => outcome == "OK" || filter.may_hold(Key::Outcome(outcome)),
            Ended::Refused => true,
        };
        let identity = self.identity.as_ref();
        identity.is_none_or(|id| filter.may_hold(Key::Identity(id.0.as_bytes())))
            && self.action.as_ref().is_none_or(|action| filter.may_hold(Key::Action(action)))
            && self.outcome.as_ref().is_none_or(ended)
            && self.object.as_ref().is_none_or(|id| filter.may_hold(Key::Object(id.as_bytes())))
    }
}

/// An entry as people see it: decoded, with the names that it commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its index.
    pub index: i64,
    /// What it says.
    pub entry: ReadEntry,
    /// What it commits to.
    pub names: Names,
}

impl Shown {
    /// Decodes an entry; nothing for one that is none: verification shows it, not questions.
    #[must_use]
    pub fn read(stored: &LogEntry) -> Option<Self> {
        let entry = ReadEntry::decode(&stored.leaf).ok()?;
        let names = Names::of_entry(&entry, stored.side.as_deref());
        Some(Self { index: stored.index, entry, names })
    }
}

/// A page of entries, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The entries.
    pub entries: Vec<Shown>,
    /// Below which index to go on; none when the log's beginning was reached.
    pub below: Option<i64>,
}

/// Finds entries below an index, newest first.
///
/// The page may be short, even empty, while there is more: a call looks at a bounded part.
///
/// # Errors
/// [`crate::Error::Tampered`], with an alarm, for a head that no vault wrote; what the store answers.
pub async fn find(
    tx: &mut Tx,
    codec: &RecordCodec,
    filter: &Filter,
    below: i64,
    most: usize,
) -> Result<Found> {
    let mut found = Found::default();
    let size = head(tx, codec).await?.size;
    let below = below.min(size);
    let mut opened = 0;
    let top = below.saturating_sub(1) / WIDTH;
    let mut filters = records::filters_down(tx, top, FILTERS).await?.into_iter().peekable();
    let mut reached = below;
    for bundle in (top.saturating_sub(FILTERS - 1).max(0)..=top).rev() {
        let first = bundle.saturating_mul(WIDTH);
        let stored = filters.next_if(|found| found.bundle == bundle);
        if filter.may_be_in(&Bloom::open(codec, bundle, entries_in(bundle, size), stored)?) {
            if opened == BUNDLES {
                found.below = Some(reached);
                return Ok(found);
            }
            opened += 1;
            let to = below.min(first.saturating_add(WIDTH));
            for stored in entries_of(tx, first, to).await?.iter().rev() {
                let Some(shown) = Shown::read(stored) else { continue };
                if filter.fits(&shown.entry, &shown.names) {
                    if found.entries.len() == most {
                        found.below = found.entries.last().map(|last| last.index);
                        return Ok(found);
                    }
                    found.entries.push(shown);
                }
            }
        }
        reached = first;
    }
    found.below = (reached > 0).then_some(reached);
    Ok(found)
}

/// Reads the entries from `from` up to, and not including, `to`. What was removed or made
/// unreadable is left out, so that the rest can still be shown.
///
/// # Errors
/// What the store answers.
pub async fn entries_of(tx: &mut Tx, from: i64, to: i64) -> Result<Vec<LogEntry>, StoreError> {
    let mut entries = BTreeMap::new();
    for batch in records::placed(tx, from, to).await? {
        let sides = match &batch.side {
            Some(side) => read_sides(side).ok(),
            None => Some(Vec::new()),
        };
        let mut sides = sides.map(Vec::into_iter);
        for (index, leaf) in (batch.first..).zip(cut_readable(&batch.body)) {
            let side = sides.as_mut().map(|sides| sides.next().unwrap_or_default());
            if index >= from && index < to {
                entries.insert(index, LogEntry { index, leaf: leaf.to_vec(), side });
            }
        }
    }
    Ok(entries.into_values().collect())
}
