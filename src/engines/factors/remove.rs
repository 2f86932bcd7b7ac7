//! Ends factors: one of one's own, with a factor that was proven now; or, by an administrator, all
//! of somebody else's, who lost them.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Somebody, end, invite, own, require_fresh, require_own, standing};
use crate::audit::Field;
use crate::engines::identities::{LONG, check_text};
use crate::error::{Error, Result};
use crate::store::factors::{self, FactorRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{FactorId, IdentityId, IdentityName, RequestContext};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Removes a factor of the caller's, for good.
#[derive(Debug, Clone, Copy)]
pub struct RemoveFactor {
    /// Which.
    pub id: FactorId,
}

/// Removes every factor of a human, and what invites them to enrol another.
#[derive(Debug, Clone)]
pub struct ResetFactors {
    /// Whose.
    pub identity: IdentityName,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Verb for RemoveFactor {
    const ACTION: &'static str = "factors.remove";
    type Prepared = Versioned<FactorRow>;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        own(view)
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<FactorRow>> {
        require_fresh(view)?;
        let found = standing(view).await?.into_iter().find(|one| one.row.id == self.id);
        found.ok_or_else(|| Error::not_found("you have no such factor"))
    }
}

#[async_trait]
impl Operation for RemoveFactor {
    const NEEDS: Needs = CONTAINS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        factor: &Versioned<FactorRow>,
        _: &Decision,
    ) -> Result<()> {
        end(ctx, tx, factor.clone()).await
    }
}

#[async_trait]
impl Verb for ResetFactors {
    const ACTION: &'static str = "factors.reset";
    type Prepared = IdentityId;
    type Output = usize;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Somebody::resources(view, &self.identity).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<IdentityId> {
        check_text("a reason", &self.reason, LONG)?;
        let row = Somebody::decided(view, &self.identity, decision.resource()?).await?;
        let (ctx, asks) = (view.ctx().clone(), view.subject()?.clone());
        view.read(move |tx| async move { require_own(tx, &ctx, &asks).await }.boxed()).await?;
        Ok(row.id)
    }

    fn note(&self, _: &IdentityId, note: &mut Note) {
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for ResetFactors {
    const NEEDS: Needs = CONTAINS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        of: &IdentityId,
        decision: &Decision,
    ) -> Result<usize> {
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker resets nothing"))?;
        require_own(tx, ctx, subject).await?;
        let found = factors::standing(tx, *of).await?;
        let count = found.len();
        for factor in found {
            end(ctx, tx, factor).await?;
        }
        invite::take_back(ctx, tx, *of).await?;
        Ok(count)
    }
}
