//! Makes versions: in memory, sealed for their owner, or in the HSM.

use crate::crypto::{self, MacHash, Scheme};
use crate::error::{Error, Result};
use crate::hsm::KeyKind;
use crate::keyring::{KeyUse, SealedValue};
use crate::store::keys::KeyOwner;
use crate::store::named_keys::{NamedKeyCountRow, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Tx, Versioned};
use crate::types::{
    Entropy as _, IdentityId, KeyAlgorithm, KeyOrigin, KeyVersionState, NamedKeyState, ObjectId,
    RequestContext, SecretBytes, UnixMillis, VaultId,
};
use crate::vault::View;

use super::count::restore_epoch;
use super::find::{label, place};

/// Versions of one key, at most: a header has room for more.
const VERSIONS: i64 = 1 << 31;

/// A version that is to be written, made in memory.
#[derive(Debug)]
pub struct NewVersion {
    vault: VaultId,
    row: NamedKeyVersionRow,
    sealed: SealedValue,
    /// Messages that count as reserved from the beginning, where they are counted.
    reserved: Option<i64>,
}

/// A version's key that is there.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) material: SecretBytes,
    /// Its public half, where it has one.
    pub(super) public_key: Option<Vec<u8>>,
    pub(super) origin: KeyOrigin,
    /// Messages that count as reserved from the beginning.
    pub(super) reserved: i64,
}

impl NewVersion {
    /// Makes a version's key and seals it.
    pub(super) async fn seal(view: &View, key: &NamedKeyRow, version: i64) -> Result<Self> {
        let (material, public_key) = fresh(view, key.algorithm)?;
        let brought = Brought { material, public_key, origin: KeyOrigin::Made, reserved: 0 };
        Self::of(view, key, version, brought).await
    }

    /// Seals a version's key that is there.
    pub(super) async fn of(
        view: &View,
        key: &NamedKeyRow,
        version: i64,
        brought: Brought,
    ) -> Result<Self> {
        let Brought { material, public_key, origin, reserved } = brought;
        let mut row = blank(view, key.id, version, None)?;
        let place = place(key.id, row.id, version);
        let sealed = view.seal_for(KeyOwner::Identity(key.owner), &place, &material).await?;
        row.state = KeyVersionState::Live;
        row.public_key = public_key;
        row.origin = origin;
        let reserved = key.algorithm.is_counted().then_some(reserved);
        Ok(Self { vault: view.vault_id(), row, sealed, reserved })
    }

    /// The keys that were used.
    pub(super) fn used(&self) -> &[KeyUse] {
        self.sealed.used()
    }

    /// Stores it.
    pub(super) async fn store(&self, tx: &mut Tx) -> Result<()> {
        let stored = self.sealed.store(tx).await?;
        let (material, wrap_key) = (stored.blob.to_vec(), Some(stored.key_id));
        tx.insert(&NamedKeyVersionRow { material, wrap_key, ..self.row.clone() }).await?;
        if let Some(reserved) = self.reserved {
            let restore_epoch = restore_epoch(tx, self.vault).await?;
            tx.insert(&NamedKeyCountRow { id: self.row.id, reserved, restore_epoch }).await?;
        }
        Ok(())
    }
}

/// A version that is not there yet, and whose place in the HSM it takes.
pub(super) fn blank(
    view: &View,
    key: ObjectId,
    version: i64,
    in_hsm_of: Option<IdentityId>,
) -> Result<NamedKeyVersionRow> {
    if version > VERSIONS {
        return Err(Error::precondition("the key has as many versions as there may be"));
    }
    let (now, by) = (view.now(), view.actor());
    Ok(NamedKeyVersionRow {
        id: ObjectId(view.new_id()?),
        named_key: key,
        version,
        state: KeyVersionState::Pending,
        material: Vec::new(),
        wrap_key: None,
        public_key: None,
        pinned: None,
        origin: KeyOrigin::Made,
        in_hsm_of,
        created_at: now,
        created_by: by.clone(),
        changed_at: now,
        changed_by: by,
    })
}

/// Makes a key, and its public half where it has one.
fn fresh(view: &View, algorithm: KeyAlgorithm) -> Result<(SecretBytes, Option<Vec<u8>>)> {
    let entropy = view.keyring().entropy()?;
    let len_bytes = match algorithm {
        KeyAlgorithm::Aes256Gcm
        | KeyAlgorithm::ChaCha20Poly1305
        | KeyAlgorithm::Xaes256Gcm
        | KeyAlgorithm::HmacSha256 => 32,
        KeyAlgorithm::HmacSha512 => 64,
        KeyAlgorithm::Ed25519
        | KeyAlgorithm::EcdsaP256
        | KeyAlgorithm::EcdsaP384
        | KeyAlgorithm::RsaPss3072
        | KeyAlgorithm::RsaPss4096 => {
            let made = crypto::new_signer(scheme(algorithm)?, &entropy)?;
            return Ok((made.private, Some(made.public)));
        }
    };
    let mut key = zeroize::Zeroizing::new(vec![0; len_bytes]);
    entropy.fill(&mut key)?;
    Ok((key.into(), None))
}

