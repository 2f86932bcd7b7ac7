//! gRPC: translation only. Decode, [`Vault::run`](crate::vault::Vault::run), encode.

mod accept;
mod database;
mod fields;
mod grants;
mod groups;
mod identities;
mod records;
mod login;
mod pki;
mod leases;
mod serve;
mod status;
pub mod tls;

pub use serve::{Settings, serve};
