//! The root key in the HSM: rotated, retired, watched. What it wraps, the keys of identities, is wrapped
//! again in the background by a worker.
//!
//! Must not know what identity keys encrypt.

mod finish;
mod retire;
mod rotate;
mod schedule;
mod show;

pub use finish::{FinishRoot, Finished};
pub use retire::RetireRoot;
pub use rotate::RotateRoot;
pub use schedule::ScheduleRoot;
pub use show::{RootStatus, RootVersion, ShowRoot};

use super::rotations::{Kept, Versions};
use crate::error::Result;
use crate::store::keys::HsmPurpose;
use crate::types::{ResourceName, Rotates};
use crate::vault::{Resource, View};

/// What rotates here.
pub(super) const ROOT: Kept = (HsmPurpose::Root, Rotates::Root);

/// The root key as a resource, with the row of its current version.
async fn resource(view: &View) -> Result<Resource> {
    let mut resource = Resource::named(ResourceName::join("root", &["key"])?);
    resource.rows.push(Versions::of(view, ROOT).await?.current()?.fence());
    Ok(resource)
}
