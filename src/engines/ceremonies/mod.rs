//! Ceremonies: what no administrator does alone.
//!
//! A verb that `types::VERBS` marks as one of several administrators is run in [`InCeremony`]: the
//! call opens a ceremony and does nothing else, others approve exactly what was asked for, and the
//! same call, repeated by who asked, does it, once, in the commit that says that the ceremony was
//! performed. The vault refuses such a verb without one. Approvals follow the rules of elevations.
//! `docs/ceremonies.md` tells all of it.

mod act;
mod call;
mod case;
mod expire;
mod list;
mod notify;
mod outlook;
mod show;
mod solemn;
mod watch;

pub use crate::vault::{CeremonyAbout as About, CeremonyTerm as Term};
pub use act::{Act, Approve, Cancel, Change, Deny};
pub use expire::ExpireCeremony;
pub use list::ListCeremonies;
pub use outlook::administrators_apart;
pub use show::{Ceremony, ShowCeremony};
pub use solemn::{Convened, Held, InCeremony, Solemn};
pub use watch::WatchCeremonies;

use crate::error::Error;

/// Answers that there is no such ceremony.
fn unknown() -> Error {
    Error::not_found("there is no such ceremony; `strongroom ceremony list --all` shows them")
}
