//! The key of a backup: fresh for each, wrapped for the root key, so that a backup yields nothing
//! without the HSM.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::cache::Find;
use super::master::Mixer;
use super::{KeyUse, Keyring, KeyringError, Recipient, Result, SetOpener, label};
use crate::crypto::{
    AssociatedData, Format, SALT_BYTES, SUITE_HMAC_KDF, Subject, kdf_input, unwrap_key, wrap_key,
    wrap_salt,
};
use crate::hsm::Hsm;
use crate::store::Reader;
use crate::store::keys::{self, HsmPurpose};
use crate::types::{Entropy, Id, SecretBytes, VaultId};

/// The wrap of a backup's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupWrap {
    /// The version of the root key that wraps it.
    pub root_version: i64,
    /// How it is wrapped.
    pub suite: i64,
    /// The wrap.
    pub blob: Vec<u8>,
    /// The same key for each recovery set: where the HSM is lost, backups open with them.
    pub sets: Vec<(Id, Vec<u8>)>,
}

impl BackupWrap {
    /// Unwraps the key, in an HSM that somebody is logged into. Whether the root key is the one that
    /// the vault pinned is looked at once there is a store to look into.
    ///
    /// # Errors
    /// [`KeyringError::UnknownSuite`]; [`KeyringError::Misplaced`] where it is not the wrap of this
    /// backup; what the HSM answers.
    pub async fn open(&self, hsm: &dyn Hsm, vault: VaultId, backup: Id) -> Result<SecretBytes> {
        if self.suite != SUITE_HMAC_KDF {
            return Err(KeyringError::UnknownSuite(self.suite));
        }
        let misplaced = |error| KeyringError::opening(error, || "the key of the backup".to_owned());
        let root = label(vault, HsmPurpose::Root, self.root_version);
        let aad = wrap_aad(vault, backup, (&root, self.root_version));
        let salt = wrap_salt(&self.blob).map_err(misplaced)?;
        let wrapping_key = hsm.hmac(&root, &kdf_input(&aad, salt)).await?;
        unwrap_key(&wrapping_key, &aad, &self.blob).map_err(misplaced)
    }

    /// Opens the key with the private half of a recovery set.
    ///
    /// # Errors
    /// [`KeyringError::NoKey`] for a backup that was not made for the set;
    /// [`KeyringError::Misplaced`] where the shares are not those of the set;
    /// [`KeyringError::Unfit`] for shares of another vault, and for a token of none of its sets; what
    /// that token answers.
    pub async fn open_with(
        &self,
        opener: &SetOpener,
        vault: VaultId,
        backup: Id,
    ) -> Result<SecretBytes> {
        let sets: Vec<_> = self.sets.iter().map(|(set, _)| *set).collect();
        let key = opener.key(vault, &sets).await?;
        let wrap = self.sets.iter().find(|(set, _)| *set == key.set);
        let (_, sealed) = wrap.ok_or(KeyringError::NoKey)?;
        let aad = wrap_aad(vault, backup, (&Recipient::label(vault, key.set), 1));
        key.open(&aad, sealed, || "the key of the backup".to_owned()).await
    }
}

fn wrap_aad(vault: VaultId, backup: Id, (root, version): (&str, i64)) -> Vec<u8> {
    AssociatedData {
        format: Format::Xaes256Gcm,
        vault,
        table: "backups",
        column: "key",
        row: backup.as_bytes(),
        key_owner: Subject::Label("system"),
        object: Subject::Id(backup),
        object_version: 1,
        key: Subject::Label(root),
        key_version: version,
    }
    .encode()
}

impl Keyring {
    /// Makes the key of a backup, and wraps it for the newest root key.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what the HSM answers.
    pub async fn backup_key(&self, backup: Id) -> Result<(SecretBytes, BackupWrap, KeyUse)> {
        let open = self.open_state()?;
        let root = open.active(HsmPurpose::Root)?;
        let mixer: &Mixer = &open.mixer;
        let key = mixer.key()?;
        let mut salt = [0; SALT_BYTES];
        mixer.fill(&mut salt)?;
        let aad = wrap_aad(open.vault, backup, (&root.label, root.version));
        let wrapping_key = self.0.hsm.hmac(&root.label, &kdf_input(&aad, &salt)).await?;
        let blob = wrap_key(&wrapping_key, &salt, &aad, &key, mixer)?;
        let mut sets = Vec::new();
        let recipients = Arc::clone(&*open.sets.read());
        for set in recipients.iter() {
            let aad = wrap_aad(open.vault, backup, (&Recipient::label(open.vault, set.set), 1));
            sets.push((set.set, set.seal(open.vault, &aad, &key, mixer)?));
        }
        let wrap = BackupWrap { root_version: root.version, suite: SUITE_HMAC_KDF, blob, sets };
        Ok((key, wrap, root.used_for("wrap backup")))
    }

    /// Opens the newest key of an identity, where there is one, and tells which: its wrap and the
    /// root key fit.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], [`KeyringError::NoKey`] where nothing wraps it for this HSM; what
    /// store and HSM answer.
    pub async fn open_newest(&self, reader: &Reader) -> Result<Option<Id>> {
        let open = self.open_state()?;
        let newest = reader
            .view(|tx| async move { Ok(keys::newest_of_identities(tx).await?) }.boxed())
            .await?;
        let Some(newest) = newest else { return Ok(None) };
        let found = self.find_key(&open, reader, Find::Id(newest)).await?;
        found.map(|(key, _)| Some(key.row.row.id)).ok_or(KeyringError::NoKey)
    }
}
