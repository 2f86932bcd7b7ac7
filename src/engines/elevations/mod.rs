//! Elevations: rights for a time, asked for, approved by others, over by themselves.
//!
//! What an elevation in force gives is looked at where decisions are made, in `src/vault/`; here is
//! how it comes to be and how it ends. `docs/elevation.md` tells all of it.

mod act;
mod administrators;
mod case;
mod definition;
mod eligible;
mod keep;
mod list;
mod moves;
mod notify;
mod propose;
mod request;
mod review;
mod revoke;
mod roles;
mod scope;
mod show;
mod side;
mod ticket;
mod watch;
mod window;

pub use act::{Act, Activate, Approve, Change, Deny, Withdraw};
pub use definition::{RoleDefinition, Step, current_step};
pub use keep::{KeepElevation, Kept};
pub use list::ListElevations;
pub use moves::Moves;
pub use notify::describe_elevation;
pub(in crate::engines) use notify::{goes_on_untold, must_tell_of_identity, tell_of_identity};
pub use propose::{ApplyRole, ConfirmRole, Proposal};
pub use request::{Asked, ExtendElevation, RequestElevation};
pub use review::{Review, ReviewElevation, ReviewVerdict};
pub use revoke::{RevokeElevation, Revoked};
pub use roles::{ElevationRole, ListRoles, PutRole, ShowRole};
pub use show::{Elevation, ShowElevation, ShownVote};
pub use watch::WatchElevations;
pub use window::Window;

pub(super) use administrators::administrator;
pub(super) use eligible::{denied, same_human};
pub(super) use side::Side;

use crate::error::Error;

/// Answers that there is no such elevation, or none that the caller may see.
fn unknown() -> Error {
    Error::not_found("there is no such elevation that you may see")
}
