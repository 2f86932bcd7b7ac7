//! gRPC: translation only. Decode, [`Vault::run`](crate::vault::Vault::run), encode.

mod accept;
mod authorities;
mod ceremonies;
mod database;
mod door;
mod elevations;
mod enrolments;
mod factors;
mod fields;
mod grants;
mod groups;
mod health;
mod identities;
mod issuers;
mod keys;
mod known;
mod leases;
mod lifecycles;
mod login;
mod pki;
mod records;
mod recovery_sets;
mod root;
mod secrets;
mod serve;
mod services;
mod shreds;
mod status;
mod system;
pub mod tls;
mod tokens;
mod wrapping;
mod wraps;

pub use serve::{Engines, Front, Settings, serve};
