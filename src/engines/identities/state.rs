//! Contains an identity, and lets it act again.

use async_trait::async_trait;

use super::show::{decided, resource, unknown};
use super::{Described, LONG, check_text, keep_an_administrator};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialState, IdentityId, IdentityName, IdentityState, RequestContext};
use crate::vault::{CONTAINS, Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Leases that a suspension hands to the worker itself. All of them are dead by their epoch; the
/// worker finds the rest by it.
const LEASES: i64 = 256;

/// Suspends an identity: everything that it holds is dead at once, and stays so.
#[derive(Debug, Clone)]
pub struct SuspendIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Why.
    pub reason: String,
}

/// Lets a suspended identity act again; what the suspension killed stays dead.
#[derive(Debug, Clone)]
pub struct ResumeIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Why.
    pub reason: String,
}

fn note_reason(reason: &str, note: &mut Note) {
    if !reason.is_empty() {
        note.private.push((Field::Reason, reason.to_owned()));
    }
}

async fn read(tx: &mut Tx, id: IdentityId) -> Result<Versioned<IdentityRow>> {
    tx.lookup::<IdentityRow>(&id).await?.ok_or_else(unknown)
}

fn next(count: i64) -> Result<i64> {
    count.checked_add(1).ok_or_else(|| Error::internal("a counter ran out"))
}

#[async_trait]
impl Verb for SuspendIdentity {
    const ACTION: &'static str = "identities.suspend";
    type Prepared = IdentityId;
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<IdentityId> {
        check_text("a reason", &self.reason, LONG)?;
        decided(decision)
    }

    fn note(&self, _: &IdentityId, note: &mut Note) {
        note_reason(&self.reason, note);
    }
}

#[async_trait]
impl Operation for SuspendIdentity {
    const NEEDS: Needs = CONTAINS;

    /// Suspending twice kills twice: what was issued in between is dead as well.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &IdentityId,
        _: &Decision,
    ) -> Result<Described> {
        let Versioned { mut row, version } = read(tx, *id).await?;
        keep_an_administrator(tx, *id, ctx.now).await?;
        row.state = IdentityState::Suspended;
        row.revocation_epoch = next(row.revocation_epoch)?;
        row.changed_at = ctx.now;
        row.changed_by = ctx.actor();
        let row = tx.update(version, &row).await?.row;
        for lease in credentials::outdated(tx, *id, row.revocation_epoch, LEASES).await? {
            hand_over(ctx, tx, lease).await?;
        }
        Described::find(tx, *id).await
    }
}

/// Hands a lease to the worker that ends it. One that is pending has its next try already, and
/// its issuance fails on this suspension.
async fn hand_over(
    ctx: &RequestContext,
    tx: &mut Tx,
    lease: Versioned<CredentialRow>,
) -> Result<()> {
    let Versioned { mut row, version } = lease;
    match row.state {
        CredentialState::Active => {
            row.state = CredentialState::Revoking;
            row.next_try = Some(ctx.now);
            tx.update(version, &row).await?;
        }
        CredentialState::Pending
        | CredentialState::Revoking
        | CredentialState::Ended
        | CredentialState::Spent => {}
    }
    Ok(())
}

#[async_trait]
impl Verb for ResumeIdentity {
    const ACTION: &'static str = "identities.resume";
    type Prepared = IdentityId;
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<IdentityId> {
        check_text("a reason", &self.reason, LONG)?;
        decided(decision)
    }

    fn note(&self, _: &IdentityId, note: &mut Note) {
        note_reason(&self.reason, note);
    }
}

#[async_trait]
impl Operation for ResumeIdentity {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &IdentityId,
        _: &Decision,
    ) -> Result<Described> {
        let Versioned { mut row, version } = read(tx, *id).await?;
        if row.state == IdentityState::Suspended {
            row.state = IdentityState::Active;
            row.changed_at = ctx.now;
            row.changed_by = ctx.actor();
            tx.update(version, &row).await?;
        }
        Described::find(tx, *id).await
    }
}
