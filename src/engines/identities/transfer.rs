//! Gives a machine to another owner.

use async_trait::async_trait;

use super::owner::{decided_owner, find_owner};
use super::show::{decided, described};
use super::state::{note_reason, read, retired};
use super::{Described, Former, LONG, check_text};
use crate::error::{Error, Result};
use crate::policy::SubjectFacts;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, IdentityName, IdentityState, Owner, OwnerName, RequestContext};
use crate::vault::{Answerable, Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Gives a machine to another owner. Who had it until now is remembered for a day.
#[derive(Debug, Clone)]
pub struct TransferIdentity {
    /// The machine's name.
    pub name: IdentityName,
    /// Who is to answer for it.
    pub to: OwnerName,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Verb for TransferIdentity {
    const ACTION: &'static str = "identities.transfer";
    type Prepared = (IdentityId, Owner);
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let (mut resource, found) = described(view, &self.name).await?;
        let owner = find_owner(view, &self.to).await?;
        resource.identity = found.map(|found| SubjectFacts {
            id: Some(found.row.id),
            kind: found.row.kind,
            administrator: false,
            registered_by: found.row.created_by.parse().ok(),
            has_certificate: false,
            owner_active: owner.as_ref().is_some_and(|owner| owner.is_active(view.now())),
            owner_expires_at: owner.as_ref().and_then(Answerable::expires_at),
        });
        resource.rows.extend(owner.and_then(|owner| owner.fence()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<(IdentityId, Owner)> {
        check_text("a reason", &self.reason, LONG)?;
        let id = decided(decision)?;
        Ok((id, decided_owner(view, decision, &self.to).await?))
    }

    fn note(&self, _: &(IdentityId, Owner), note: &mut Note) {
        note_reason(&self.reason, note);
    }
}

#[async_trait]
impl Operation for TransferIdentity {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (id, to): &(IdentityId, Owner),
        _: &Decision,
    ) -> Result<Described> {
        let Versioned { mut row, version } = read(tx, *id).await?;
        if !row.kind.is_machine() {
            return Err(Error::precondition("a human is their own owner"));
        }
        if row.state == IdentityState::Retired {
            return Err(retired());
        }
        if row.owner != *to {
            row.former_owners = Former::handed_over(&row.former_owners, row.owner, ctx.now)?;
            row.owner = *to;
            row.owned_since = ctx.now;
            row.changed_at = ctx.now;
            row.changed_by = ctx.actor();
            tx.update(version, &row).await?;
        }
        Described::find(tx, *id, ctx.now).await
    }
}
