//! Recovery sets: key pairs whose private half is split among holders, so that a vault whose HSM is
//! lost can be opened again by enough of them together, offline.
//!
//! The private half exists while a set is made, in memory, and nowhere afterwards.

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
    /// The holder's public key, in lowercase hexadecimal.
    pub public_key: String,
    /// The share, in base64.
    pub sealed_share: String,
}

/// A set as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedSet {
    /// Its row.
    pub row: RecoverySetRow,
    /// Its holders.
    pub holders: Vec<Holder>,
    /// Keys that are wrapped for it.
    pub covered: i64,
    /// Keys that there are.
    pub keys: i64,
}

impl DescribedSet {
    async fn read(tx: &mut Tx, vault: VaultId, row: Versioned<RecoverySetRow>) -> Result<Self> {
        let row = row.row;
        let holders = serde_json::from_str(&row.shares).map_err(Error::internal)?;
        let label = Recipient::label(vault, row.id);
        let (covered, keys) = recovery_sets::covered(tx, &label).await?;
        Ok(Self { row, holders, covered, keys })
    }
}

/// Reads a public key as holders give it.
fn parse_public(text: &str) -> Result<HpkePublic> {
    let bytes = parse_hex(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| {
        Error::invalid("a holder's public key is 64 characters, as `recovery-set holder-key` shows")
    })
}

fn holder(name: String, public: &HpkePublic, sealed: &[u8]) -> Holder {
    Holder { name, public_key: hex(public), sealed_share: STANDARD.encode(sealed) }
}

/// All of them.
fn sets() -> Result<Vec<Resource>> {
    Ok(vec![Resource::named("recovery_sets".parse()?)])
}

fn one(set: Id) -> Result<ResourceName> {
    ResourceName::join("recovery_sets", &[set.to_string().as_str()])
}
