//! Backs one key up, where it was made for that, and restores it where it is gone.
//!
//! What is restored has lost count of what it encrypted since: where messages are counted, its
//! versions encrypt no more, and the next one does.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::batch::all_used;
use super::copy::{self, Head, KeyCopy, Version};
use super::count::STOP;
use super::create::{require_free, taken};
use super::find::{awaits, gone, named, of, place, unknown};
use super::make::{Brought, NewVersion, rotates_at};
use super::show::KeyDetail;
use crate::audit::Field;
use crate::engines::secrets::nameable;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, KeyringError, SealedValue};
use crate::store::identities::IdentityRow;
use crate::store::keys::KeyOwner;
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{KeyName, KeyPurpose, NamedKeyState, Placement, RequestContext};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Versions of a backup at most.
const VERSIONS: i64 = 100;

/// Backs a key up.
#[derive(Debug, Clone)]
pub struct BackUpKey {
    /// Its name.
    pub name: KeyName,
}

/// A key that is sealed again, for a backup.
#[derive(Debug)]
pub struct BackedUp {
    row: NamedKeyRow,
    sealed: SealedValue,
    versions: usize,
    noted: Vec<KeyUse>,
}

/// Opens the versions of a key that are used.
async fn opened(view: &View, row: &NamedKeyRow) -> Result<Vec<Version>> {
    let (id, min, newest) = (row.id, row.min_version, row.newest);
    let read = view.read(move |tx| {
        async move {
            let most = VERSIONS.saturating_add(1);
            Ok(named_keys::versions_used(tx, id, (min, newest), most).await?)
        }
        .boxed()
    });
    let found = read.await?;
    if i64::try_from(found.len()).is_ok_and(|many| many > VERSIONS) {
        return Err(Error::precondition(format!(
            "a backup holds at most {VERSIONS} versions; retire old ones with --min-version"
        )));
    }
    if found.last().is_none_or(|last| last.row.version != newest) {
        return Err(gone("named_key_versions", id));
    }
    let owner = KeyOwner::Identity(row.owner);
    let mut versions = Vec::with_capacity(found.len());
    for found in found {
        let NamedKeyVersionRow { id, named_key, version, material, wrap_key, .. } = found.row;
        let wrap_key = wrap_key.ok_or_else(|| gone("named_key_versions", id))?;
        let opened = view.open(owner, &place(named_key, id, version), wrap_key, &material).await?;
        versions.push(Version {
            number: version,
            material: opened.plaintext,
            public_key: found.row.public_key,
            origin: found.row.origin,
        });
    }
    Ok(versions)
}

