//! The authorities of certificates and of logins: rotated, which taints the one before, and retired once
//! nothing that it signed is valid any more.
//!
//! What they sign is the certificate engine's. The root above the issuing CA is founded once.

mod retire;
mod rotate;
mod schedule;
mod show;

pub use retire::{RetireAuthority, RetiringAuthority};
pub use rotate::{AuthorityMade, AuthorityRotation, RotateAuthority};
pub use schedule::ScheduleAuthority;
pub use show::{AuthorityStatus, AuthorityVersion, ShowAuthority};

use std::fmt;
use std::str::FromStr;

use super::pki::Role;
use super::rotations::{Kept, Versions};
use crate::error::{Error, Result};
use crate::types::{CredentialKind, ResourceName, Rotates};
use crate::vault::{Resource, View};

/// An authority that rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityName {
    /// Of certificates that profiles allow.
    Issuing,
    /// Of logins.
    Login,
}

impl AuthorityName {
    const fn word(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Login => "login",
        }
    }

    /// What it signs.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Issuing => Role::Issuing,
            Self::Login => Role::Login,
        }
    }

    /// How its rotations are filed.
    #[must_use]
    pub const fn subject(self) -> Rotates {
        match self {
            Self::Issuing => Rotates::Issuing,
            Self::Login => Rotates::Login,
        }
    }

    /// What the store calls what it signs.
    const fn signs(self) -> CredentialKind {
        match self {
            Self::Issuing => CredentialKind::Certificate,
            Self::Login => CredentialKind::Login,
        }
    }

    const fn kept(self) -> Kept {
        (self.role().purpose(), self.subject())
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for AuthorityName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "issuing" => Ok(Self::Issuing),
            "login" => Ok(Self::Login),
            _ => Err(Error::invalid("the authorities that rotate are `issuing` and `login`")),
        }
    }
}

/// An authority as a resource, with the row of its current version.
async fn resource(view: &View, name: AuthorityName) -> Result<Resource> {
    let mut resource = Resource::named(ResourceName::join("authorities", &[name.word()])?);
    resource.rows.push(Versions::of(view, name.kept()).await?.current()?.fence());
    Ok(resource)
}
