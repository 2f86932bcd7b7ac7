//! Gives a key to another owner: its versions' data keys are wrapped for the new one, the keys
//! themselves stay.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::create::{check_room_for, require_own};
use super::find::{is_shredded, named, of, owner_fence, place, shredded, stale, unknown};
use super::show::KeyDetail;
use crate::audit::Field;
use crate::engines::secrets::nameable;
use crate::error::{Error, Result};
use crate::keyring::{Rewrapped, Stored, Wrapped};
use crate::store::identities::identity_named;
use crate::store::keys::KeyOwner;
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, IdentityName, KeyName, RequestContext};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Versions in the store that a key has at most to be given away: all change in one commit.
const VERSIONS: i64 = 1_000;

/// Gives a key to another owner.
#[derive(Debug, Clone)]
pub struct TransferKey {
    /// The key's name.
    pub name: KeyName,
    /// The new owner.
    pub owner: IdentityName,
    /// The newest version's number, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

/// What is to be written.
#[derive(Debug)]
pub struct Transfer {
    was: Versioned<NamedKeyRow>,
    is: NamedKeyRow,
    /// Versions in the store, with their data keys wrapped for the new owner.
    sealed: Option<(Vec<Versioned<NamedKeyVersionRow>>, Rewrapped)>,
    /// Versions that take a place in the HSM.
    in_hsm: Vec<Versioned<NamedKeyVersionRow>>,
}

impl Transfer {
    fn stays(&self) -> bool {
        self.was.row.owner == self.is.owner
    }
}

/// Parts what is stored of a version into the wrap of its data key and the message.
fn parts(row: &NamedKeyVersionRow) -> Result<(&[u8], &[u8])> {
    let key_id = row.wrap_key.ok_or_else(|| Error::internal("a sealed version without its key"))?;
    Stored { blob: &row.material, key_id }.parts()
}

/// Wraps the data keys of versions for another owner.
async fn again(
    view: &View,
    owners: (KeyOwner, KeyOwner),
    versions: &[Versioned<NamedKeyVersionRow>],
) -> Result<Rewrapped> {
    let mut wrapped = Vec::with_capacity(versions.len());
    for Versioned { row, .. } in versions {
        let (wrap, _) = parts(row)?;
        wrapped.push(Wrapped {
            place: place(row.named_key, row.id, row.version),
            key_id: row.wrap_key.ok_or(Error::Internal)?,
            wrap: wrap.to_vec(),
        });
    }
    view.rewrap(owners, &wrapped).await
}

#[async_trait]
impl Verb for TransferKey {
    const ACTION: &'static str = "keys.transfer";
    type Prepared = Transfer;
    type Output = KeyDetail;

    /// It stands on both owners as well: what was of one who is shredded meanwhile goes nowhere.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let (name, owner) = (self.name.clone(), self.owner.clone());
        let read = view.read(move |tx| {
            async move {
                let found = named_keys::key_named(tx, &name).await?;
                let mut resource = of(&name, found.as_ref())?;
                if let Some(found) = &found {
                    resource.rows.extend(owner_fence(tx, &found.row).await?);
                }
                let owner = identity_named(tx, &owner).await?;
                resource.rows.extend(owner.map(|owner| owner.fence()));
                Ok(resource)
            }
            .boxed()
        });
        Ok(vec![read.await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Transfer> {
        let was = named(view, &self.name).await?.ok_or_else(unknown)?;
        if !decision.resource()?.rows.contains(&was.fence()) {
            return Err(Error::Conflict("the key was changed meanwhile; retry".into()));
        }
        if self.expected != 0 && self.expected != was.row.newest {
            return Err(stale(was.row.newest));
        }
        let owner = nameable(view, &self.owner).await?.row.id;
        let (now, by) = (view.now(), view.actor());
        let is = NamedKeyRow {
            owner,
            changed_at: now,
            changed_by: by.clone(),
            owned_since: now,
            owned_by: by,
            ..was.row.clone()
        };
        let mut it = Transfer { was, is, sealed: None, in_hsm: Vec::new() };
        if it.stays() {
            return Ok(it);
        }
        let key = it.was.row.clone();
        let read = view.read(move |tx| {
            async move {
                if is_shredded(tx, &key).await? {
                    return Err(shredded());
                }
                let most = VERSIONS.saturating_add(1);
                let sealed = named_keys::versions_sealed(tx, key.id, most).await?;
                Ok((sealed, named_keys::versions_in_hsm(tx, key.id).await?))
            }
            .boxed()
        });
        let (sealed, in_hsm) = read.await?;
        if i64::try_from(sealed.len()).is_ok_and(|many| many > VERSIONS) {
            let text = format!("a key with more than {VERSIONS} versions stays with its owner");
            return Err(Error::precondition(text));
        }
        if !in_hsm.is_empty() {
            require_own(view, owner)?;
        }
        it.in_hsm = in_hsm;
        if !sealed.is_empty() {
            let owners = (KeyOwner::Identity(it.was.row.owner), KeyOwner::Identity(owner));
            let again = again(view, owners, &sealed).await?;
            it.sealed = Some((sealed, again));
        }
        Ok(it)
    }

    fn note(&self, it: &Transfer, note: &mut Note) {
        let used = it.sealed.iter().flat_map(|(_, again)| again.used());
        note.keys.extend(used.cloned());
        let detail = format!("owner {} -> {}", it.was.row.owner, it.is.owner);
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for TransferKey {
    /// Whoever uses it meanwhile is decided again.
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    fn holds(&self, it: &Transfer) -> Option<Id> {
        (!it.in_hsm.is_empty()).then_some(it.is.owner.0)
    }

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Transfer,
        _: &Decision,
    ) -> Result<KeyDetail> {
        if it.stays() {
            return KeyDetail::of(tx, it.was.clone()).await;
        }
        // A version that was made meanwhile is under the old owner's key: the key's row moved then.
        let row = tx.change(&it.was, &it.is).await?;
        if let Some((versions, again)) = &it.sealed {
            let (wrap_key, wraps) = again.store(tx).await?;
            if wraps.len() != versions.len() {
                return Err(Error::internal("a version without its wrap"));
            }
            for (version, wrap) in versions.iter().zip(wraps) {
                let (_, message) = parts(&version.row)?;
                let material = [wrap.as_slice(), message].concat();
                let wrap_key = Some(wrap_key);
                let row = NamedKeyVersionRow { material, wrap_key, ..version.row.clone() };
                tx.change(version, &row).await?;
            }
        }
        if !it.in_hsm.is_empty() {
            check_room_for(tx, it.is.owner, it.in_hsm.len()).await?;
        }
        for version in &it.in_hsm {
            let in_hsm_of = Some(it.is.owner);
            tx.change(version, &NamedKeyVersionRow { in_hsm_of, ..version.row.clone() }).await?;
        }
        KeyDetail::of(tx, row).await
    }
}
