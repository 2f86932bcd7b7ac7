//! Ends what a crash left of making or destroying a root key in the HSM; the worker's.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{resource, rotation, went_on};
use crate::audit::Field;
use crate::engines::rotations::next;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, label};
use crate::store::keys::HsmPurpose;
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, RotationState};
use crate::vault::{Decision, EffectOperation, Note, Resource, TAKES_BACK, Verb, View};

/// What a settlement begins from.
const FROM: &[RotationState] = &[RotationState::Pending, RotationState::Retiring];

/// Destroys the key in the HSM that a rotation was making, or that a retirement was destroying.
///
/// The intent moves the row on, so that whoever made the key cannot call it current any more.
/// Destroying it again, after a crash, finds nothing.
#[derive(Debug, Clone)]
pub struct SettleRoot {
    /// The rotation.
    pub id: String,
}

/// A rotation that is ended.
#[derive(Debug)]
pub struct Settling {
    found: Versioned<RotationRow>,
    used: KeyUse,
}

#[async_trait]
impl Verb for SettleRoot {
    const ACTION: &'static str = "root.settle";
    type Prepared = Settling;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Settling> {
        let id = self.id.clone();
        let found = view.read(move |tx| async move { rotation(tx, &id, FROM).await }.boxed());
        let found = found.await?;
        let RotationRow { state, from_version, to_version, .. } = &found.row;
        let version = if *state == RotationState::Pending { *to_version } else { *from_version };
        let key = label(view.vault_id(), HsmPurpose::Root, version);
        Ok(Settling { found, used: KeyUse { key, version, purpose: "destroy" } })
    }

    fn note(&self, it: &Settling, note: &mut Note) {
        note.keys.push(it.used.clone());
        note.private.push((Field::Detail, format!("root {}", it.used.version)));
    }
}

#[async_trait]
impl EffectOperation for SettleRoot {
    type Effect = ();
    const NEEDS: Needs = TAKES_BACK;

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Settling,
        _: &Decision,
    ) -> Result<()> {
        tx.change(&it.found, &next(ctx, &it.found.row, it.found.row.state)).await?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &Settling) -> Result<()> {
        let destroyed = view.hsm().destroy_key(&it.used.key).await.map_err(Error::from);
        view.noted(&it.used, destroyed)
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Settling,
        (): &(),
    ) -> Result<()> {
        let found = rotation(tx, &self.id, FROM).await?;
        if Some(found.version) != it.found.version.checked_add(1) {
            return Err(went_on());
        }
        let ended = match found.row.state {
            RotationState::Pending => RotationState::Failed,
            RotationState::Moving
            | RotationState::Moved
            | RotationState::Retiring
            | RotationState::Retired
            | RotationState::Failed => RotationState::Retired,
        };
        tx.change(&found, &next(ctx, &found.row, ended)).await?;
        Ok(())
    }

    /// It stays as it is, and is due again later.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Settling) -> Result<()> {
        Ok(())
    }
}
