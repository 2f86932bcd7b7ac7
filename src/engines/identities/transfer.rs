//! Gives a machine to another owner.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::owner::{check_team, decided_owner, find_owner};
use super::show::{decided, described};
use super::state::{note_reason, read, retired};
use super::{Described, Former, LONG, Names, check_text, subject_facts};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityName, IdentityState, Owner, OwnerName, RequestContext};
use crate::vault::{Decision, GOVERNS, Note, Operation, READS, Resource, Verb, View};

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

/// A transfer as it was decided on.
#[derive(Debug)]
pub struct PreparedTransfer {
    found: Versioned<IdentityRow>,
    from: OwnerName,
    to: Owner,
}

impl PreparedTransfer {
    fn changes(&self) -> bool {
        self.found.row.owner != self.to
    }
}

#[async_trait]
impl Verb for TransferIdentity {
    const ACTION: &'static str = "identities.transfer";
    type Prepared = PreparedTransfer;
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let (mut resource, found) = described(view, &self.name).await?;
        if let Some(found) = found {
            let now = view.now();
            let facts = view
                .read(move |tx| async move { subject_facts(tx, &found, now).await }.boxed())
                .await?;
            resource.identity = Some(facts.0);
            resource.rows.extend(facts.1.fence());
        }
        resource.rows.extend(find_owner(view, &self.to).await?.and_then(|owner| owner.fence()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<PreparedTransfer> {
        check_text("a reason", &self.reason, LONG)?;
        let id = decided(decision)?;
        let to = decided_owner(view, decision, &self.to).await?.owner;
        let read = view.read(move |tx| {
            async move {
                let found = read(tx, id).await?;
                let from = Names::default().owner(tx, found.row.owner).await?;
                Ok((found, from))
            }
            .boxed()
        });
        let (found, from) = read.await?;
        if !decision.resource()?.rows.contains(&found.fence()) {
            return Err(Error::Conflict("the identity changed; retry".into()));
        }
        if !found.row.kind.is_machine() {
            return Err(Error::precondition("a human is their own owner"));
        }
        if found.row.state == IdentityState::Retired {
            return Err(retired());
        }
        Ok(PreparedTransfer { found, from, to })
    }

    fn note(&self, it: &PreparedTransfer, note: &mut Note) {
        note_reason(&self.reason, note);
        let (from, to) = (&it.from, &self.to);
        note.private.push((Field::Detail, format!("owner: {to}; was: {from}")));
    }
}

#[async_trait]
impl Operation for TransferIdentity {
    const NEEDS: Needs = GOVERNS;

    /// Handing over to whom it belongs changes nothing, and disturbs nobody.
    fn needs(&self, it: &PreparedTransfer) -> Needs {
        if it.changes() { GOVERNS } else { READS }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &PreparedTransfer,
        _: &Decision,
    ) -> Result<Described> {
        let Versioned { row, version } = &it.found;
        if it.changes() {
            check_team(tx, it.to).await?;
            let mut changed = IdentityRow {
                former_owners: Former::handed_over(&row.former_owners, row.owner, ctx.now)?,
                owner: it.to,
                owned_since: ctx.now,
                ..row.clone()
            };
            changed.note_change(ctx.now, ctx.actor());
            tx.update(*version, &changed).await?;
        }
        Described::find(tx, row.id, ctx.now).await
    }
}
