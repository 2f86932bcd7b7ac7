//! Ends what a crash left of making or destroying a key in the HSM that rotates; the worker's.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{find, next, purpose, went_on};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, label};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, ResourceName, RotationState};
use crate::vault::{Decision, EffectOperation, Note, Resource, TAKES_BACK, Verb, View};

/// What a settlement begins from.
const FROM: &[RotationState] = &[RotationState::Pending, RotationState::Retiring];

/// Destroys the key in the HSM that a rotation was making, or that a retirement was destroying.
///
/// The intent moves the row on, so that whoever made the key cannot call it current any more.
/// Destroying it again, after a crash, finds nothing.
#[derive(Debug, Clone)]
pub struct SettleKey {
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
impl Verb for SettleKey {
    const ACTION: &'static str = "system.settle-key";
    type Prepared = Settling;
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("system", &["keys"])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Settling> {
        let id = self.id.clone();
        let found = view.read(move |tx| async move { find(tx, &id, FROM).await }.boxed());
        let found = found.await?;
        let RotationRow { subject, state, from_version, to_version, .. } = &found.row;
        let purpose = purpose(*subject)
            .ok_or_else(|| Error::internal("the key of an identity is not in the HSM"))?;
        let version = if *state == RotationState::Pending { *to_version } else { *from_version };
        let key = label(view.vault_id(), purpose, version);
        Ok(Settling { found, used: KeyUse { key, version, purpose: "destroy" } })
    }

    fn note(&self, it: &Settling, note: &mut Note) {
        note.keys.push(it.used.clone());
        let RotationRow { subject, .. } = it.found.row;
        note.private.push((Field::Detail, format!("{subject} {}", it.used.version)));
    }
}

#[async_trait]
impl EffectOperation for SettleKey {
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
        let found = find(tx, &self.id, FROM).await?;
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
