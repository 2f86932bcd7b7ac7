//! Each way to prove an identity, one file each. A credential of one type is accepted only where
//! that type is meant.

pub mod join;
pub mod mtls;
pub mod oidc;
pub mod statement;
pub mod token;
