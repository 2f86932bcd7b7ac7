//! Removes answers whose time is over: nobody opens them any more. What became of a wrap stays.

use async_trait::async_trait;

use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx, wraps};
use crate::types::RequestContext;
use crate::vault::{Decision, Operation, Resource, TAKES_BACK, Verb, View};

/// Answers that are removed in one step.
const STEP: i64 = 256;

/// Removes answers that are over; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct PurgeWraps;

#[async_trait]
impl Verb for PurgeWraps {
    const ACTION: &'static str = "wraps.purge";
    type Prepared = ();
    /// How many were removed.
    type Output = u64;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("wraps".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Operation for PurgeWraps {
    // It makes room.
    const NEEDS: Needs = TAKES_BACK;

    fn tells(&self, removed: &u64) -> Vec<(Field, String)> {
        vec![(Field::Detail, format!("{removed} answers"))]
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (): &(),
        _: &Decision,
    ) -> Result<u64> {
        match wraps::purge(tx, ctx.now, STEP).await? {
            0 => Err(Error::Conflict("another node removed them".into())),
            removed => Ok(removed),
        }
    }
}
