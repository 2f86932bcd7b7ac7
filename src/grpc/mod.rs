//! gRPC: translation only. Decode, [`Vault::run`](crate::vault::Vault::run), encode.

mod accept;
mod door;
mod identities;
mod serve;
mod status;
mod system;
pub mod tls;

pub use serve::{Front, Settings, serve};
