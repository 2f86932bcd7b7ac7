//! Makes the root key's next version, in the HSM. New wraps are made for it from its commit on, on every
//! node; what older versions wrap opens until they are retired.

use async_trait::async_trait;

use super::{ROOT, RootStatus, resource};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::engines::rotations::{NextVersion, Schedule, next, raced};
use crate::error::{Error, Result};
use crate::hsm::{KeyInfo, KeyKind};
use crate::keyring::KeyUse;
use crate::store::keys::{self, HsmKeyRow, HsmPurpose, KeyState};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, Rotates, RotationState};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Versions that are not retired, at most: each is a key in the HSM, and may open old backups.
const VERSIONS: usize = 8;

/// Makes the root key's next version.
#[derive(Debug, Clone, Copy)]
pub struct RotateRoot {
    /// The current version, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

fn used(it: &NextVersion) -> KeyUse {
    KeyUse { key: it.label.clone(), version: it.row.to_version, purpose: "create" }
}

#[async_trait]
impl Verb for RotateRoot {
    const ACTION: &'static str = "root.rotate";
    type Prepared = NextVersion;
    type Output = RootStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<NextVersion> {
        NextVersion::find(view, decision, ROOT, (self.expected, VERSIONS)).await
    }

    fn note(&self, it: &NextVersion, note: &mut Note) {
        note.keys.push(used(it));
        let RotationRow { from_version, to_version, .. } = it.row;
        note.private.push((Field::Detail, format!("root {from_version} -> {to_version}")));
    }
}

impl Solemn for RotateRoot {
    fn terms(&self) -> Vec<Term> {
        vec![Term::new("expected version", &self.expected.to_string())]
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
        it: &NextVersion,
        _: &Decision,
    ) -> Result<()> {
        tx.insert(&it.row).await.map_err(raced)?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &NextVersion) -> Result<KeyInfo> {
        let made = view.hsm().create_key(&it.label, KeyKind::HmacSha256).await;
        view.noted(&used(it), made.map_err(Error::from))
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &NextVersion,
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
            link: None,
            created_at: ctx.now,
        };
        tx.insert(&key).await.map_err(raced)?;
        Schedule::rotated(ctx, tx, Rotates::Root).await?;
        RootStatus::read(tx, ctx.now).await
    }

    /// The row says what to look for in the HSM: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &NextVersion) -> Result<()> {
        Ok(())
    }
}
