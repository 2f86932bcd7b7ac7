//! Computes MACs and checks them.

use super::batch::{Fault, Job, Work, check_item};
use super::make::mac_hash;
use crate::crypto::NamedMac;
use crate::error::Result;
use crate::store::named_keys::NamedKeyVersionRow;
use crate::types::{KeyUsage, SecretBytes};

/// Computes MACs with the newest version.
#[derive(Debug)]
pub struct Macing;

/// Checks MACs.
#[derive(Debug)]
pub struct VerifyingMac;

/// A MAC or a signature to check.
#[derive(Debug)]
pub struct VerifyItem {
    /// What it is of.
    pub message: SecretBytes,
    /// The MAC or signature.
    pub proof: Vec<u8>,
    /// The version that made it; 0 for the newest.
    pub version: i64,
}

impl Work<'_> {
    async fn mac_key(&self, version: &NamedKeyVersionRow) -> Result<NamedMac> {
        let material = self.hot.material(self.view, version).await?;
        self.uses(version.version);
        Ok(NamedMac::new(mac_hash(self.hot.row.row.algorithm), &material))
    }
}

impl Job for Macing {
    const ACTION: &'static str = "keys.mac";
    const USAGE: KeyUsage = KeyUsage::Macs;
    const PURPOSES: [&'static str; 2] = ["mac/sealed", "mac/hsm"];
    const MAKES: bool = true;
    type Item = SecretBytes;
    type Done = Vec<u8>;

    async fn one(work: &Work<'_>, message: &SecretBytes) -> Result<Result<Vec<u8>, Fault>> {
        if let Err(fault) = check_item("a message", message.expose()) {
            return Ok(Err(fault));
        }
        let key = work.mac_key(&work.newest).await?;
        Ok(Ok(key.compute(message.expose())))
    }
}

impl Job for VerifyingMac {
    const ACTION: &'static str = "keys.verify-mac";
    const USAGE: KeyUsage = KeyUsage::Macs;
    const PURPOSES: [&'static str; 2] = ["verify-mac/sealed", "verify-mac/hsm"];
    const MAKES: bool = false;
    type Item = VerifyItem;
    type Done = bool;

    async fn one(work: &Work<'_>, item: &VerifyItem) -> Result<Result<bool, Fault>> {
        if let Err(fault) = check_item("a message", item.message.expose()) {
            return Ok(Err(fault));
        }
        match work.version(item.version).await? {
            Ok(version) => {
                let key = work.mac_key(&version).await?;
                Ok(Ok(key.verify(item.message.expose(), &item.proof)))
            }
            Err(fault) => Ok(Err(fault)),
        }
    }
}
