//! Makes keys.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::of;
use super::make::{MadeInHsm, NewVersion, blank, is_made, make_in_hsm, rotates_at};
use super::show::{KeyDetail, shown_by_id};
use crate::audit::Field;
use crate::engines::identities::{check_labels, write_labels};
use crate::engines::secrets::nameable;
use crate::error::{Error, Result};
use crate::store::identities::identity_named;
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, StoreError, Tx};
use crate::types::{
    Id, IdentityId, IdentityName, KeyAlgorithm, KeyName, KeyOrigin, KeyPurpose, KeyUsage,
    NamedKeyState, ObjectId, Placement, RequestContext,
};
use crate::vault::{
    Claimed, Decision, EffectOperation, Note, Operation, Resource, RetryKey, Verb, View, WRITES,
};

/// Versions in the HSM that one identity's keys may have.
const IN_HSM: i64 = 100;
/// How often a key rotates by itself at the most, and at the least.
const ROTATE_S: std::ops::RangeInclusive<u64> = 3_600..=10 * 365 * 86_400;

/// A key that is to be made.
#[derive(Debug, Clone)]
pub struct KeySpec {
    /// Its name.
    pub name: KeyName,
    /// What it does, and how.
    pub algorithm: KeyAlgorithm,
    /// Where it is kept.
    pub placement: Placement,
    /// Whose it is; the caller's where it is left out.
    pub owner: Option<IdentityName>,
    /// What it may sign.
    pub purpose: KeyPurpose,
    /// Whether its first key comes from elsewhere.
    pub import: bool,
    /// Whether it may be backed up by itself.
    pub may_back_up: bool,
    /// How often it rotates by itself.
    pub rotate_every: Option<Duration>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

impl KeySpec {
    /// Where an algorithm's keys are kept, when nothing else was asked for: what is imported is
    /// sealed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a place where they cannot be.
    pub fn placement(
        algorithm: KeyAlgorithm,
        asked: Option<Placement>,
        import: bool,
    ) -> Result<Placement> {
        let may = algorithm.placements();
        let usual = may.first().copied().ok_or_else(|| Error::internal("a key without a place"))?;
        match asked {
            None if import => Ok(Placement::Sealed),
            None => Ok(usual),
            Some(asked) if may.contains(&asked) => Ok(asked),
            Some(asked) => {
                Err(Error::invalid(format!("a key of {algorithm} cannot be kept as `{asked}`")))
            }
        }
    }

    /// Whether something is made for it in the HSM: its key, or the one that unwraps what is imported.
    #[must_use]
    pub fn is_made_in_hsm(&self) -> bool {
        self.placement == Placement::Hsm || self.import
    }

    /// Refuses what does not go together.
    fn check(&self) -> Result<()> {
        let sealed = self.algorithm.placements().contains(&Placement::Sealed)
            && self.placement == Placement::Sealed;
        if self.import && !sealed {
            return Err(Error::invalid("what is imported is kept as `sealed`"));
        }
        if self.may_back_up && !sealed {
            return Err(Error::invalid(
                "what is in the HSM never leaves it, not even for a backup",
            ));
        }
        let signs = self.algorithm.usage() == KeyUsage::Signs && self.placement == Placement::Hsm;
        match self.purpose {
            KeyPurpose::Artifacts if !signs => {
                Err(Error::invalid("artifacts are signed by a key in the HSM"))
            }
            KeyPurpose::Any | KeyPurpose::Artifacts => Ok(()),
        }
    }

    async fn resource(&self, view: &View) -> Result<Resource> {
        let (name, owner) = (self.name.clone(), self.owner.clone());
        let read = view.read(move |tx| {
            async move {
                let found = named_keys::key_named(tx, &name).await?;
                let mut resource = of(&name, found.as_ref())?;
                if let Some(owner) = &owner {
                    let owner = identity_named(tx, owner).await?;
                    resource.rows.extend(owner.map(|owner| owner.fence()));
                }
                Ok(resource)
            }
            .boxed()
        });
        read.await
    }

