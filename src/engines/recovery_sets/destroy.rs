//! Destroys a recovery set: its wraps and its shares go. Backups from before still hold both: what
//! makes them worthless is that its holders destroy their keys, or its token's is destroyed.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{DescribedSet, one};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::error::{Error, Result};
use crate::keyring::Recipient;
use crate::store::keys::KeyState;
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, RequestContext, VaultId};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Destroys a set.
#[derive(Debug, Clone)]
pub struct DestroySet {
    /// The set.
    pub id: Id,
    /// Why, for the record.
    pub reason: String,
}

#[async_trait]
impl Verb for DestroySet {
    const ACTION: &'static str = "recovery_sets.destroy";
    type Prepared = (VaultId, Versioned<RecoverySetRow>);
    type Output = DescribedSet;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let resource = Resource::named(one(self.id)?);
        Ok(vec![match find(view, self.id).await? {
            Some(row) => resource.with_row(self.id, &row),
            None => resource,
        }])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let row = find(view, self.id).await?;
        let row = row.ok_or_else(|| Error::not_found("there is no recovery set with that id"))?;
        if row.row.state == KeyState::Destroyed {
            return Err(Error::precondition("the recovery set is destroyed already"));
        }
        Ok((view.vault_id(), row))
    }

    fn note(&self, _: &Self::Prepared, note: &mut Note) {
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

impl Solemn for DestroySet {
    fn terms(&self) -> Vec<Term> {
        vec![Term::new("reason", &self.reason)]
    }
}

#[async_trait]
impl Operation for DestroySet {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (vault, found): &Self::Prepared,
        _: &Decision,
    ) -> Result<DescribedSet> {
        let row = RecoverySetRow {
            shares: "[]".to_owned(),
            state: KeyState::Destroyed,
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..found.row.clone()
        };
        let row = tx.update(found.version, &row).await?;
        recovery_sets::delete_wraps(tx, &Recipient::label(*vault, self.id)).await?;
        DescribedSet::read(tx, *vault, row).await
    }
}

async fn find(view: &View, id: Id) -> Result<Option<Versioned<RecoverySetRow>>> {
    view.read(move |tx| async move { Ok(tx.lookup::<RecoverySetRow>(&id).await?) }.boxed()).await
}
