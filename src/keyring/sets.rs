//! Recovery sets: identity keys are wrapped for their public halves too. The private halves are split
//! into shares, each sealed to its holder, or in a token that made them. None that is split is here but
//! while a set is made, and in the process that recovers; none of a token ever.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::identity::wrap_aad_of;
use super::{KeyUse, Keyring, KeyringError, Result, SetKey};
use crate::crypto::{
    CryptoError, Encoder, HpkePublic, MacKey, hpke_open, hpke_seal, hpke_seal_shared,
};
use crate::error::Error;
use crate::store::keys::{self, IdentityKeyRow, WrapRow};
use crate::store::{Reader, recovery_sets};
use crate::types::{Entropy, Id, SecretBytes, VaultId};

/// The version of a set's key: it has one.
const VERSION: i64 = 1;

/// A recovery set that identity keys are wrapped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The set.
    pub set: Id,
    /// Its public half.
    pub public: HpkePublic,
    /// What the vault shares with its holders: whoever writes to the store, or makes what looks like a
    /// backup, has the public half and wraps nothing that they would open.
    pub psk: SecretBytes,
}

/// Computes what the vault shares with the holders of a set.
pub(super) fn shared_key(recovery: &MacKey, set: Id) -> SecretBytes {
    SecretBytes::new(recovery.tag(&[set.as_bytes()]).to_vec())
}

impl Recipient {
    /// Names a set as the recipient of wraps.
    #[must_use]
    pub fn label(vault: VaultId, set: Id) -> String {
        format!("strongroom/{vault}/recovery/{set}")
    }

    /// Tells which set a recipient of wraps is; none for a root key.
    #[must_use]
    pub fn set_of(label: &str) -> Option<Id> {
        let (before, set) = label.rsplit_once('/')?;
        if !before.ends_with("/recovery") {
            return None;
        }
        set.parse().ok()
    }

    pub(super) fn wrap(
        &self,
        vault: VaultId,
        row: &IdentityKeyRow,
        key: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<WrapRow> {
        let recipient = Self::label(vault, self.set);
        let aad = wrap_aad_of(vault, row, (&recipient, VERSION));
        let blob = self.seal(vault, &aad, key, entropy)?;
        Ok(WrapRow { key_id: row.id, recipient, suite: self.public.suite(), blob })
    }

    /// Seals a key to the set, for a place.
    pub(super) fn seal(
        &self,
        vault: VaultId,
        aad: &[u8],
        key: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, CryptoError> {
        let to = (&self.public, &self.psk);
        hpke_seal_shared(to, &info(vault, self.set), aad, key.expose(), entropy)
    }
}

/// Unwraps a key with the private half of a set.
///
/// # Errors
/// [`KeyringError::NoKey`] where none of the wraps is for the set, [`KeyringError::UnknownSuite`],
/// [`KeyringError::Misplaced`] where one belongs to another key, owner or set.
pub(super) async fn open_wrap(
    key: &SetKey,
    row: &IdentityKeyRow,
    wraps: &[WrapRow],
) -> Result<SecretBytes> {
    let recipient = Recipient::label(key.vault, key.set);
    let wrap = wraps.iter().find(|wrap| wrap.recipient == recipient);
    let wrap = wrap.ok_or(KeyringError::NoKey)?;
    if wrap.suite != key.public()?.suite() {
        return Err(KeyringError::UnknownSuite(wrap.suite));
    }
    let aad = wrap_aad_of(key.vault, row, (&recipient, VERSION));
    key.open(&aad, &wrap.blob, || format!("the wrap of key {}", row.id)).await
}

pub(super) fn info(vault: VaultId, set: Id) -> Vec<u8> {
    Encoder::new("strongroom/wrap/hpke/v1").bytes(vault.0.as_bytes()).bytes(set.as_bytes()).finish()
}

/// Whose share of what it is: bound to what is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    /// The vault.
    pub vault: VaultId,
    /// The set.
    pub set: Id,
    /// How many shares are enough.
    pub threshold: u8,
    /// The holder's name.
    pub holder: &'a str,
}

impl Share<'_> {
    pub(super) fn info(&self) -> Vec<u8> {
        Encoder::new("strongroom/recovery-share/v1")
            .bytes(self.vault.0.as_bytes())
            .bytes(self.set.as_bytes())
            .integer(i64::from(self.threshold))
            .text(self.holder)
            .finish()
    }

    /// Seals a share to its holder.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for a key that is none.
    pub fn seal(
        &self,
        holder: &HpkePublic,
        share: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, CryptoError> {
        hpke_seal(holder, &self.info(), &[], share.expose(), entropy)
    }

    /// Opens a share with its holder's private key.
    ///
    /// # Errors
    /// [`CryptoError::Open`] for what was not sealed to this holder.
    pub fn open(&self, private: &SecretBytes, sealed: &[u8]) -> Result<SecretBytes, CryptoError> {
        hpke_open(private, &self.info(), &[], sealed)
    }
}

/// Reads the sets that keys are wrapped for.
pub(super) async fn read(reader: &Reader, recovery: &MacKey) -> Result<Vec<Recipient>> {
    let rows = reader.view(|tx| async move { Ok(recovery_sets::active(tx).await?) }.boxed());
    let rows = rows.await?.into_iter().map(|found| found.row);
    let recipient = |row: recovery_sets::RecoverySetRow| {
        let public = HpkePublic::parse(&row.public_key)
            .map_err(|_malformed| KeyringError::Unfit("a recovery set".into()))?;
        Ok(Recipient { set: row.id, public, psk: shared_key(recovery, row.id) })
    };
    rows.map(recipient).collect()
}

impl Keyring {
    /// Reads anew which sets keys are wrapped for, and lists them.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], [`KeyringError::Unfit`], or what the store answers.
    pub async fn follow_sets(&self, reader: &Reader) -> Result<Vec<Recipient>> {
        let open = self.open_state()?;
        let sets = read(reader, &open.keys.recovery).await?;
        *open.sets.write() = Arc::from(sets.as_slice());
        Ok(sets)
    }

