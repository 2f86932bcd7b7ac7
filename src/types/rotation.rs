//! Rotations: what is rotated, and where a rotation is.

use std::fmt;
use std::str::FromStr;

use super::IdentityId;
use super::kind::words;
use crate::error::{Error, Result};

words! {
    /// Where a rotation is.
    RotationState, "state" {
        /// The new key is being made in the HSM.
        Pending = "pending",
        /// What is under the old version is being moved to the new one.
        Moving = "moving",
        /// Nothing is under the old version any more.
        Moved = "moved",
        /// The old version is not used any more, and its key in the HSM is being destroyed.
        Retiring = "retiring",
        /// The old version is no more.
        Retired = "retired",
        /// Making the new key came to nothing.
        Failed = "failed",
    }
}

/// What is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rotates {
    /// The root key in the HSM.
    Root,
    /// The authority above that of certificates.
    RootCa,
    /// The authority of certificates.
    Issuing,
    /// The authority of logins.
    Login,
    /// The key of an identity.
    Identity(IdentityId),
}

impl fmt::Display for Rotates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::RootCa => f.write_str("ca/root"),
            Self::Issuing => f.write_str("ca/issuing"),
            Self::Login => f.write_str("ca/login"),
            Self::Identity(id) => write!(f, "identity/{id}"),
        }
    }
}

impl FromStr for Rotates {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('/') {
            None if text == "root" => Ok(Self::Root),
            Some(("ca", "root")) => Ok(Self::RootCa),
            Some(("ca", "issuing")) => Ok(Self::Issuing),
            Some(("ca", "login")) => Ok(Self::Login),
            Some(("identity", id)) => id.parse().map(Self::Identity),
            None | Some(_) => Err(Error::invalid("nothing of that name rotates")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    #[test]
    fn what_rotates_reads_back_as_it_is_written_and_nothing_else_does() {
        let identity = Rotates::Identity(IdentityId(Id::from_bytes([7; 16])));
        let authorities = [Rotates::RootCa, Rotates::Issuing, Rotates::Login];
        for one in authorities.into_iter().chain([Rotates::Root, identity]) {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        for bad in
            ["", "Root", "root/", "root/1", "identity", "identity/", "identity/x", "ca", "ca/roots"]
        {
            assert!(bad.parse::<Rotates>().is_err(), "{bad}");
        }
    }
}
