//! The one integration-test binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, which is its job"
)]

mod attacks;
mod authorities;
mod backup;
mod bad_input;
mod ceremonies;
mod cli;
mod cli_verify;
mod config;
mod connections;
mod database;
mod dev;
mod elevations;
mod endings;
mod enrolments;
mod factors;
mod forged;
mod founding;
mod full;
mod gate;
mod grants;
mod groups;
mod harden;
mod health;
mod held;
mod hsm;
mod http;
mod identities;
mod issuers;
mod keyring;
mod keys;
mod leaks;
mod leases;
mod matrix;
mod pgtarget;
mod pki;
mod races;
mod records;
mod recovery;
mod recovery_sets;
mod root;
mod seal;
mod secrets;
mod server;
mod silence;
mod store;
mod support;
mod surroundings;
mod tidy;
mod tlog;
mod tls;
mod tokens;
mod tree;
mod whoami;
mod wraps;
mod x509;
