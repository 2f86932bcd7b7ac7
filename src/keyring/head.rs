//! The log's checkpoint key, and the newest head where the database's owner cannot roll it back.

use super::{KeyUse, Keyring, KeyringError, Result, names};
use crate::crypto::{HASH_BYTES, Hash};
use crate::hsm::HsmError;
use crate::store::keys::HsmPurpose;

/// First byte of the data object.
const LAYOUT: u8 = 1;

/// Size and root hash of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

/// Whether the HSM keeps heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKept {
    /// In a private data object.
    InHsm,
    /// It holds no data objects: witnesses alone protect against a rollback.
    Nowhere,
}

impl Keyring {
    /// Signs the text of a checkpoint with the newest checkpoint key.
    ///
    /// The public key is in [`Keyring::hsm_key`] of [`HsmPurpose::Checkpoint`].
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what the HSM answers.
    pub async fn sign_checkpoint(&self, text: &str) -> Result<(Vec<u8>, KeyUse)> {
        let open = self.open_state()?;
        let key = open.active(HsmPurpose::Checkpoint)?;
        let signature = self.0.hsm.sign(&key.label, text.as_bytes()).await?;
        Ok((signature, key.used_for("checkpoint")))
    }

    /// Writes the newest head into a private data object of the HSM.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what the HSM answers.
    pub async fn write_head(&self, head: &Head) -> Result<HeadKept> {
        let open = self.open_state()?;
        let mut value = vec![LAYOUT];
        value.extend_from_slice(&head.size.to_be_bytes());
        value.extend_from_slice(&head.root);
        match self.0.hsm.write_data(&names::head_label(open.vault), &value).await {
            Ok(()) => Ok(HeadKept::InHsm),
            Err(HsmError::Unsupported(_)) => Ok(HeadKept::Nowhere),
            Err(other) => Err(other.into()),
        }
    }

    /// Reads the head that was written last; none where the HSM keeps none.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`]; [`KeyringError::Unfit`] when the object is not one of ours.
    pub async fn read_head(&self) -> Result<Option<Head>> {
        let open = self.open_state()?;
        let label = names::head_label(open.vault);
        match self.0.hsm.read_data(&label).await {
            Ok(None) | Err(HsmError::Unsupported(_)) => Ok(None),
            Ok(Some(value)) => {
                parse(&value).map(Some).ok_or_else(|| KeyringError::Unfit(format!("`{label}`")))
            }
            Err(other) => Err(other.into()),
        }
    }
}

fn parse(value: &[u8]) -> Option<Head> {
    let (layout, rest) = value.split_first()?;
    let (size, root) = rest.split_first_chunk::<8>()?;
    let root: [u8; HASH_BYTES] = root.try_into().ok()?;
    (*layout == LAYOUT).then_some(Head { size: u64::from_be_bytes(*size), root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_another_length_or_layout_is_refused() {
        let good = [&[1][..], &[0, 0, 0, 0, 0, 0, 1, 2], &[9; 32]].concat();
        assert_eq!(parse(&good), Some(Head { size: 258, root: [9; 32] }));
        for len in 0..good.len() {
            assert_eq!(parse(&good[..len]), None, "{len}");
        }
        assert_eq!(parse(&[good.as_slice(), &[0]].concat()), None);
        let mut other = good;
        other[0] = 2;
        assert_eq!(parse(&other), None);
    }
}
