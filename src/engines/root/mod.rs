//! The root key in the HSM: rotated, retired, watched. What it wraps, the keys of identities, is wrapped
//! again in the background by a worker.
//!
//! Must not know what identity keys encrypt.

mod finish;
mod retire;
mod rotate;
mod schedule;
mod settle;
mod show;

pub use finish::{FinishRoot, Finished};
pub use retire::{RetireRoot, Retiring};
pub use rotate::{RootRotation, RotateRoot};
pub use schedule::ScheduleRoot;
pub use settle::{SettleRoot, Settling};
pub use show::{RootStatus, RootVersion, ShowRoot};

use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::keys::{self, HsmKeyRow, HsmPurpose, KeyState};
use crate::store::rotations::{self, RotationRow};
use crate::store::{Tx, Versioned};
use crate::types::{ResourceName, Rotates, RotationState};
use crate::vault::{Resource, View};

/// Rotations that are looked at: as many as versions of keys in the HSM are.
const ROTATIONS: i64 = 256;

/// The versions of the root key and what took their places, of one snapshot.
#[derive(Debug)]
struct Found {
    /// The newest first.
    keys: Vec<Versioned<HsmKeyRow>>,
    /// The newest first.
    rotations: Vec<Versioned<RotationRow>>,
}

impl Found {
    async fn read(tx: &mut Tx) -> Result<Self> {
        Ok(Self {
            keys: keys::keys_for(tx, HsmPurpose::Root).await?,
            rotations: rotations::of_subject(tx, Rotates::Root, ROTATIONS).await?,
        })
    }

    async fn of(view: &View) -> Result<Self> {
        view.read(|tx| Self::read(tx).boxed()).await
    }

    /// The version that new wraps are made for.
    fn current(&self) -> Result<&Versioned<HsmKeyRow>> {
        let current = self.keys.iter().find(|key| key.row.state == KeyState::Active);
        current.ok_or_else(|| Error::internal("a vault without a root key"))
    }

    fn numbered(&self, version: i64) -> Option<&Versioned<HsmKeyRow>> {
        self.keys.iter().find(|key| key.row.version == version)
    }

    /// The rotation by which another version took the place of one.
    fn replaced(&self, version: i64) -> Option<&Versioned<RotationRow>> {
        self.rotations.iter().find(|found| {
            let RotationRow { from_version, state, .. } = &found.row;
            let came_true = !matches!(state, RotationState::Pending | RotationState::Failed);
            *from_version == version && came_true
        })
    }

    fn pending(&self) -> Option<&Versioned<RotationRow>> {
        self.rotations.iter().find(|found| found.row.state == RotationState::Pending)
    }

    /// The highest number that was ever given to a version. Those of versions that came to nothing are
    /// not used again.
    fn highest(&self) -> i64 {
        let versions = self.keys.iter().map(|key| key.row.version);
        versions.chain(self.rotations.iter().map(|found| found.row.to_version)).max().unwrap_or(0)
    }
}

/// The root key as a resource, with the row of its current version.
async fn resource(view: &View) -> Result<Resource> {
    let mut resource = Resource::named(ResourceName::join("root", &["key"])?);
    resource.rows.push(Found::of(view).await?.current()?.fence());
    Ok(resource)
}

/// Says that a rotation is not where it was when it was read.
fn went_on() -> Error {
    Error::Conflict("the rotation went on meanwhile".into())
}

/// Finds a rotation of the root key in one of some states.
async fn rotation(
    tx: &mut Tx,
    id: &str,
    states: &[RotationState],
) -> Result<Versioned<RotationRow>> {
    let found = tx.lookup::<RotationRow>(&id).await?;
    let fits = |found: &Versioned<RotationRow>| {
        found.row.subject == Rotates::Root && states.contains(&found.row.state)
    };
    found.filter(fits).ok_or_else(went_on)
}
