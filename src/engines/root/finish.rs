//! Puts on the record that a version of the root key wraps nothing any more; the worker's.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::resource;
use crate::audit::Field;
use crate::engines::rotations::{find, next, went_on};
use crate::error::Result;
use crate::keyring::{KeyUse, label};
use crate::store::keys::{self, HsmPurpose};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, RotationState};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Ends a rotation whose wraps are all moved.
#[derive(Debug, Clone)]
pub struct FinishRoot {
    /// The rotation.
    pub id: String,
}

/// A rotation that is at its end.
#[derive(Debug)]
pub struct Finished {
    found: Versioned<RotationRow>,
    label: String,
    used: Vec<KeyUse>,
}

#[async_trait]
impl Verb for FinishRoot {
    const ACTION: &'static str = "root.finish";
    type Prepared = Finished;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Finished> {
        let id = self.id.clone();
        let read = view
            .read(move |tx| async move { find(tx, &id, &[RotationState::Moving]).await }.boxed());
        let found = read.await?;
        let label = label(view.vault_id(), HsmPurpose::Root, found.row.from_version);
        let used = view.keyring().moves_from(&label)?;
        Ok(Finished { found, label, used })
    }

    fn note(&self, it: &Finished, note: &mut Note) {
        note.keys.extend(it.used.iter().cloned());
        let RotationRow { from_version, to_version, total, .. } = &it.found.row;
        let detail = format!("root {from_version} -> {to_version}: {total} wraps moved");
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for FinishRoot {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Finished,
        _: &Decision,
    ) -> Result<()> {
        // One that is made for it this moment is seen in the next round, and by who retires it.
        if keys::has_wraps(tx, &it.label).await? {
            return Err(went_on());
        }
        tx.change(&it.found, &next(ctx, &it.found.row, RotationState::Moved)).await?;
        Ok(())
    }
}
