//! Brings a key that was made elsewhere, wrapped for a key in the HSM that is for it alone.
//!
//! So nobody who sees it on its way can bring it as a key of their own.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::batch::all_used;
use super::find::{Keys, gone, label, named, of, unknown};
use super::make::{Brought, NewVersion, rotates_at, scheme};
use super::show::KeyDetail;
use super::sign::require_pinned;
use super::update::retired;
use crate::audit::Field;
use crate::crypto::{private_of_pkcs8, public_of, unwrap_padded};
use crate::error::{Error, Result};
use crate::hsm::OAEP_BYTES;
use crate::keyring::KeyUse;
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    KeyAlgorithm, KeyName, KeyOrigin, KeyVersionState, NamedKeyState, RequestContext, SecretBytes,
};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Bytes of a symmetric key that encrypts.
const CIPHER_BYTES: usize = 32;
/// Bytes of a key that computes MACs.
const MAC_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// Brings a key.
#[derive(Debug)]
pub struct ImportKey {
    /// What this node remembers of keys.
    pub keys: Keys,
    /// The key's name.
    pub name: KeyName,
    /// An AES key under RSA-OAEP, and the key under that.
    pub wrapped: Vec<u8>,
}

/// What is to be written.
#[derive(Debug)]
pub struct Import {
    was: Versioned<NamedKeyRow>,
    is: NamedKeyRow,
    wrapping: Versioned<NamedKeyVersionRow>,
    version: NewVersion,
    noted: Vec<KeyUse>,
}

/// The one answer for whatever is wrong inside.
fn does_not_open() -> Error {
    Error::invalid("what was wrapped does not open; wrap it for this key, as its manual says")
}

impl ImportKey {
    /// Unwraps what was brought.
    async fn unwrapped(&self, view: &View, by: &NamedKeyVersionRow) -> Result<SecretBytes> {
        let parted = self.wrapped.split_first_chunk::<OAEP_BYTES>();
        let (wrapping, wrapped) = parted.ok_or_else(does_not_open)?;
        let label = label(view.vault_id(), by.named_key, by.version);
        require_pinned(view, by, &label).await?;
        let key = by.named_key.to_string();
        let used = KeyUse { key, version: by.version, purpose: "unwrap/hsm" };
        let turn = self.keys.turns.take(view.ctx().began).await?;
        let opened = view.hsm().decrypt(&label, wrapping).await.map_err(Error::from);
        drop(turn);
        let opened = view.noted(&used, opened)?;
        opened.and_then(|key| unwrap_padded(&key, wrapped)).ok_or_else(does_not_open)
    }
}

/// Reads a key of an algorithm; none for what is not one.
fn key_of(algorithm: KeyAlgorithm, key: SecretBytes) -> Result<Option<Brought>> {
    let brought = |material, public_key| Brought {
        material,
        public_key,
        origin: KeyOrigin::Imported,
        reserved: 0,
    };
    Ok(match algorithm {
        KeyAlgorithm::Aes256Gcm | KeyAlgorithm::ChaCha20Poly1305 | KeyAlgorithm::Xaes256Gcm => {
            (key.len_bytes() == CIPHER_BYTES).then(|| brought(key, None))
        }
        KeyAlgorithm::HmacSha256 | KeyAlgorithm::HmacSha512 => {
            MAC_BYTES.contains(&key.len_bytes()).then(|| brought(key, None))
        }
        KeyAlgorithm::Ed25519
        | KeyAlgorithm::EcdsaP256
        | KeyAlgorithm::EcdsaP384
        | KeyAlgorithm::RsaPss3072
        | KeyAlgorithm::RsaPss4096 => {
            let scheme = scheme(algorithm)?;
            let private = private_of_pkcs8(scheme, &key);
            private.and_then(|private| {
                let public = public_of(scheme, &private)?;
                Some(brought(private, Some(public)))
            })
        }
    })
}

#[async_trait]
impl Verb for ImportKey {
    const ACTION: &'static str = "keys.import";
    type Prepared = Import;
    type Output = KeyDetail;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = named(view, &self.name).await?;
        Ok(vec![of(&self.name, found.as_ref())?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Import> {
        let was = named(view, &self.name).await?.ok_or_else(unknown)?;
        if !decision.resource()?.rows.contains(&was.fence()) {
            return Err(Error::Conflict("the key was changed meanwhile; retry".into()));
        }
        if was.row.origin != KeyOrigin::Imported {
            return Err(Error::precondition(
                "the key was not made for an import; `key create --import` makes one that is",
            ));
        }
        if was.row.state != NamedKeyState::Awaiting {
            return Err(Error::precondition("the key was imported already"));
        }
        let id = was.row.id;
        let read = view.read(move |tx| {
            async move { Ok(named_keys::newest_version(tx, id, true).await?) }.boxed()
        });
        let wrapping = read.await?.filter(|it| it.row.state == KeyVersionState::Awaiting);
        let wrapping = wrapping.ok_or_else(|| gone("named_key_versions", id))?;
        let opened = self.unwrapped(view, &wrapping.row).await?;
        let algorithm = was.row.algorithm;
        let brought = key_of(algorithm, opened)?
            .ok_or_else(|| Error::invalid(format!("what was wrapped is no key of {algorithm}")))?;
        let number = wrapping.row.version.saturating_add(1);
        let now = view.now();
        let is = NamedKeyRow {
            state: NamedKeyState::Active,
            newest: number,
            min_version: number,
            rotate_at: rotates_at(now, was.row.rotate_every_s)?,
            changed_at: now,
            changed_by: view.actor(),
            ..was.row.clone()
        };
        let version = NewVersion::of(view, &is, number, brought).await?;
        let key = KeyUse { key: id.to_string(), version: number, purpose: "import/sealed" };
        let noted = all_used(view, vec![key]);
        Ok(Import { was, is, wrapping, version, noted })
    }

    fn note(&self, it: &Import, note: &mut Note) {
        note.keys.extend(it.noted.iter().cloned());
        let NamedKeyRow { algorithm, placement, newest, .. } = &it.is;
        let detail = format!("{algorithm}, {placement}, version {newest}, imported");
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for ImportKey {
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Import,
        _: &Decision,
    ) -> Result<KeyDetail> {
        let row = tx.change(&it.was, &it.is).await?;
        // What unwrapped it unwraps nothing else: a worker destroys it.
        tx.change(&it.wrapping, &retired(ctx, &it.wrapping.row)).await?;
        it.version.store(tx).await?;
        KeyDetail::of(tx, row).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_length_is_none() {
        let key = |len| SecretBytes::new(vec![7; len]);
        for (algorithm, good, bad) in [
            (KeyAlgorithm::Aes256Gcm, vec![32], vec![0, 16, 24, 31, 33, 64]),
            (KeyAlgorithm::Xaes256Gcm, vec![32], vec![16, 48]),
            (KeyAlgorithm::HmacSha256, vec![16, 32, 128], vec![0, 15, 129]),
            (KeyAlgorithm::EcdsaP256, vec![], vec![32, 121]),
            (KeyAlgorithm::RsaPss3072, vec![], vec![32]),
        ] {
            for len in good {
                assert!(key_of(algorithm, key(len)).unwrap().is_some(), "{algorithm} {len}");
            }
            for len in bad {
                assert!(key_of(algorithm, key(len)).unwrap().is_none(), "{algorithm} {len}");
            }
        }
    }
}
