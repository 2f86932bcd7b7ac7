//! What the clock does to elevations, and what becomes of what was made under one that is over.

use std::time::Duration;

use async_trait::async_trait;

use super::act::outcome;
use super::moves::Moves;
use super::{notify, unknown};
use crate::audit::Field;
use crate::engines::tokens::{Left, end_made_under};
use crate::error::{Error, Result};
use crate::store::elevations::ElevationRow;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned, credentials};
use crate::types::{ElevationEvent, ElevationId, ElevationState, RequestContext, UnixMillis};
use crate::vault::{
    CONTAINS, Decision, Note, Operation, Resource, TAKES_BACK, Verb, View, is_active,
};

/// Why an elevation ended by the clock.
pub(super) const OVER: &str = "its time was over";
pub(super) const CONTAINED: &str = "who had it was suspended, or is over";
pub(super) const RESTORED: &str = "the vault was restored since";
/// Pauses between looks at what was made under it: as long as it has been over, within these.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(5);

/// Does what an elevation is due for; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct KeepElevation {
    /// The elevation.
    pub id: ElevationId,
    /// The version that was found due.
    pub version: i64,
    /// Where it was.
    pub state: ElevationState,
}

/// Where a kept elevation is, and how it came there.
#[derive(Debug)]
pub struct Kept {
    state: ElevationState,
    moves: Moves,
}

/// An elevation that is moved, and what is told of that.
type Moving<'a> = (Versioned<ElevationRow>, &'a mut Moves);

#[async_trait]
impl Verb for KeepElevation {
    const ACTION: &'static str = "elevations.keep";
    type Prepared = ();
    type Output = Kept;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("elevations".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        note.private.push((Field::Detail, format!("elevation {}", self.id)));
    }
}

#[async_trait]
impl Operation for KeepElevation {
    const NEEDS: Needs = TAKES_BACK;

    /// What ends rights moves the epoch; what goes on with the rest does not.
    fn needs(&self, (): &()) -> Needs {
        if self.state == ElevationState::Active { CONTAINS } else { TAKES_BACK }
    }

    fn outcome(&self, kept: &Kept) -> &'static str {
        outcome(kept.state)
    }

    fn tells(&self, kept: &Kept) -> Vec<(Field, String)> {
        kept.moves.fields()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (): &(),
        _: &Decision,
    ) -> Result<Kept> {
        let found = tx.lookup::<ElevationRow>(&self.id).await?.ok_or_else(unknown)?;
        if found.version != self.version {
            return Err(Error::Conflict("another node keeps this elevation".into()));
        }
        let mut moves = Moves::default();
        let row = &found.row;
        let due = row.next_try.is_some_and(|at| at <= ctx.now);
        let state = match row.state {
            ElevationState::AwaitingApproval | ElevationState::Scheduled if due => {
                expire(ctx, tx, (found, &mut moves)).await?
            }
            ElevationState::Active if row.ends_at.is_none_or(|end| end <= ctx.now) => {
                end(ctx, tx, (found, &mut moves), OVER).await?
            }
            ElevationState::Active if is_contained(tx, row, ctx.now).await? => {
                end(ctx, tx, (found, &mut moves), CONTAINED).await?
            }
            ElevationState::Ended | ElevationState::Revoked if due => {
                clear(ctx, tx, (found, &mut moves)).await?
            }
            ElevationState::Requested
            | ElevationState::AwaitingApproval
            | ElevationState::Scheduled
            | ElevationState::Activating
            | ElevationState::Active
            | ElevationState::Ended
            | ElevationState::Denied
            | ElevationState::Expired
            | ElevationState::Withdrawn
            | ElevationState::Revoked
            | ElevationState::ActivationFailed => {
                return Err(Error::Conflict("it is not due any more".into()));
            }
        };
        Ok(Kept { state, moves })
    }
}

async fn is_contained(tx: &mut Tx, row: &ElevationRow, now: UnixMillis) -> Result<bool> {
    let found = tx.lookup::<IdentityRow>(&row.identity).await?;
    let who = found.ok_or_else(|| Error::internal("an elevation of nobody"))?.row;
    Ok(!is_active(&who, now) || who.revocation_epoch != row.revocation_epoch)
}

async fn expire(
    ctx: &RequestContext,
    tx: &mut Tx,
    (found, moves): Moving<'_>,
) -> Result<ElevationState> {
    let Versioned { row, version } = found;
    let (from, event) = (row.state, ElevationEvent::Expire);
    let approved = row.state == ElevationState::Scheduled;
    let why = if approved { "it was not activated in time" } else { "it was not approved in time" };
    let expired = ElevationRow {
        state: from.moved(event)?,
        next_try: None,
        why: why.to_owned(),
        changed_at: ctx.now,
        changed_by: ctx.actor(),
        ..row
    };
    moves.add(expired.id, from, event, expired.state);
    tx.update(version, &expired).await?;
    notify::event(ctx, tx, &expired, event).await?;
    Ok(expired.state)
}

/// Ends an elevation in force; the worker goes on with what was made under it.
pub(super) async fn end(
    ctx: &RequestContext,
    tx: &mut Tx,
    moving: Moving<'_>,
    why: &'static str,
) -> Result<ElevationState> {
    let ended = end_by(ctx, tx, moving, ElevationEvent::End, why).await?;
    Ok(ended.row.state)
}

/// Ends one by an event, by its own row alone.
pub(super) async fn end_by(
    ctx: &RequestContext,
    tx: &mut Tx,
    (found, moves): Moving<'_>,
    event: ElevationEvent,
    why: &'static str,
) -> Result<Versioned<ElevationRow>> {
    let Versioned { row, version } = found;
    let from = row.state;
    let active = from == ElevationState::Active;
    let ended = ElevationRow {
        state: from.moved(event)?,
        next_try: active.then_some(ctx.now),
        ends_at: row.ends_at.map(|end| end.min(ctx.now)),
        why: why.to_owned(),
        changed_at: ctx.now,
        changed_by: ctx.actor(),
        ..row
    };
    moves.add(ended.id, from, event, ended.state);
    let ended = tx.update(version, &ended).await?;
    notify::event(ctx, tx, &ended.row, event).await?;
    Ok(ended)
}

/// Ends what was made under an elevation that is over, and looks again until all of it is gone.
async fn clear(
    ctx: &RequestContext,
    tx: &mut Tx,
    (found, moves): Moving<'_>,
) -> Result<ElevationState> {
    let Versioned { row, version } = found;
    let left = end_made_under(ctx, tx, row.id).await?;
    let gone = left == Left::Nothing && !credentials::has_made_under(tx, row.id).await?;
    let over_for = row.ends_at.map_or(LAST_PAUSE, |end| ctx.now.since(end));
    let next_try = match (gone, left) {
        (true, _) => None,
        (false, Left::More) => Some(ctx.now),
        (false, Left::Nothing | Left::Altered) => {
            Some(ctx.now.plus(over_for.clamp(FIRST_PAUSE, LAST_PAUSE))?)
        }
    };
    let what = if gone { "nothing made under it is left" } else { "what it made is being ended" };
    moves.note(row.id, what);
    let state = row.state;
    tx.update(version, &ElevationRow { next_try, ..row }).await?;
    Ok(state)
}