    /// Tells what the vault shares with the holders of a set: it goes into their shares.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn shared_key(&self, set: Id) -> Result<SecretBytes> {
        Ok(shared_key(&self.open_state()?.keys.recovery, set))
    }

    /// Wraps keys for a set: each is opened in the HSM.
    ///
    /// # Errors
    /// As an unwrapping; what the store answers.
    pub async fn wrap_for_set(
        &self,
        reader: &Reader,
        set: &Recipient,
        rows: &[IdentityKeyRow],
    ) -> Result<(Vec<WrapRow>, Vec<KeyUse>)> {
        let open = self.open_state()?;
        let (mut wraps, mut used) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let id = row.id;
            let view =
                reader.view(move |tx| async move { Ok(keys::wraps_of(tx, id).await?) }.boxed());
            let known = view.await?;
            let (key, root) = match self.unwrap_read(&open, reader, (row, known)).await {
                Ok(Some(unwrapped)) => unwrapped,
                // It was destroyed meanwhile.
                Ok(None) | Err(KeyringError::NoKey) => continue,
                // An alarm, and nothing that keeps the others waiting.
                Err(error @ KeyringError::Misplaced(_)) => {
                    drop(Error::from(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !used.contains(&root) {
                used.push(root);
            }
            wraps.push(set.wrap(open.vault, row, &key, &open.mixer)?);
        }
        Ok((wraps, used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{hpke_private, hpke_public, split_secret};
    use crate::store::keys::{KeyOwner, KeyState};
    use crate::types::{IdentityId, SystemEntropy, UnixMillis};

    fn id(byte: u8) -> Id {
        Id::from_bytes([byte; 16])
    }

    #[tokio::test]
    async fn a_wrap_opens_for_its_set_key_owner_and_vault_alone() {
        let private = hpke_private(&SystemEntropy).unwrap();
        let psk = SecretBytes::new(vec![3; 32]);
        let public = hpke_public(&private).unwrap();
        let both = SetKey::parts(&private, &psk);
        let shares = split_secret(&both, 2, 3, &SystemEntropy).unwrap();
        let set = Recipient { set: id(5), public, psk };
        let (vault, key) = (VaultId(id(1)), SecretBytes::new(vec![9; 32]));
        let row = IdentityKeyRow {
            id: id(2),
            owner: KeyOwner::System,
            version: 1,
            state: KeyState::Active,
            created_at: UnixMillis(0),
        };
        let wraps = [set.wrap(vault, &row, &key, &SystemEntropy).unwrap()];
        let open = async |vault, set, row: &IdentityKeyRow| {
            open_wrap(&SetKey::join((vault, set), &shares).unwrap(), row, &wraps).await
        };
        assert_eq!(open(vault, set.set, &row).await, Ok(key));
        assert_eq!(open(vault, id(6), &row).await, Err(KeyringError::NoKey));
        assert_eq!(open(VaultId(id(9)), set.set, &row).await, Err(KeyringError::NoKey));
        assert_eq!(Recipient::set_of(&wraps[0].recipient), Some(set.set));
        let root = crate::keyring::label(vault, keys::HsmPurpose::Root, 1);
        assert_eq!(Recipient::set_of(&root), None);
        for other in [
            IdentityKeyRow { owner: KeyOwner::Identity(IdentityId(id(7))), ..row.clone() },
            IdentityKeyRow { version: 2, ..row.clone() },
            IdentityKeyRow { id: id(8), ..row.clone() },
        ] {
            let refused = open(vault, set.set, &other).await;
            assert!(matches!(refused, Err(KeyringError::Misplaced(_))), "{refused:?}");
        }

        // Somebody who knows the set's public half and nothing else makes the key of another vault.
        let stranger = Recipient { psk: SecretBytes::new(vec![4; 32]), ..set.clone() };
        let forged = SecretBytes::new(vec![8; 32]);
        let forged = [stranger.wrap(vault, &row, &forged, &SystemEntropy).unwrap()];
        let holders = SetKey::join((vault, set.set), &shares).unwrap();
        let refused = open_wrap(&holders, &row, &forged).await;
        assert!(matches!(refused, Err(KeyringError::Misplaced(_))), "{refused:?}");
    }

    #[test]
    fn a_share_opens_for_its_holder_set_and_threshold_alone() {
        let private = hpke_private(&SystemEntropy).unwrap();
        let public = hpke_public(&private).unwrap();
        let of = Share { vault: VaultId(id(1)), set: id(2), threshold: 3, holder: "alice" };
        let share = SecretBytes::new(vec![4; 33]);
        let sealed = of.seal(&public, &share, &SystemEntropy).unwrap();
        assert_eq!(of.open(&private, &sealed), Ok(share));
        for other in [
            Share { holder: "bob", ..of },
            Share { threshold: 2, ..of },
            Share { set: id(3), ..of },
            Share { vault: VaultId(id(9)), ..of },
        ] {
            assert_eq!(other.open(&private, &sealed), Err(CryptoError::Open), "{other:?}");
        }
    }
}
