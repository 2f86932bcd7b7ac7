//! Reads the log back: single entries, and pages of those that fit a question.

use super::batch::{cut, read_sides};
use super::entry::{ReadEntry, SideValue};
use super::filter::{Bloom, Key};
use crate::error::Result;
use crate::store::records;
use crate::store::{StoreError, Tx};
use crate::types::{Id, IdentityId, UnixMillis};

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
    /// Its private values, as far as they were not erased.
    pub side: Vec<SideValue>,
}

/// What a question asks for; everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose doing.
    pub identity: Option<IdentityId>,
    /// The action.
    pub action: Option<String>,
    /// The outcome.
    pub outcome: Option<String>,
    /// A resource or credential, by id.
    pub object: Option<Id>,
    /// Not before.
    pub from: Option<UnixMillis>,
    /// Not after.
    pub to: Option<UnixMillis>,
}

impl Filter {
    fn fits(&self, entry: &ReadEntry) -> bool {
        let object = |wanted: &Id| {
            entry.resources.iter().any(|resource| resource.id.as_ref() == Some(wanted))
                || entry.credential.is_some_and(|credential| credential.0 == *wanted)
        };
        self.identity.is_none_or(|identity| entry.identity == Some(identity))
            && self.action.as_ref().is_none_or(|action| entry.action == *action)
            && self.outcome.as_ref().is_none_or(|outcome| entry.outcome == *outcome)
            && self.object.as_ref().is_none_or(object)
            && self.from.is_none_or(|from| entry.at >= from)
            && self.to.is_none_or(|to| entry.at <= to)
    }

    fn may_be_in(&self, filter: &Bloom) -> bool {
        let identity = self.identity.as_ref();
        identity.is_none_or(|id| filter.may_hold(Key::Identity(id.0.as_bytes())))
            && self.action.as_ref().is_none_or(|action| filter.may_hold(Key::Action(action)))
            && self
                .outcome
                .as_ref()
                .is_none_or(|outcome| outcome == "OK" || filter.may_hold(Key::Outcome(outcome)))
            && self.object.as_ref().is_none_or(|id| filter.may_hold(Key::Object(id.as_bytes())))
    }
}

/// A page of entries, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The entries, with what was decoded of each.
    pub entries: Vec<(LogEntry, ReadEntry)>,
    /// Below which index to go on; none when the log's beginning was reached.
    pub below: Option<i64>,
}

/// Finds entries below an index, newest first.
///
/// The page may be short, even empty, while there is more: a call looks at a bounded part.
///
/// # Errors
/// What the store answers.
pub async fn find(tx: &mut Tx, filter: &Filter, below: i64, most: usize) -> Result<Found> {
    let mut found = Found::default();
    let below = below.min(records::head(tx).await?.size);
    let mut opened = 0;
    let top = below.saturating_sub(1) / WIDTH;
    let mut filters = records::filters_down(tx, top, FILTERS).await?.into_iter().peekable();
    let mut reached = below;
    for bundle in (top.saturating_sub(FILTERS - 1).max(0)..=top).rev() {
        let first = bundle.saturating_mul(WIDTH);
        // A filter that was removed hides nothing.
        let stored = filters.next_if(|(found, _)| *found == bundle).map(|(_, stored)| stored);
        if filter.may_be_in(&Bloom::from_stored(stored.unwrap_or_default())) {
            if opened == BUNDLES {
                found.below = Some(reached);
                return Ok(found);
            }
            opened += 1;
            let to = below.min(first.saturating_add(WIDTH));
            for entry in entries_of(tx, first, to).await?.into_iter().rev() {
                // One that does not decode is shown by verification, not by questions.
                let Ok(read) = ReadEntry::decode(&entry.leaf) else { continue };
                if filter.fits(&read) {
                    if found.entries.len() == most {
                        found.below = found.entries.last().map(|(last, _)| last.index);
                        return Ok(found);
                    }
                    found.entries.push((entry, read));
                }
            }
        }
        reached = first;
    }
    found.below = (reached > 0).then_some(reached);
    Ok(found)
}

/// Reads the entries from `from` up to, and not including, `to`.
///
/// # Errors
/// What the store answers.
pub async fn entries_of(tx: &mut Tx, from: i64, to: i64) -> Result<Vec<LogEntry>, StoreError> {
    let mut entries = Vec::new();
    for batch in records::placed(tx, from, to).await? {
        let mut sides = match &batch.side {
            Some(side) => read_sides(side)?.into_iter(),
            None => Vec::new().into_iter(),
        };
        for (index, leaf) in (batch.first..).zip(cut(&batch.body)?) {
            let side = sides.next().unwrap_or_default();
            if index >= from && index < to {
                entries.push(LogEntry { index, leaf: leaf.to_vec(), side });
            }
        }
    }
    Ok(entries)
}