    /// Its row.
    async fn row(&self, view: &View) -> Result<NamedKeyRow> {
        self.check()?;
        let owner = match &self.owner {
            Some(name) => nameable(view, name).await?.row.id,
            None => view.identity()?,
        };
        check_labels(&self.labels)?;
        let rotate_every_s = self.rotate_every.map(every_s).transpose()?;
        let (now, by) = (view.now(), view.actor());
        Ok(NamedKeyRow {
            id: ObjectId(Id::random(view.entropy())?),
            name: self.name.clone(),
            owner,
            algorithm: self.algorithm,
            placement: self.placement,
            purpose: self.purpose,
            origin: if self.import { KeyOrigin::Imported } else { KeyOrigin::Made },
            may_back_up: self.may_back_up,
            state: if self.import { NamedKeyState::Awaiting } else { NamedKeyState::Active },
            newest: 1,
            min_version: 1,
            rotate_every_s,
            rotate_at: rotates_at(now, rotate_every_s)?,
            labels: write_labels(&self.labels)?,
            created_at: now,
            created_by: by.clone(),
            changed_at: now,
            changed_by: by.clone(),
            owned_since: now,
            owned_by: by,
        })
    }

    fn note(&self, note: &mut Note) {
        let mut detail = format!("{}, {}, version 1", self.algorithm, self.placement);
        if self.import {
            detail.push_str(", imported");
        }
        if self.may_back_up {
            detail.push_str(", may be backed up");
        }
        if self.purpose == KeyPurpose::Artifacts {
            detail.push_str(", for artifacts");
        }
        note.private.push((Field::Detail, detail));
    }
}

/// Reads how often a key rotates by itself.
pub(in crate::engines) fn every_s(every: Duration) -> Result<i64> {
    if !ROTATE_S.contains(&every.as_secs()) {
        return Err(Error::invalid(
            "a key rotates every hour at the most, every ten years at least",
        ));
    }
    i64::try_from(every.as_secs()).map_err(Error::internal)
}

/// Refuses where an identity's keys have as many versions in the HSM as they may, before anything is
/// written.
pub(super) async fn require_room(view: &View, owner: IdentityId) -> Result<()> {
    view.read(move |tx| async move { check_room(tx, owner).await }.boxed()).await
}

/// Refuses where an identity's keys have as many versions in the HSM as they may.
pub(super) async fn check_room(tx: &mut Tx, owner: IdentityId) -> Result<()> {
    check_room_for(tx, owner, 1).await
}

/// Refuses where an identity's keys have no room in the HSM for so many versions more. Whoever holds
/// the identity while it asks is the only one that adds to them.
pub(super) async fn check_room_for(tx: &mut Tx, owner: IdentityId, more: usize) -> Result<()> {
    let more = i64::try_from(more).map_err(Error::internal)?;
    let held = named_keys::count_in_hsm(tx, owner, IN_HSM).await?;
    if held.saturating_add(more) > IN_HSM {
        let text =
            format!("the owner's keys may have {IN_HSM} versions in the HSM, and have {held}");
        return Err(Error::Exhausted(text.into()));
    }
    Ok(())
}

/// Refuses to fill another's room in the HSM.
pub(super) fn require_own(view: &View, owner: IdentityId) -> Result<()> {
    if owner == view.identity()? || view.subject()?.is_administrator() {
        return Ok(());
    }
    let text = "a key in the HSM is made for, and given to, oneself alone; keep it sealed, or ask an \
                administrator";
    Err(Error::Denied(text.into()))
}

pub(super) fn require_free(decision: &Decision) -> Result<()> {
    match decision.resource()?.id {
        Some(_) => Err(taken(StoreError::Taken)),
        None => Ok(()),
    }
}

pub(super) fn taken(error: StoreError) -> Error {
    if error == StoreError::Taken {
        return Error::AlreadyExists("there is a key of that name".into());
    }
    error.into()
}

/// Makes a key that is sealed.
#[derive(Debug)]
pub struct CreateKey {
    /// What it is to be.
    pub spec: KeySpec,
}

/// What becomes of a call that makes a key, with its first version.
#[derive(Debug)]
pub enum Making<V> {
    /// It makes this one.
    New(Box<(NamedKeyRow, V)>),
    /// An earlier try made this one.
    Before(String),
}

impl<V> Making<V> {
    fn made(&self) -> String {
        match self {
            Self::New(new) => new.0.id.to_string(),
            Self::Before(made) => made.clone(),
        }
    }

