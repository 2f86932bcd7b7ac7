//! Keys in the HSM that were made, retired or destroyed while the vault was unsealed.

use std::sync::Arc;

use super::unseal::checked;
use super::{HsmKey, Keyring, KeyringError, Result, names};
use crate::store::Reader;
use crate::store::keys::{Check, HsmKeyRow, HsmPurpose};
use crate::types::VaultId;

impl Keyring {
    /// Looks at the rows of the keys in the HSM anew: takes up what was made since, each verified
    /// against its pin, and lets go of what was destroyed.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`]; [`KeyringError::Replaced`] and [`KeyringError::Unfit`], alarms, for
    /// which nothing is taken up; what store and HSM answer.
    pub async fn refresh(&self, reader: &Reader) -> Result<()> {
        let _one = self.0.looks.lock().await;
        let open = self.open_state()?;
        let known = open.hsm_keys();
        let found = checked(reader, Check::InForce).await?;
        let mut keys = Vec::with_capacity(found.hsm_keys.len());
        for row in &found.hsm_keys {
            keys.push(match known.iter().find(|key| key.label == row.id) {
                Some(key) => {
                    HsmKey { state: row.state, certificate: row.certificate.clone(), ..key.clone() }
                }
                None => self.verified(open.vault, row).await?,
            });
        }
        for purpose in HsmPurpose::ALL {
            names::newest_active(&keys, *purpose)?;
        }
        *open.hsm_keys.write() = Arc::from(keys);
        Ok(())
    }

    /// Joins a row with the key in the token that it pins.
    pub(super) async fn verified(&self, vault: VaultId, row: &HsmKeyRow) -> Result<HsmKey> {
        let info = self.0.hsm.lookup_key(&row.id).await?;
        let info = info.ok_or_else(|| KeyringError::Replaced(row.id.clone()))?;
        HsmKey::verified(vault, row, info)
    }
}