#[async_trait]
impl Verb for BackUpKey {
    const ACTION: &'static str = "keys.backup";
    type Prepared = BackedUp;
    type Output = Vec<u8>;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = named(view, &self.name).await?;
        Ok(vec![of(&self.name, found.as_ref())?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<BackedUp> {
        let found = named(view, &self.name).await?.ok_or_else(unknown)?;
        if !decision.resource()?.rows.contains(&found.fence()) {
            return Err(Error::Conflict("the key was changed meanwhile; retry".into()));
        }
        let row = found.row;
        if !row.may_back_up {
            return Err(Error::precondition(
                "the key was not made to be backed up; `key create --allow-backup` makes one that is",
            ));
        }
        if row.state == NamedKeyState::Awaiting {
            return Err(awaits());
        }
        let versions = opened(view, &row).await?;
        let key = row.id.to_string();
        let used = |version: &Version| KeyUse {
            key: key.clone(),
            version: version.number,
            purpose: "backup/sealed",
        };
        let (used, count) = (versions.iter().map(used).collect(), versions.len());
        let copied = KeyCopy::of(&row, versions).encode()?;
        let place = copy::place(row.id, row.newest);
        let sealed = view.seal_for(KeyOwner::Identity(row.owner), &place, &copied).await?;
        Ok(BackedUp { row, sealed, versions: count, noted: all_used(view, used) })
    }

    fn note(&self, it: &BackedUp, note: &mut Note) {
        note.keys.extend(it.noted.iter().cloned());
        let NamedKeyRow { min_version, newest, .. } = &it.row;
        let detail = format!("versions {min_version} to {newest}, {} of them", it.versions);
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for BackUpKey {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &BackedUp,
        _: &Decision,
    ) -> Result<Vec<u8>> {
        let stored = it.sealed.store(tx).await?;
        let NamedKeyRow { id, owner, newest, .. } = it.row;
        let head = Head { key: id, owner, wrap_key: stored.key_id, newest };
        Ok(head.join(stored.blob))
    }
}

/// Restores a key that is gone.
#[derive(Debug, Clone)]
pub struct RestoreKey {
    /// Its name, as the backup has it.
    pub name: KeyName,
    /// What backing it up gave.
    pub backup: Vec<u8>,
}

/// A key that is to be written again.
#[derive(Debug)]
pub struct Restored {
    row: NamedKeyRow,
    versions: Vec<NewVersion>,
    noted: Vec<KeyUse>,
}

/// The one answer for whatever is wrong with a backup.
fn no_backup() -> Error {
    Error::invalid("this is no backup of a key of this vault, or its owner's key was rotated since")
}

impl RestoreKey {
    /// Opens the backup; tells the keys that were used. It came from outside: what does not open is no
    /// alarm.
    async fn open(&self, view: &View) -> Result<(Head, KeyCopy, Vec<KeyUse>)> {
        let (head, sealed) = Head::part(&self.backup).ok_or_else(no_backup)?;
        let (owner, place) = (KeyOwner::Identity(head.owner), copy::place(head.key, head.newest));
        let opened = view.keyring().open(view.reader(), owner, &place, head.wrap_key, sealed).await;
        let opened = match opened {
            Ok(opened) => opened,
            Err(KeyringError::Misplaced(_) | KeyringError::NoKey) => return Err(no_backup()),
            Err(error) => return Err(error.into()),
        };
        let copy = KeyCopy::decode(&opened.plaintext)?;
        Ok((head, copy, opened.used))
    }

    fn row(view: &View, head: &Head, copy: &KeyCopy) -> Result<NamedKeyRow> {
        let (now, by) = (view.now(), view.actor());
        Ok(NamedKeyRow {
            id: head.key,
            name: copy.name.clone(),
            owner: head.owner,
            algorithm: copy.algorithm,
            placement: Placement::Sealed,
            purpose: KeyPurpose::Any,
            origin: copy.origin,
            may_back_up: true,
            state: NamedKeyState::Active,
            newest: head.newest,
            min_version: copy.min_version,
            rotate_every_s: copy.rotate_every_s,
            rotate_at: rotates_at(now, copy.rotate_every_s)?,
            labels: copy.labels.clone(),
            created_at: copy.created_at,
            created_by: copy.created_by.clone(),
            changed_at: now,
            changed_by: by.clone(),
            owned_since: now,
            owned_by: by,
        })
    }
}

/// Finds the owner that a backup names; none where the identity is gone.
async fn owner_of(view: &View, head: &Head) -> Result<Option<Versioned<IdentityRow>>> {
    let owner = head.owner;
    view.read(move |tx| async move { Ok(tx.lookup::<IdentityRow>(&owner).await?) }.boxed()).await
}

#[async_trait]
impl Verb for RestoreKey {
    const ACTION: &'static str = "keys.restore";
    type Prepared = Restored;
    type Output = KeyDetail;

    /// It stands on the owner that the backup names as well.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let mut resource = of(&self.name, named(view, &self.name).await?.as_ref())?;
        if let Some((head, _)) = Head::part(&self.backup) {
            resource.rows.extend(owner_of(view, &head).await?.map(|owner| owner.fence()));
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Restored> {
        require_free(decision)?;
        let (head, copy, opening) = self.open(view).await?;
        if copy.name != self.name {
            return Err(Error::invalid("the backup is of a key of another name"));
        }
        // Whoever may not make a key for the owner puts none back either.
        let owner = owner_of(view, &head).await?.ok_or_else(no_backup)?;
        nameable(view, &owner.row.name).await?;
        let row = Self::row(view, &head, &copy)?;
        let mut versions = Vec::with_capacity(copy.versions.len());
        let mut noted = Vec::with_capacity(copy.versions.len());
        for Version { number, material, public_key, origin } in copy.versions {
            let brought = Brought { material, public_key, origin, reserved: STOP };
            versions.push(NewVersion::of(view, &row, number, brought).await?);
            let key = row.id.to_string();
            noted.push(KeyUse { key, version: number, purpose: "restore/sealed" });
        }
        noted.extend(opening);
        Ok(Restored { row, versions, noted: all_used(view, noted) })
    }

    fn note(&self, it: &Restored, note: &mut Note) {
        note.keys.extend(it.noted.iter().cloned());
        let NamedKeyRow { algorithm, min_version, newest, owner, .. } = &it.row;
        let detail = format!("{algorithm}, versions {min_version} to {newest}, owner {owner}");
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for RestoreKey {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Restored,
        _: &Decision,
    ) -> Result<KeyDetail> {
        // Under another name it is there still, or was never gone.
        let there = tx.lookup::<NamedKeyRow>(&it.row.id).await?;
        if there.is_some() {
            return Err(Error::AlreadyExists("the key is there".into()));
        }
        let row = tx.insert(&it.row).await.map_err(taken)?;
        for version in &it.versions {
            version.store(tx).await?;
        }
        KeyDetail::of(tx, row).await
    }
}
