//! The record: entries, batches, one Merkle log, checkpoints that a stranger can verify.
//!
//! Knows how an operation becomes an entry and an entry a leaf; must not know engines. The format
//! of entries is written down, with test vectors, in `docs/formats.md`: it cannot change later.

mod batch;
mod entry;
mod filter;
mod integrate;
mod questions;

pub use crate::keyring::KeyUse;
pub use batch::RecordCodec;
pub use entry::{CallerFact, DecisionFact, EntryFacts, Field, ReadEntry, ResourceFact, SideValue};
pub use integrate::{Head, Integration, plan};
pub use questions::{Filter, Found, LogEntry, entries_of, find};
