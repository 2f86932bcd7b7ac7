//! Shows the versions of an identity's key, and how far what is under them is moved.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::engines::identities::Names;
use crate::engines::identities::show::{decided, resource};
use crate::engines::rotations::{Progress, Schedule};
use crate::error::Result;
use crate::store::keys::{self, KeyOwner, KeyState};
use crate::store::rotations;
use crate::store::{Needs, Tx};
use crate::types::{IdentityId, IdentityName, RequestContext, Rotates, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Versions that are shown.
const SHOWN: i64 = 32;

/// A version of an identity's key.
#[derive(Debug, Clone)]
pub struct IdentityKeyVersion {
    /// Its number.
    pub version: i64,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub created_at: UnixMillis,
    /// How many data keys are under it.
    pub under: i64,
    /// The rotation by which another took its place.
    pub replaced: Option<Progress>,
}

/// The key of an identity.
#[derive(Debug, Clone)]
pub struct IdentityKeyStatus {
    /// Its versions, the newest first; none before something is encrypted for it.
    pub versions: Vec<IdentityKeyVersion>,
    /// When it rotates by itself.
    pub schedule: Option<Schedule>,
}

impl IdentityKeyStatus {
    pub(super) async fn read(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<Self> {
        let subject = Rotates::Identity(id);
        let found = keys::keys_of(tx, KeyOwner::Identity(id), SHOWN).await?;
        let rotations = rotations::of_subject(tx, subject, SHOWN).await?;
        let (mut names, mut versions) = (Names::default(), Vec::with_capacity(found.len()));
        for key in found {
            let (version, state, created_at) = (key.row.version, key.row.state, key.row.created_at);
            let under = rotations::count_under(tx, key.row.id).await?;
            let by = rotations.iter().find(|rotation| rotation.row.from_version == version);
            let replaced = match by {
                Some(by) => Some(Progress::of(tx, &mut names, by.row.clone(), under, now).await?),
                None => None,
            };
            versions.push(IdentityKeyVersion { version, state, created_at, under, replaced });
        }
        Ok(Self { versions, schedule: Schedule::read(tx, subject).await? })
    }
}

/// Shows the key of an identity.
#[derive(Debug, Clone)]
pub struct ShowIdentityKey {
    /// The identity's name.
    pub name: IdentityName,
}

#[async_trait]
impl Verb for ShowIdentityKey {
    const ACTION: &'static str = "identities.show-key";
    type Prepared = IdentityKeyStatus;
    type Output = IdentityKeyStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<IdentityKeyStatus> {
        let (id, now) = (decided(decision)?, view.now());
        view.read(move |tx| IdentityKeyStatus::read(tx, id, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowIdentityKey {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &IdentityKeyStatus,
        _: &Decision,
    ) -> Result<IdentityKeyStatus> {
        Ok(shown.clone())
    }
}
