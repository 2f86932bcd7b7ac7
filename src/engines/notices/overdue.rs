//! Tells of reviews that are overdue, once for each.

use async_trait::async_trait;

use super::resource;
use crate::audit::Field;
use crate::engines::elevations::describe_elevation;
use crate::error::{Error, Result};
use crate::store::elevations::{self, ElevationRow};
use crate::store::{Needs, Tx};
use crate::types::{ElevationId, NoticeKind, RequestContext};
use crate::vault::{
    Decision, Note, NoticeFacts, Operation, Resource, Verb, View, WRITES, post_notice,
};

/// Tells that an elevation's review is overdue; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct TellOverdue {
    /// The elevation.
    pub id: ElevationId,
}

#[async_trait]
impl Verb for TellOverdue {
    const ACTION: &'static str = "notices.tell-overdue";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        resource(&[])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        note.private.push((Field::Detail, format!("elevation {}", self.id)));
    }
}

#[async_trait]
impl Operation for TellOverdue {
    const NEEDS: Needs = WRITES;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let kind = NoticeKind::ReviewOverdue;
        elevations::hold(tx, self.id).await?;
        let found = tx.lookup::<ElevationRow>(&self.id).await?;
        // Somebody reviewed it meanwhile, or another node was first.
        let found = found
            .filter(|it| it.row.review_due.is_some() && it.row.review_told_at.is_none())
            .ok_or_else(|| Error::Conflict("nothing is overdue any more".into()))?;
        let told = ElevationRow { review_told_at: Some(ctx.now), ..found.row };
        tx.update(found.version, &told).await?;
        let (facts, recipients) = describe_elevation(tx, self.id, kind, ctx.now).await?;
        let facts = NoticeFacts { by: ctx.actor(), ..facts };
        post_notice(ctx, tx, kind, &facts, &recipients).await.map(drop)
    }
}
