//! Contains an identity, and lets it act again.

use async_trait::async_trait;

use super::show::{decided, resource, unknown};
use super::{Described, LONG, check_text, keep_an_administrator};
use crate::audit::Field;
use crate::engines::tokens::end_lent;
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::{self, IdentityRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    CredentialState, IdentityId, IdentityName, IdentityState, Kind, RequestContext, UnixMillis,
};
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
    /// Of a worker: what must still be so.
    pub due: Option<Due>,
}

/// Why a worker suspends an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its end has passed.
    Over,
    /// It was neither used nor changed since.
    Dormant {
        /// Since when.
        since: UnixMillis,
    },
}

impl Due {
    async fn holds(self, tx: &mut Tx, row: &IdentityRow, now: UnixMillis) -> Result<bool> {
        if !row.state.stands() {
            return Ok(false);
        }
        Ok(match self {
            Self::Over => row.expires_at.is_some_and(|end| end <= now),
            Self::Dormant { since } => {
                let used = identities::identity_last_used(tx, row.id).await?;
                row.changed_at < since && used.is_none_or(|used| used < since)
            }
        })
    }
}

/// Lets a suspended identity act again; what the suspension killed stays dead.
#[derive(Debug, Clone)]
pub struct ResumeIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Why.
    pub reason: String,
}

pub(super) fn note_reason(reason: &str, note: &mut Note) {
    if !reason.is_empty() {
        note.private.push((Field::Reason, reason.to_owned()));
    }
}

pub(super) async fn read(tx: &mut Tx, id: IdentityId) -> Result<Versioned<IdentityRow>> {
    tx.lookup::<IdentityRow>(&id).await?.ok_or_else(unknown)
}

pub(super) fn next(count: i64) -> Result<i64> {
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
        let found = read(tx, *id).await?;
        if found.row.state == IdentityState::Retired {
            return Err(retired());
        }
        if let Some(due) = self.due
            && !due.holds(tx, &found.row, ctx.now).await?
        {
            return Err(Error::Conflict("it is not due any more".into()));
        }
        contain(ctx, tx, found, IdentityState::Suspended).await?;
        Described::contained(tx, *id, ctx.now).await
    }
}

/// Says that retiring is for good.
pub(super) fn retired() -> Error {
    Error::precondition("the identity is retired, for good; register another under a new name")
}

/// Ends all that an identity holds, by its revocation epoch, and hands what hangs outside to the
/// worker that ends it.
pub(super) async fn contain(
    ctx: &RequestContext,
    tx: &mut Tx,
    found: Versioned<IdentityRow>,
    state: IdentityState,
) -> Result<()> {
    let Versioned { mut row, version } = found;
    keep_an_administrator(tx, row.id, ctx.now).await?;
    row.state = state;
    row.revocation_epoch = next(row.revocation_epoch)?;
    row.note_change(ctx.now, ctx.actor());
    let row = tx.update(version, &row).await?.row;
    end_outside(ctx, tx, &row).await
}

/// Hands what hangs outside, and died with an identity's revocation epoch, to the worker that ends
/// it, and revokes what others hold by its tokens.
pub(super) async fn end_outside(
    ctx: &RequestContext,
    tx: &mut Tx,
    row: &IdentityRow,
) -> Result<()> {
    for lease in credentials::outdated(tx, row.id, row.revocation_epoch, LEASES).await? {
        hand_over(ctx, tx, lease).await?;
    }
    // Nobody else makes credentials of others.
    if row.kind == Kind::Human {
        end_lent(ctx, tx, (row.id, row.revocation_epoch.saturating_sub(1))).await?;
    }
    Ok(())
}

/// Makes a registered identity active, in the commit that gives it its first credential.
///
/// # Errors
/// What the store answers.
pub(in crate::engines) async fn activate(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: IdentityId,
) -> Result<()> {
    let Versioned { mut row, version } = read(tx, id).await?;
    if row.state == IdentityState::Registered {
        row.state = IdentityState::Active;
        row.note_change(ctx.now, ctx.actor());
        tx.update(version, &row).await?;
    }
    Ok(())
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
        match row.state {
            IdentityState::Registered | IdentityState::Active => {}
            IdentityState::Retired => return Err(retired()),
            IdentityState::Suspended => {
                row.state = if credentials::has_any(tx, *id).await? {
                    IdentityState::Active
                } else {
                    IdentityState::Registered
                };
                row.note_change(ctx.now, ctx.actor());
                tx.update(version, &row).await?;
            }
        }
        Described::find(tx, *id, ctx.now).await
    }
}
