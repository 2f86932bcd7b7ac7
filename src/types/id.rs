//! Ids: they never change and are never reused; names are attributes.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid};

use super::{Entropy, UnixMillis};
use crate::error::{Error, Result};

/// 128 bits: a `UUIDv7` where order helps, random where guessing would hurt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Uuid);

impl Id {
    /// Makes an id that sorts by time (RFC 9562, section 5.7).
    ///
    /// # Errors
    /// [`Error::Internal`] when the generator fails.
    pub fn ordered(now: UnixMillis, entropy: &dyn Entropy) -> Result<Self> {
        let mut random = [0; 10];
        entropy.fill_public(&mut random)?;
        let ms = u64::try_from(now.0).unwrap_or(0);
        Ok(Self(Builder::from_unix_timestamp_millis(ms, &random).into_uuid()))
    }

    /// Makes an id of 122 random bits (RFC 9562, section 5.4).
    ///
    /// # Errors
    /// [`Error::Internal`] when the generator fails.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut random = [0; 16];
        entropy.fill(&mut random)?;
        Ok(Self(Builder::from_random_bytes(random).into_uuid()))
    }

    /// Makes an id from its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Shows the 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = Error;

    /// Reads the canonical form only: lowercase, hyphenated, 36 bytes.
    fn from_str(text: &str) -> Result<Self> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_malformed| malformed())?;
        if id.to_string() == text { Ok(id) } else { Err(malformed()) }
    }
}

fn malformed() -> Error {
    Error::invalid("an id is a lowercase hyphenated UUID")
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Id);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.parse().map(Self)
            }
        }
    )+};
}

ids! {
    /// One installation of Strongroom, for ever.
    VaultId,
    /// One identity, for ever.
    IdentityId,
    /// One group of identities.
    GroupId,
    /// One grant.
    GrantId,
    /// One factor of a human.
    FactorId,
    /// One token, lease, certificate, session or wrap.
    CredentialId,
    /// One elevation, from its request on.
    ElevationId,
    /// One ceremony, from its request on.
    CeremonyId,
    /// One configured object of an engine: a connection, a role, a secret.
    ObjectId,
    /// One request.
    RequestId,
}
