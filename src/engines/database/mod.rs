//! Credentials in databases: names, role definitions and the drivers of the targets.
//!
//! A driver speaks to the target alone; it must not know our own store, leases or who asks.

pub mod names;
pub mod postgres;
mod statement;
pub mod target;
pub mod template;
