//! Tells of reviews that are overdue, once for each.

use async_trait::async_trait;

use super::resource;
use crate::audit::Field;
use crate::engines::elevations::describe_elevation;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx, notices};
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
        let (facts, recipients) = describe_elevation(tx, self.id, kind).await?;
        // Somebody reviewed it meanwhile, or another node was first.
        if facts.review_due.is_none() || !notices::tell_overdue(tx, self.id).await? {
            return Err(Error::Conflict("nothing is overdue any more".into()));
        }
        let facts = NoticeFacts { by: ctx.actor(), ..facts };
        post_notice(ctx, tx, kind, &facts, &recipients).await.map(drop)
    }
}
