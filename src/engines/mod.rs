//! What the vault does, one noun each: verbs over the vault's one door.
//!
//! Must not know gRPC, HTTP, or SQL of our own state.

pub mod authorities;
pub mod ceremonies;
pub mod database;
pub mod elevations;
pub mod enrolments;
pub mod factors;
pub mod grants;
pub mod groups;
pub mod identities;
pub mod issuers;
pub mod keys;
pub mod leases;
pub mod notices;
pub mod pki;
pub mod records;
pub mod recovery_sets;
pub mod root;
pub mod rotations;
pub mod secrets;
pub mod system;
pub mod tokens;
mod walk;
mod watch;
pub mod wraps;
