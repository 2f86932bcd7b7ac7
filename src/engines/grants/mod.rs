//! Grants: what an identity or a group may do. Nothing is allowed without one.

mod add;
mod list;
mod remove;
mod show;

pub use add::AddGrant;
pub use list::{GrantPage, ListGrants};
pub use remove::RemoveGrant;
pub use show::{DescribedGrant, GrantTo, ShowGrant};
