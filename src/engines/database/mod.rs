//! Credentials in databases: connections, roles, credentials, and the drivers of the targets.
//!
//! A driver (`names`, `target`, `template`, `postgres`) speaks to the target alone; it must not
//! know our own store, leases or who asks. The verbs stand beside it.

mod connections;
mod credentials;
pub(in crate::engines) mod limits;
pub mod names;
pub mod postgres;
mod remove;
mod roles;
mod statement;
pub mod target;
mod targets;
pub mod template;

pub use connections::{Connection, ListConnections, PutConnection};
pub use credentials::{Credential, IssueCredentials};
pub use remove::{RemoveConnection, RemoveRole};
pub use roles::{GetRole, ListRoles, PutRole, Role};
pub use targets::Databases;
