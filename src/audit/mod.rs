//! The record: entries, batches, one Merkle log, checkpoints that a stranger can verify.
//!
//! Knows how an operation becomes an entry and an entry a leaf; must not know engines. The format
//! of entries is written down, with test vectors, in `docs/formats.md`: it cannot change later.

mod batch;
mod bundle;
mod draft;
mod entry;
mod extend;
mod factors;
mod filter;
mod head;
mod integrate;
mod names;
mod questions;
mod retire;
mod state;
mod usage;
#[cfg(test)]
mod vectors;

pub use crate::keyring::KeyUse;
pub use batch::RecordCodec;
pub use bundle::{Part, decode_sides, part};
pub use draft::Draft;
pub use entry::{
    CallerFact, DecisionFact, Ending, EntryFacts, Field, ReadEntry, ResourceFact, SideValue,
};
pub use extend::extends;
pub use factors::{FactorFact, ReadFactor};
pub use head::{Head, accept_head, head, seen_head};
pub use integrate::{Integration, plan};
pub use names::{Named, Names};
pub use questions::{Ended, Filter, Found, LogEntry, Shown, entries_of, find};
pub use retire::{Retirement, retire};
pub use state::{Compared, StateFault, StateFold, Wrong};
pub use usage::DAY_MS;
