//! The authorities of certificates and of logins, and the root above the former: rotated, which taints
//! the one before, and retired once nothing that hangs on it is valid any more.
//!
//! What they sign is the certificate engine's. Every issuing CA that is not retired is below the current
//! root: a new root signs them anew, and the one before vouches for it.

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

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::pki::Role;
use super::rotations::{Kept, Versions};
use crate::error::{Error, Result};
use crate::hsm::KeyKind;
use crate::store::keys::HsmKeyRow;
use crate::store::{Tx, rotations};
use crate::types::{CredentialKind, ResourceName, Rotates, UnixMillis};
use crate::vault::{Resource, View};

/// An authority that rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityName {
    /// Above the issuing ones.
    Root,
    /// Of certificates that profiles allow.
    Issuing,
    /// Of logins.
    Login,
}

impl AuthorityName {
    const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Login => "login",
        }
    }

    /// What it signs.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Root => Role::Root,
            Self::Issuing => Role::Issuing,
            Self::Login => Role::Login,
        }
    }

    /// How its rotations are filed.
    #[must_use]
    pub const fn subject(self) -> Rotates {
        match self {
            Self::Root => Rotates::RootCa,
            Self::Issuing => Rotates::Issuing,
            Self::Login => Rotates::Login,
        }
    }

    /// What the store calls what it signs; of the root, what is below that.
    const fn signs(self) -> CredentialKind {
        match self {
            Self::Root | Self::Issuing => CredentialKind::Certificate,
            Self::Login => CredentialKind::Login,
        }
    }

    const fn key_kind(self) -> KeyKind {
        match self {
            Self::Root => KeyKind::EcdsaP384,
            Self::Issuing | Self::Login => KeyKind::EcdsaP256,
        }
    }

    /// Versions that are not retired, at most.
    const fn versions(self) -> usize {
        match self {
            // One root vouches for the next, and clients bound the length of a chain.
            Self::Root => 2,
            Self::Issuing | Self::Login => 4,
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
            "root" => Ok(Self::Root),
            "issuing" => Ok(Self::Issuing),
            "login" => Ok(Self::Login),
            _ => Err(Error::invalid("the authorities are `root`, `issuing` and `login`")),
        }
    }
}

/// How long after a rotation was asked for its predecessor may have signed, in milliseconds: longer than
/// the HSM takes to make a key.
const LATE_MS: i64 = 60_000;
/// What was signed in that time and is looked at; beyond, all of it counts.
const LATE: i64 = 1_000;

/// Counts what hangs on a version alone and is valid, and tells until when the last of it is; 0 where
/// there is none. On an issuing or a login CA that is what it signed; on a root what was issued while it
/// was the current one, because the chain that was given out then ends at it.
async fn valid(
    tx: &mut Tx,
    name: AuthorityName,
    found: &Versions,
    key: &HsmKeyRow,
    now: UnixMillis,
) -> Result<(i64, UnixMillis)> {
    let by = found.replaced(key.version).map(|by| by.row.to_version);
    let Some(after) = by.and_then(|version| found.numbered(version)) else {
        return Ok(rotations::valid_of(tx, name.signs(), (key.created_at, now), now).await?);
    };
    let end = after.row.created_at;
    // It was asked for at that moment, and came true a little later.
    let late = UnixMillis(end.0.saturating_add(LATE_MS));
    if name == AuthorityName::Root {
        let span = (key.created_at, late);
        return Ok(rotations::valid_of(tx, name.signs(), span, now).await?);
    }
    let (mut count, mut until) =
        rotations::valid_of(tx, name.signs(), (key.created_at, end), now).await?;
    // Who signed is looked at there.
    let rows = rotations::valid_after(tx, name.signs(), (end, late), now, LATE).await?;
    let all = i64::try_from(rows.len()).is_ok_and(|rows| rows >= LATE);
    let subject = key.certificate.as_deref().unwrap_or_default();
    let subject = X509Certificate::from_der(subject).map_err(Error::internal)?.1;
    for row in rows {
        if all || issued(&subject, &row.row.detail)? {
            count = count.saturating_add(1);
            until = until.max(row.row.expires_at);
        }
    }
    Ok((count, until))
}

/// Tells whether an authority issued a certificate: no two have one name.
fn issued(authority: &X509Certificate<'_>, der: &[u8]) -> Result<bool> {
    let parsed = X509Certificate::from_der(der).map_err(Error::internal)?.1;
    Ok(parsed.issuer().as_raw() == authority.subject().as_raw())
}

/// An authority as a resource, with the row of its current version.
async fn resource(view: &View, name: AuthorityName) -> Result<Resource> {
    let mut resource = Resource::named(ResourceName::join("authorities", &[name.word()])?);
    resource.rows.push(Versions::of(view, name.kept()).await?.current()?.fence());
    Ok(resource)
}
