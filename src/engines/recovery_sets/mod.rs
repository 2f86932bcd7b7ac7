//! Recovery sets: key pairs whose private half is split among holders, so that a vault whose HSM is
//! lost can be opened again by enough of them together, offline; or is in a second token, which
//! opens it by itself.
//!
//! A private half that is split exists while its set is made, in memory, and nowhere afterwards;
//! that of a token never leaves it.

mod create;
mod destroy;
mod list;
mod wrap;

pub use create::{CreateSet, HolderKey};
pub use destroy::DestroySet;
pub use list::ListSets;
pub use wrap::WrapForSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::crypto::{HpkePublic, hex, parse_hex};
use crate::error::{Error, Result};
use crate::keyring::Recipient;
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::{Tx, Versioned};
use crate::types::{Id, ResourceName, VaultId};
use crate::vault::Resource;

/// Sets that keys are wrapped for at once: the wraps of a key are read together.
const MOST_ACTIVE: usize = 4;
/// Holders of one set.
const MOST_HOLDERS: usize = 16;

/// A holder, and the share that is sealed to it; as the row has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The holder's name.
    pub name: String,
    /// The holder's public key, in lowercase hexadecimal; of a token it is that of the set.
    pub public_key: String,
    /// The share, in base64.
    pub sealed_share: String,
}

/// Where the private half of a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Custody {
    /// Split among holders.
    Shares,
    /// In a token.
    Token,
}

impl Custody {
    /// Tells where it is by the public half: what is split is on X25519, what is in a token on
    /// P-256.
    const fn of(public: &HpkePublic) -> Self {
        match public {
            HpkePublic::X25519(_) => Self::Shares,
            HpkePublic::P256(_) => Self::Token,
        }
    }

    /// Shows the word that is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shares => "shares",
            Self::Token => "token",
        }
    }
}

/// A set as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedSet {
    /// Its row.
    pub row: RecoverySetRow,
    /// Where its private half is.
    pub custody: Custody,
    /// Its holders.
    pub holders: Vec<Holder>,
    /// Keys that are wrapped for it.
    pub covered: i64,
    /// Keys that there are.
    pub keys: i64,
}

impl DescribedSet {
    /// Reads the sets that keys are wrapped for.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn active(tx: &mut Tx, vault: VaultId) -> Result<Vec<Self>> {
        let mut described = Vec::new();
        for row in recovery_sets::active(tx).await? {
            described.push(Self::read(tx, vault, row).await?);
        }
        Ok(described)
    }

    async fn read(tx: &mut Tx, vault: VaultId, row: Versioned<RecoverySetRow>) -> Result<Self> {
        let row = row.row;
        let holders = serde_json::from_str(&row.shares).map_err(Error::internal)?;
        let label = Recipient::label(vault, row.id);
        let (covered, keys) = recovery_sets::covered(tx, &label).await?;
        let public = HpkePublic::parse(&row.public_key).map_err(Error::internal)?;
        Ok(Self { row, custody: Custody::of(&public), holders, covered, keys })
    }
}

/// Reads a public key as it is given for a custody.
fn parse_public(text: &str, custody: Custody) -> Result<HpkePublic> {
    let public = parse_hex(text).ok().and_then(|bytes| HpkePublic::parse(&bytes).ok());
    public.filter(|public| Custody::of(public) == custody).ok_or_else(|| {
        Error::invalid(match custody {
            Custody::Shares => {
                "a holder's public key is 64 characters, as `recovery-set holder-key` shows"
            }
            Custody::Token => {
                "a token's public key is 130 characters, as `recovery-token make` shows"
            }
        })
    })
}

fn holder(name: String, public: &HpkePublic, sealed: &[u8]) -> Holder {
    let public_key = hex(public.as_bytes());
    Holder { name, public_key, sealed_share: STANDARD.encode(sealed) }
}

/// All of them.
fn sets() -> Result<Vec<Resource>> {
    Ok(vec![Resource::named("recovery_sets".parse()?)])
}

fn one(set: Id) -> Result<ResourceName> {
    ResourceName::join("recovery_sets", &[set.to_string().as_str()])
}
