//! gRPC: translation only. Decode, [`Vault::run`](crate::vault::Vault::run), encode.

mod accept;
mod database;
mod fields;
mod grants;
mod groups;
mod identities;
mod leases;
mod login;
mod pki;
mod records;
mod serve;
mod status;
pub mod tls;

pub use serve::{Engines, Settings, serve};
