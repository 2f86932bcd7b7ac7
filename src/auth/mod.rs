//! Each way to prove an identity, one file each. Bearer tokens and logins will stand beside
//! [`mtls`]; a credential of one type is accepted only where that type is meant.

pub mod mtls;
pub mod statement;