    /// What is new: what an earlier try made is answered before anything is done.
    fn fresh(&self) -> Result<&(NamedKeyRow, V)> {
        match self {
            Self::New(new) => Ok(new.as_ref()),
            Self::Before(_) => {
                let text = "what an earlier try made is forgotten; look, and repeat with another \
                            key";
                Err(Error::Conflict(text.into()))
            }
        }
    }
}

#[async_trait]
impl Verb for CreateKey {
    const ACTION: &'static str = "keys.create";
    type Prepared = Making<NewVersion>;
    type Output = KeyDetail;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.spec.resource(view).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        if let Claimed::Made(before) = view.claimed(self).await? {
            return Ok(Making::Before(before));
        }
        require_free(decision)?;
        let row = self.spec.row(view).await?;
        let version = NewVersion::seal(view, &row, 1).await?;
        Ok(Making::New(Box::new((row, version))))
    }

    fn note(&self, it: &Self::Prepared, note: &mut Note) {
        if let Making::New(new) = it {
            note.keys.extend(new.1.used().iter().cloned());
            self.spec.note(note);
        }
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.spec.retry.as_ref()
    }

    fn made(&self, it: &Self::Prepared) -> String {
        it.made()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<KeyDetail> {
        shown_by_id(view, made).await
    }
}

#[async_trait]
impl Operation for CreateKey {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Self::Prepared,
        _: &Decision,
    ) -> Result<KeyDetail> {
        let (key, version) = it.fresh()?;
        let row = tx.insert(key).await.map_err(taken)?;
        version.store(tx).await?;
        KeyDetail::of(tx, row).await
    }
}

/// Makes a key in the HSM, or one that awaits its import, with the key in the HSM that unwraps it.
#[derive(Debug)]
pub struct CreateHsmKey {
    /// What it is to be.
    pub spec: KeySpec,
}

#[async_trait]
impl Verb for CreateHsmKey {
    const ACTION: &'static str = "keys.create";
    type Prepared = Making<NamedKeyVersionRow>;
    type Output = KeyDetail;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.spec.resource(view).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        if let Claimed::Made(before) = view.claimed(self).await? {
            return Ok(Making::Before(before));
        }
        require_free(decision)?;
        let row = self.spec.row(view).await?;
        require_own(view, row.owner)?;
        require_room(view, row.owner).await?;
        let version = blank(view, row.id, 1, Some(row.owner))?;
        Ok(Making::New(Box::new((row, version))))
    }

    fn note(&self, it: &Self::Prepared, note: &mut Note) {
        if let Making::New(_) = it {
            self.spec.note(note);
        }
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.spec.retry.as_ref()
    }

    fn made(&self, it: &Self::Prepared) -> String {
        it.made()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<KeyDetail> {
        shown_by_id(view, made).await
    }
}

#[async_trait]
impl EffectOperation for CreateHsmKey {
    type Effect = MadeInHsm;
    const NEEDS: Needs = WRITES;

    fn holds(&self, it: &Self::Prepared) -> Option<Id> {
        match it {
            Making::New(new) => Some(new.0.owner.0),
            Making::Before(_) => None,
        }
    }

    /// The version's row alone: the name is taken once there is a key.
    async fn intend(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Self::Prepared,
        _: &Decision,
    ) -> Result<()> {
        let (key, version) = it.fresh()?;
        check_room(tx, key.owner).await?;
        tx.insert(version).await?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &Self::Prepared) -> Result<MadeInHsm> {
        let (key, version) = it.fresh()?;
        make_in_hsm(view, key, version).await
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Self::Prepared,
        made: &MadeInHsm,
    ) -> Result<KeyDetail> {
        let (key, version) = it.fresh()?;
        let row = tx.insert(key).await.map_err(taken)?;
        is_made(ctx, tx, (key.state, version), made).await?;
        KeyDetail::of(tx, row).await
    }

    /// The row says what to look for in the HSM: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Self::Prepared) -> Result<()> {
        Ok(())
    }
}
