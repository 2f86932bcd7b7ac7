//! Makes the root key's next version, in the HSM. New wraps are made for it from its commit on, on every
//! node; what older versions wrap opens until they are retired.

use async_trait::async_trait;

use super::{Found, RootStatus, resource};
use crate::audit::Field;
use crate::engines::rotations::{Schedule, next, raced};
use crate::error::{Error, Result};
use crate::hsm::{KeyInfo, KeyKind};
use crate::keyring::{KeyUse, label};
use crate::store::keys::{self, HsmKeyRow, HsmPurpose, KeyState};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, Rotates, RotationState};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Versions that are not retired, at most: each is a key in the HSM, and may open old backups.
const VERSIONS: usize = 8;
/// Numbers that are tried: keys of a store that was lost may be in the HSM.
const NUMBERS: usize = 64;

/// Makes the root key's next version.
#[derive(Debug, Clone, Copy)]
pub struct RotateRoot {
    /// The current version, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

/// What is to be written.
#[derive(Debug)]
pub struct RootRotation {
    was: Versioned<HsmKeyRow>,
    row: RotationRow,
    label: String,
}

impl RootRotation {
    fn used(&self) -> KeyUse {
        KeyUse { key: self.label.clone(), version: self.row.to_version, purpose: "create" }
    }
}

#[async_trait]
impl Verb for RotateRoot {
    const ACTION: &'static str = "root.rotate";
    type Prepared = RootRotation;
    type Output = RootStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<RootRotation> {
        let found = Found::of(view).await?;
        let was = found.current()?.clone();
        if !decision.resource()?.rows.contains(&was.fence()) {
            return Err(Error::Conflict("the root key was rotated meanwhile; retry".into()));
        }
        let from = was.row.version;
        if self.expected != 0 && self.expected != from {
            return Err(Error::Conflict(format!("the current version is {from}").into()));
        }
        if found.pending().is_some() {
            return Err(Error::Conflict(
                "its next version is being made; where that was cut off, it is ended within minutes"
                    .into(),
            ));
        }
        let live = found.keys.iter().filter(|key| key.row.state != KeyState::Destroyed).count();
        if live >= VERSIONS {
            return Err(Error::precondition(format!(
                "the root key has {VERSIONS} versions, as many as may be: retire the oldest first"
            )));
        }
        let mut to = found.highest();
        let mut free = None;
        for _ in 0..NUMBERS {
            to = to.checked_add(1).ok_or(Error::Internal)?;
            let label = label(view.vault_id(), HsmPurpose::Root, to);
            if view.hsm().lookup_key(&label).await?.is_none() {
                free = Some(label);
                break;
            }
        }
        let label = free.ok_or_else(|| {
            Error::precondition("the HSM holds root keys that this store does not know")
        })?;
        let (now, by) = (view.now(), view.actor());
        let row = RotationRow {
            id: RotationRow::name(Rotates::Root, to),
            subject: Rotates::Root,
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
        Ok(RootRotation { was, row, label })
    }

    fn note(&self, it: &RootRotation, note: &mut Note) {
        note.keys.push(it.used());
        let RotationRow { from_version, to_version, .. } = it.row;
        note.private.push((Field::Detail, format!("root {from_version} -> {to_version}")));
    }
}

#[async_trait]
impl EffectOperation for RotateRoot {
    type Effect = KeyInfo;
    const NEEDS: Needs = GOVERNS;

    async fn intend(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &RootRotation,
        _: &Decision,
    ) -> Result<()> {
        tx.insert(&it.row).await.map_err(raced)?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &RootRotation) -> Result<KeyInfo> {
        let made = view.hsm().create_key(&it.label, KeyKind::HmacSha256).await;
        view.noted(&it.used(), made.map_err(Error::from))
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &RootRotation,
        made: &KeyInfo,
    ) -> Result<RootStatus> {
        // Every node looks at the keys anew.
        tx.bump_authority()?;
        let total = keys::count_wraps(tx, &it.was.row.id).await?;
        let moving = RotationRow { total, ..next(ctx, &it.row, RotationState::Moving) };
        tx.change(&Versioned::first(it.row.clone()), &moving).await?;
        let retired = HsmKeyRow { state: KeyState::Retired, ..it.was.row.clone() };
        tx.change(&it.was, &retired).await?;
        let key = HsmKeyRow {
            id: it.label.clone(),
            purpose: HsmPurpose::Root,
            version: it.row.to_version,
            state: KeyState::Active,
            pinned: made.check.clone(),
            certificate: None,
            created_at: ctx.now,
        };
        tx.insert(&key).await.map_err(raced)?;
        Schedule::rotated(ctx, tx, Rotates::Root).await?;
        RootStatus::read(tx, ctx.now).await
    }

    /// The row says what to look for in the HSM: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &RootRotation) -> Result<()> {
        Ok(())
    }
}
