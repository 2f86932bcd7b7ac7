//! What the vault does, one noun each. Knows nothing of gRPC, HTTP or the SQL of our own state.

pub mod database;
