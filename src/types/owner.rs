//! Who answers for an identity: a human, or a group of whose humans one is enough.

use std::fmt;
use std::str::FromStr;

use super::{GroupId, Id, IdentityId, IdentityName, Segment};
use crate::error::{Error, Result};

/// Sets a group's id apart from an identity's.
const GROUP: &str = "group:";

/// An owner, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A human, or an identity that owns itself.
    Identity(IdentityId),
    /// A group.
    Group(GroupId),
}

/// An owner, by its name. Identities and groups may have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerName {
    /// A human's.
    Identity(IdentityName),
    /// A group's.
    Group(Segment),
}

impl fmt::Display for OwnerName {
    /// Writes it for a person to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(name) => write!(f, "{name}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => id.fmt(f),
            Self::Group(id) => write!(f, "{GROUP}{id}"),
        }
    }
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix(GROUP) {
            Some(id) => id.parse().map(|id: Id| Self::Group(GroupId(id))),
            None => text.parse().map(|id: Id| Self::Identity(IdentityId(id))),
        }
    }
}

impl From<IdentityId> for Owner {
    fn from(id: IdentityId) -> Self {
        Self::Identity(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_comes_back_as_it_was_written_and_a_group_is_no_identity() {
        let id = Id::from_bytes([7; 16]);
        let (human, group) = (Owner::Identity(IdentityId(id)), Owner::Group(GroupId(id)));
        for owner in [human, group] {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        assert_ne!(human.to_string(), group.to_string());
        for bad in ["", "group:", "group:x", "Group:07070707-0707-0707-0707-070707070707"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
