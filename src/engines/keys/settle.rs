//! Ends versions in the HSM that came to nothing, or are not used any more; the worker's.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::label;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::named_keys::NamedKeyVersionRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{KeyVersionState, ObjectId, RequestContext, ResourceName};
use crate::vault::{Decision, EffectOperation, Note, Resource, TAKES_BACK, Verb, View};

/// Destroys what may be in the HSM of a version that is pending or retired, and ends it: the place
/// that it took there is free then.
///
/// The intent moves the row on, so that whoever made the key cannot call it live any more; nothing
/// but a version that is live is ever used. Destroying it again, after a crash, finds nothing.
#[derive(Debug, Clone, Copy)]
pub struct SettleVersion {
    /// The key.
    pub key: ObjectId,
    /// The version's row.
    pub id: ObjectId,
}

/// A version that is ended.
#[derive(Debug)]
pub struct Settled {
    found: Versioned<NamedKeyVersionRow>,
    label: String,
    used: KeyUse,
}

#[async_trait]
impl Verb for SettleVersion {
    const ACTION: &'static str = "keys.settle";
    type Prepared = Settled;
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        let name: ResourceName = "keys".parse()?;
        Ok(vec![Resource { id: Some(self.key.0), ..Resource::named(name) }])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Settled> {
        let id = self.id;
        let read = view
            .read(move |tx| async move { Ok(tx.lookup::<NamedKeyVersionRow>(&id).await?) }.boxed());
        let found = read.await?.filter(|found| ended(found.row.state).is_some());
        let found = found.ok_or_else(|| Error::Conflict("nothing of it is left".into()))?;
        let (key, version) = (found.row.named_key, found.row.version);
        let used = KeyUse { key: key.to_string(), version, purpose: "destroy/hsm" };
        Ok(Settled { label: label(view.vault_id(), key, version), found, used })
    }

    fn note(&self, it: &Settled, note: &mut Note) {
        note.keys.push(it.used.clone());
    }
}

/// What becomes of a version that is settled; none for one of which nothing is to be destroyed.
const fn ended(state: KeyVersionState) -> Option<KeyVersionState> {
    match state {
        KeyVersionState::Pending => Some(KeyVersionState::Failed),
        KeyVersionState::Retired => Some(KeyVersionState::Destroyed),
        KeyVersionState::Live
        | KeyVersionState::Failed
        | KeyVersionState::Awaiting
        | KeyVersionState::Destroyed => None,
    }
}

/// The row as it is moved on.
fn moved(ctx: &RequestContext, row: &NamedKeyVersionRow) -> NamedKeyVersionRow {
    NamedKeyVersionRow { changed_at: ctx.now, changed_by: ctx.actor(), ..row.clone() }
}

#[async_trait]
impl EffectOperation for SettleVersion {
    type Effect = ();
    const NEEDS: Needs = TAKES_BACK;

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Settled,
        _: &Decision,
    ) -> Result<()> {
        tx.change(&it.found, &moved(ctx, &it.found.row)).await?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &Settled) -> Result<()> {
        let destroyed = view.hsm().destroy_key(&it.label).await.map_err(Error::from);
        view.noted(&it.used, destroyed)
    }

    async fn record(&self, ctx: &RequestContext, tx: &mut Tx, it: &Settled, (): &()) -> Result<()> {
        let found = tx.lookup::<NamedKeyVersionRow>(&self.id).await?;
        // Another node settles it as well, or it was moved on since.
        let ours = found.filter(|found| Some(found.version) == it.found.version.checked_add(1));
        let ours = ours.ok_or_else(|| Error::Conflict("it is settled by another node".into()))?;
        let state = ended(ours.row.state);
        let state = state.ok_or_else(|| Error::Conflict("it is settled already".into()))?;
        let row = NamedKeyVersionRow { state, in_hsm_of: None, ..moved(ctx, &ours.row) };
        tx.change(&ours, &row).await?;
        Ok(())
    }

    /// It stays as it is, and is due again later.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Settled) -> Result<()> {
        Ok(())
    }
}
