//! Ends an elevation before its time: by its own row alone, where something else that it stands on
//! is not what was sealed. What nobody can vouch for must not keep rights in force.

use async_trait::async_trait;

use super::case::Case;
use super::keep::end_by;
use super::moves::Moves;
use super::show::{Elevation, resource};
use super::unknown;
use crate::audit::Field;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::store::elevations::{self as rows, ElevationRow};
use crate::store::{Needs, Tx};
use crate::types::{
    ElevationEvent, ElevationId, ElevationState, IdentityId, RequestContext, VaultId,
};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Ends an elevation before its time.
#[derive(Debug, Clone)]
pub struct RevokeElevation {
    /// Which.
    pub id: ElevationId,
    /// Why.
    pub reason: String,
}

/// An elevation that was ended.
#[derive(Debug)]
pub enum Revoked {
    /// With all that there is to show.
    Whole(Box<Elevation>),
    /// Its own row: the rest is not what was sealed.
    Alone(Box<ElevationRow>, Moves),
}

#[async_trait]
impl Verb for RevokeElevation {
    const ACTION: &'static str = "elevations.revoke";
    type Prepared = (VaultId, bool);
    type Output = Revoked;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource(view, self.id).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        check_text("a reason", &self.reason, LONG)?;
        Ok((view.vault_id(), view.is_dev()))
    }

    fn note(&self, _: &Self::Prepared, note: &mut Note) {
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
        note.private.push((Field::Detail, format!("elevation {}", self.id)));
    }
}

/// By which event one ends, and why. Who has it gives it back.
fn event(row: &ElevationRow, by: IdentityId) -> (ElevationEvent, &'static str) {
    if row.state == ElevationState::Active && row.identity == by {
        (ElevationEvent::End, "given back")
    } else {
        (ElevationEvent::Revoke, "revoked")
    }
}

#[async_trait]
impl Operation for RevokeElevation {
    const NEEDS: Needs = CONTAINS;

    fn tells(&self, revoked: &Revoked) -> Vec<(Field, String)> {
        match revoked {
            Revoked::Whole(shown) => shown.moves.fields(),
            Revoked::Alone(_, moves) => moves.fields(),
        }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        of: &Self::Prepared,
        decision: &Decision,
    ) -> Result<Revoked> {
        let subject = decision.subject.as_deref().ok_or_else(unknown)?;
        rows::hold(tx, self.id).await?;
        let found = tx.lookup::<ElevationRow>(&self.id).await?.ok_or_else(unknown)?;
        let over = found.row.state.is_over();
        let (event, why) = event(&found.row, subject.identity.row.id);
        let mut moves = Moves::default();
        let mut case = match Case::load(tx, found.clone(), *of).await {
            Ok(case) => case,
            Err(Error::Tampered { .. }) if over => {
                return Ok(Revoked::Alone(found.row.into(), moves));
            }
            Err(Error::Tampered { .. }) => {
                let ended = end_by(ctx, tx, (found, &mut moves), event, why).await?;
                return Ok(Revoked::Alone(ended.row.into(), moves));
            }
            Err(failed) => return Err(failed),
        };
        // Repeated, it changes nothing.
        if !over {
            let (now, active) = (ctx.now, case.found.row.state == ElevationState::Active);
            case.moves(ctx, tx, event, |row| {
                why.clone_into(&mut row.why);
                row.next_try = active.then_some(now);
                row.ends_at = row.ends_at.map(|end| end.min(now));
            })
            .await?;
        }
        match Elevation::of(tx, &mut Names::default(), &case).await {
            Ok(shown) => Ok(Revoked::Whole(shown.into())),
            Err(Error::Tampered { .. }) => Ok(Revoked::Alone(case.found.row.into(), case.moves)),
            Err(failed) => Err(failed),
        }
    }
}
