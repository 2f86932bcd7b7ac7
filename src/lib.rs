//! Strongroom: an identity-first secrets vault.
//!
//! The rooms, lowest first, and what each must not know are drawn in `ARCHITECTURE.md`;
//! `tests/it/tidy.rs` holds them to it. This library exists so that tests start several nodes in
//! one process; the program is `main.rs`.

/// Entries, answers and jobs are made on one thread and dropped on another, hundreds of thousands a
/// second: the system's allocator takes its locks for that, this one does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod audit;
pub mod auth;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod engines;
pub mod error;
pub mod grpc;
pub mod harden;
pub mod hsm;
pub mod http;
pub mod keyring;
pub mod policy;
pub mod proto;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod types;
pub mod vault;
pub mod workers;

pub use error::{Error, Result};
