//! The record as an engine: what may be asked of it. Its formats and proofs are `audit/`'s.

mod checkpoint;
mod list;
mod question;
mod read;
mod tail;
mod verify;

pub use checkpoint::{Checkpoint, Newest};
pub use list::{List, Listed};
pub use question::{Question, Raw};
pub use read::Read;
pub use tail::Tail;
pub use verify::{Verified, VerifyState};

use crate::error::Result;
use crate::types::ResourceName;
use crate::vault::Resource;

/// The whole record: reading it is a right of its own.
fn log() -> Result<Vec<Resource>> {
    Ok(vec![Resource::named(ResourceName::join("records", &["log"])?)])
}
