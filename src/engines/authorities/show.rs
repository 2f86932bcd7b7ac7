//! Shows the versions of an authority, and how much of what hangs on each alone is valid.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{AuthorityName, resource, valid};
use crate::engines::identities::Names;
use crate::engines::rotations::{Progress, Schedule, Versions};
use crate::error::Result;
use crate::store::keys::KeyState;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// A version of an authority.
#[derive(Debug, Clone)]
pub struct AuthorityVersion {
    /// Its number.
    pub version: i64,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub created_at: UnixMillis,
    /// How much of what hangs on it alone is valid.
    pub valid: i64,
    /// Until when the last of that is; 0 where there is none.
    pub valid_until: UnixMillis,
    /// The rotation by which another took its place.
    pub replaced: Option<Progress>,
}

/// An authority.
#[derive(Debug, Clone)]
pub struct AuthorityStatus {
    /// Its versions, the newest first.
    pub versions: Vec<AuthorityVersion>,
    /// The rotation whose key is being made.
    pub pending: Option<Progress>,
    /// When it rotates by itself.
    pub schedule: Option<Schedule>,
}

impl AuthorityStatus {
    pub(super) async fn read(tx: &mut Tx, name: AuthorityName, now: UnixMillis) -> Result<Self> {
        let found = Versions::read(tx, name.kept()).await?;
        let (mut names, mut versions) = (Names::default(), Vec::with_capacity(found.keys.len()));
        for key in &found.keys {
            let (version, state, created_at) = (key.row.version, key.row.state, key.row.created_at);
            let by = found.replaced(version);
            let (valid, valid_until) = match state {
                KeyState::Active | KeyState::Retired => {
                    valid(tx, name, &found, &key.row, now).await?
                }
                KeyState::Destroyed => (0, UnixMillis(0)),
            };
            let replaced = match by {
                Some(by) => Some(Progress::of(tx, &mut names, by.row.clone(), valid, now).await?),
                None => None,
            };
            versions.push(AuthorityVersion {
                version,
                state,
                created_at,
                valid,
                valid_until,
                replaced,
            });
        }
        let pending = match found.pending() {
            Some(found) => Some(Progress::of(tx, &mut names, found.row.clone(), 0, now).await?),
            None => None,
        };
        Ok(Self { versions, pending, schedule: Schedule::read(tx, name.subject()).await? })
    }
}

/// Shows an authority.
#[derive(Debug, Clone, Copy)]
pub struct ShowAuthority {
    /// Which.
    pub name: AuthorityName,
}

#[async_trait]
impl Verb for ShowAuthority {
    const ACTION: &'static str = "authorities.show";
    type Prepared = AuthorityStatus;
    type Output = AuthorityStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<AuthorityStatus> {
        let (name, now) = (self.name, view.now());
        view.read(move |tx| AuthorityStatus::read(tx, name, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowAuthority {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &AuthorityStatus,
        _: &Decision,
    ) -> Result<AuthorityStatus> {
        Ok(shown.clone())
    }
}
