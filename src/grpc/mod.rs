//! gRPC: translation only. Decode, [`Vault::run`](crate::vault::Vault::run), encode.

mod accept;
mod fields;
mod grants;
mod groups;
mod identities;
mod records;
mod serve;
mod status;
pub mod tls;

pub use serve::{Settings, serve};