/// How an algorithm signs.
pub(super) fn scheme(algorithm: KeyAlgorithm) -> Result<Scheme> {
    match algorithm {
        KeyAlgorithm::Ed25519 => Ok(Scheme::Ed25519),
        KeyAlgorithm::EcdsaP256 => Ok(Scheme::EcdsaP256),
        KeyAlgorithm::EcdsaP384 => Ok(Scheme::EcdsaP384),
        KeyAlgorithm::RsaPss3072 => Ok(Scheme::RsaPssSha256),
        KeyAlgorithm::RsaPss4096 => Ok(Scheme::RsaPssSha384),
        KeyAlgorithm::Aes256Gcm
        | KeyAlgorithm::ChaCha20Poly1305
        | KeyAlgorithm::Xaes256Gcm
        | KeyAlgorithm::HmacSha256
        | KeyAlgorithm::HmacSha512 => Err(Error::internal("a key that does not sign")),
    }
}

/// The hash of a MAC.
pub(super) fn mac_hash(algorithm: KeyAlgorithm) -> MacHash {
    if algorithm == KeyAlgorithm::HmacSha512 { MacHash::Sha512 } else { MacHash::Sha256 }
}

/// What a key is to the HSM.
fn kind(algorithm: KeyAlgorithm) -> Result<KeyKind> {
    match algorithm {
        KeyAlgorithm::Ed25519 => Ok(KeyKind::Ed25519),
        KeyAlgorithm::EcdsaP256 => Ok(KeyKind::EcdsaP256),
        KeyAlgorithm::EcdsaP384 => Ok(KeyKind::EcdsaP384),
        KeyAlgorithm::RsaPss3072 => Ok(KeyKind::RsaPss3072),
        KeyAlgorithm::RsaPss4096 => Ok(KeyKind::RsaPss4096),
        KeyAlgorithm::Aes256Gcm
        | KeyAlgorithm::ChaCha20Poly1305
        | KeyAlgorithm::Xaes256Gcm
        | KeyAlgorithm::HmacSha256
        | KeyAlgorithm::HmacSha512 => Err(Error::internal("a key that is not kept in the HSM")),
    }
}

/// What was made in the HSM.
#[derive(Debug)]
pub struct MadeInHsm {
    public_key: Option<Vec<u8>>,
    pinned: Vec<u8>,
}

/// Makes a version's key in the HSM: of a key that awaits its import, the one that unwraps it.
pub(super) async fn make_in_hsm(
    view: &View,
    key: &NamedKeyRow,
    row: &NamedKeyVersionRow,
) -> Result<MadeInHsm> {
    let kind = match key.state {
        NamedKeyState::Awaiting => KeyKind::RsaOaep3072,
        NamedKeyState::Active | NamedKeyState::Disabled => kind(key.algorithm)?,
    };
    let label = label(view.vault_id(), row.named_key, row.version);
    let used = KeyUse { key: row.named_key.to_string(), version: row.version, purpose: "make/hsm" };
    let made = view.hsm().create_key(&label, kind).await.map_err(Error::from);
    let made = view.noted(&used, made)?;
    Ok(MadeInHsm { public_key: made.public_key_spki, pinned: made.check })
}

/// Commits that a version is in the HSM.
pub(super) async fn is_made(
    ctx: &RequestContext,
    tx: &mut Tx,
    (key, row): (NamedKeyState, &NamedKeyVersionRow),
    made: &MadeInHsm,
) -> Result<()> {
    let pending = Versioned::first(row.clone());
    let row = NamedKeyVersionRow {
        state: match key {
            NamedKeyState::Awaiting => KeyVersionState::Awaiting,
            NamedKeyState::Active | NamedKeyState::Disabled => KeyVersionState::Live,
        },
        public_key: made.public_key.clone(),
        pinned: Some(made.pinned.clone()),
        changed_at: ctx.now,
        changed_by: ctx.actor(),
        ..row.clone()
    };
    tx.change(&pending, &row).await?;
    Ok(())
}

/// When a key that rotates every so many seconds does next.
pub(in crate::engines) fn rotates_at(
    now: UnixMillis,
    every_s: Option<i64>,
) -> Result<Option<UnixMillis>> {
    let Some(every_s) = every_s else { return Ok(None) };
    let every_s = u64::try_from(every_s).map_err(Error::internal)?;
    now.plus(std::time::Duration::from_secs(every_s)).map(Some)
}
