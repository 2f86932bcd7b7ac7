//! The key of an identity: rotated, and what is under it moved to the new version by a worker.
//!
//! What is under it are the values of its secrets, its named keys and its authenticators: each under a
//! data key of its own, of which the wrap alone is made anew.

mod finish;
mod moves;
mod rotate;
mod schedule;
mod show;

pub use finish::{FinishIdentityKey, Finishing};
pub use moves::{MoveIdentityData, Moving};
pub use rotate::{KeyRotation, RotateIdentityKey};
pub use schedule::ScheduleIdentityKey;
pub use show::{IdentityKeyStatus, IdentityKeyVersion, ShowIdentityKey};

use futures_util::FutureExt as _;

use crate::engines::rotations::went_on;
use crate::error::{Error, Result};
use crate::store::identities::IdentityRow;
use crate::store::keys::{self, IdentityKeyRow, KeyOwner};
use crate::store::rotations::RotationRow;
use crate::store::{Tx, Versioned};
use crate::types::{IdentityId, ResourceName, Rotates, RotationState, UnixMillis};
use crate::vault::{Resource, View};

/// A rotation that is under way, and the version that it leads away from.
#[derive(Debug)]
struct UnderWay {
    rotation: Versioned<RotationRow>,
    old: Versioned<IdentityKeyRow>,
    owner: IdentityId,
}

impl UnderWay {
    /// Finds it by its name.
    async fn find(tx: &mut Tx, id: &str) -> Result<Self> {
        let found = tx.lookup::<RotationRow>(&id).await?;
        let goes_on = |found: &Versioned<RotationRow>| {
            matches!(found.row.state, RotationState::Moving | RotationState::Moved)
        };
        let rotation = found.filter(goes_on).ok_or_else(went_on)?;
        let Rotates::Identity(owner) = rotation.row.subject else { return Err(went_on()) };
        let version = rotation.row.from_version;
        let old = keys::key_numbered(tx, KeyOwner::Identity(owner), version).await?;
        let old = old.ok_or_else(|| Error::internal("a rotation without its key"))?;
        Ok(Self { rotation, old, owner })
    }

    async fn of(view: &View, id: &str) -> Result<Self> {
        let id = id.to_owned();
        view.read(move |tx| async move { Self::find(tx, &id).await }.boxed()).await
    }
}

/// What is to be done next for a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// [`MoveIdentityData`].
    Move,
    /// [`FinishIdentityKey`].
    Finish,
    /// Nothing, for a while.
    Wait,
}

impl Step {
    /// Looks at a rotation that is under way.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it is under way no more; what the store answers.
    pub async fn find(tx: &mut Tx, id: &str, now: UnixMillis) -> Result<Self> {
        UnderWay::find(tx, id).await?.due(tx, now).await
    }
}

/// Whose key it is, as a resource, for the worker.
async fn resource_of(view: &View, id: &str) -> Result<Resource> {
    let id = id.to_owned();
    let read = view.read(move |tx| {
        async move {
            let owner = UnderWay::find(tx, &id).await?.owner;
            let found = tx.lookup::<IdentityRow>(&owner).await?;
            found.ok_or_else(|| Error::internal("a key without its identity"))
        }
        .boxed()
    });
    let found = read.await?;
    let name = ResourceName::join("identities", &[found.row.name.as_str()])?;
    Ok(Resource::named(name).with_row(found.row.id.0, &found))
}
