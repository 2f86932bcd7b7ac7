//! The versions of a key in the HSM, and the next one that it may have.

use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::keyring::label;
use crate::store::keys::{self, HsmKeyRow, HsmPurpose, KeyState};
use crate::store::rotations::{self, RotationRow};
use crate::store::{Tx, Versioned};
use crate::types::{Rotates, RotationState};
use crate::vault::{Decision, View};

/// Numbers that are tried: keys of a store that was lost may be in the HSM.
const NUMBERS: usize = 64;
/// Rotations that are looked at: as many as versions of keys in the HSM are.
const ROTATIONS: i64 = 256;

/// A key in the HSM that rotates: what it is for, and how its rotations are filed.
pub(in crate::engines) type Kept = (HsmPurpose, Rotates);

/// The versions of a key in the HSM and what took their places, of one snapshot.
#[derive(Debug)]
pub(in crate::engines) struct Versions {
    /// The newest first.
    pub(in crate::engines) keys: Vec<Versioned<HsmKeyRow>>,
    /// The newest first.
    pub(in crate::engines) rotations: Vec<Versioned<RotationRow>>,
}

impl Versions {
    pub(in crate::engines) async fn read(tx: &mut Tx, (purpose, subject): Kept) -> Result<Self> {
        let keys = keys::keys_for(tx, purpose).await?;
        // However many came to nothing since, what a version's place was taken by is found; of those
        // only the newest is looked at, whose number is not given again.
        let mut rotations = rotations::of_subject(tx, subject, 1).await?;
        rotations.retain(|newest| newest.row.state == RotationState::Failed);
        rotations.extend(rotations::standing_of(tx, subject, ROTATIONS).await?);
        Ok(Self { keys, rotations })
    }

    pub(in crate::engines) async fn of(view: &View, kept: Kept) -> Result<Self> {
        view.read(move |tx| Self::read(tx, kept).boxed()).await
    }

    /// The version that what is new is made with.
    pub(in crate::engines) fn current(&self) -> Result<&Versioned<HsmKeyRow>> {
        let current = self.keys.iter().find(|key| key.row.state == KeyState::Active);
        current.ok_or_else(|| Error::internal("a key in the HSM without a current version"))
    }

    pub(in crate::engines) fn numbered(&self, version: i64) -> Option<&Versioned<HsmKeyRow>> {
        self.keys.iter().find(|key| key.row.version == version)
    }

    /// The rotation by which another version took the place of one.
    pub(in crate::engines) fn replaced(&self, version: i64) -> Option<&Versioned<RotationRow>> {
        self.rotations.iter().find(|found| {
            let RotationRow { from_version, state, .. } = &found.row;
            let came_true = !matches!(state, RotationState::Pending | RotationState::Failed);
            *from_version == version && came_true
        })
    }

    pub(in crate::engines) fn pending(&self) -> Option<&Versioned<RotationRow>> {
        self.rotations.iter().find(|found| found.row.state == RotationState::Pending)
    }

    /// The highest number that was ever given to a version. Those of versions that came to nothing are
    /// not used again.
    pub(in crate::engines) fn highest(&self) -> i64 {
        let versions = self.keys.iter().map(|key| key.row.version);
        versions.chain(self.rotations.iter().map(|found| found.row.to_version)).max().unwrap_or(0)
    }
}

/// A rotation of a key in the HSM that is to be written.
#[derive(Debug)]
pub struct NextVersion {
    /// The version before it.
    pub(in crate::engines) was: Versioned<HsmKeyRow>,
    /// The rotation.
    pub(in crate::engines) row: RotationRow,
    /// What the key is called in the HSM.
    pub(in crate::engines) label: String,
}

impl NextVersion {
    /// Finds out which version is next.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the current one is not what was decided on or expected, or the next
    /// one is being made; [`Error::Precondition`] where there are as many as may be.
    pub(in crate::engines) async fn find(
        view: &View,
        decision: &Decision,
        kept: Kept,
        (expected, most): (i64, usize),
    ) -> Result<Self> {
        let found = Versions::of(view, kept).await?;
        let was = found.current()?.clone();
        if !decision.resource()?.rows.contains(&was.fence()) {
            return Err(Error::Conflict("the key was rotated meanwhile; retry".into()));
        }
        let from = was.row.version;
        if expected != 0 && expected != from {
            return Err(Error::Conflict(format!("the current version is {from}").into()));
        }
        if found.pending().is_some() {
            return Err(Error::Conflict(
                "its next version is being made; where that was cut off, it is ended within a minute"
                    .into(),
            ));
        }
        let live = found.keys.iter().filter(|key| key.row.state != KeyState::Destroyed).count();
        if live >= most {
            return Err(Error::precondition(format!(
                "it has {most} versions, as many as may be: retire the oldest first"
            )));
        }
        let (to, label) = free(view, kept.0, found.highest()).await?;
        let (now, by) = (view.now(), view.actor());
        let row = RotationRow {
            id: RotationRow::name(kept.1, to),
            subject: kept.1,
            from_version: from,
            to_version: to,
            state: RotationState::Pending,
            total: 0,
            node: view.node().to_owned(),
            started_at: now,
            started_by: by.clone(),
            changed_at: now,
            changed_by: by,
        };
        Ok(Self { was, row, label })
    }
}

/// Finds the next number of which the HSM holds no key.
async fn free(view: &View, purpose: HsmPurpose, highest: i64) -> Result<(i64, String)> {
    let mut to = highest;
    for _ in 0..NUMBERS {
        to = to.checked_add(1).ok_or(Error::Internal)?;
        let label = label(view.vault_id(), purpose, to);
        if view.hsm().lookup_key(&label).await?.is_none() {
            return Ok((to, label));
        }
    }
    Err(Error::precondition("the HSM holds keys of this vault that this store does not know"))
}
