//! Shows the versions of the root key, and how far what they wrap is moved.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{ROOT, resource};
use crate::engines::identities::Names;
use crate::engines::rotations::{Progress, Schedule, Versions};
use crate::error::Result;
use crate::store::keys::{self, HsmKeyRow, KeyState};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, Rotates, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// A version of the root key.
#[derive(Debug, Clone)]
pub struct RootVersion {
    /// Its number.
    pub version: i64,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub created_at: UnixMillis,
    /// How many keys it wraps.
    pub wraps: i64,
    /// The rotation by which another took its place.
    pub replaced: Option<Progress>,
}

/// The root key.
#[derive(Debug, Clone)]
pub struct RootStatus {
    /// Its versions, the newest first.
    pub versions: Vec<RootVersion>,
    /// The rotation whose key is being made.
    pub pending: Option<Progress>,
    /// When it rotates by itself.
    pub schedule: Option<Schedule>,
}

impl RootStatus {
    pub(super) async fn read(tx: &mut Tx, now: UnixMillis) -> Result<Self> {
        let found = Versions::read(tx, ROOT).await?;
        let (mut names, mut versions) = (Names::default(), Vec::with_capacity(found.keys.len()));
        for key in &found.keys {
            let HsmKeyRow { id, version, state, created_at, .. } = &key.row;
            // What is destroyed wraps nothing.
            let wraps = match state {
                KeyState::Active | KeyState::Retired => keys::count_wraps(tx, id).await?,
                KeyState::Destroyed => 0,
            };
            let replaced = match found.replaced(*version) {
                Some(by) => {
                    let row: RotationRow = by.row.clone();
                    Some(Progress::of(tx, &mut names, row, wraps, now).await?)
                }
                None => None,
            };
            let (version, state, created_at) = (*version, *state, *created_at);
            versions.push(RootVersion { version, state, created_at, wraps, replaced });
        }
        let pending = match found.pending() {
            Some(found) => {
                let row = found.row.clone();
                Some(Progress::of(tx, &mut names, row, 0, now).await?)
            }
            None => None,
        };
        Ok(Self { versions, pending, schedule: Schedule::read(tx, Rotates::Root).await? })
    }
}

/// Shows the root key.
#[derive(Debug, Clone, Copy)]
pub struct ShowRoot;

#[async_trait]
impl Verb for ShowRoot {
    const ACTION: &'static str = "root.show";
    type Prepared = RootStatus;
    type Output = RootStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<RootStatus> {
        let now = view.now();
        view.read(move |tx| RootStatus::read(tx, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowRoot {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &RootStatus,
        _: &Decision,
    ) -> Result<RootStatus> {
        Ok(shown.clone())
    }
}
