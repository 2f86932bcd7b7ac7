//! Removes answers whose time is over: nobody opens them any more. What became of a wrap stays.

use async_trait::async_trait;

use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx, wraps};
use crate::types::{RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, Resource, TAKES_BACK, Verb, View};

/// Answers that are removed in one step.
const STEP: i64 = 256;

/// How long an answer is kept that is over, in milliseconds: a node whose clock is behind, or a call
/// that began before, would find a wrap that may be opened without what was in it, which is an alarm.
const KEPT_MS: i64 = 60_000;

/// Removes answers that are over; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct PurgeWraps;

impl PurgeWraps {
    /// Since when an answer is over that is removed at a moment.
    #[must_use]
    pub const fn over_since(now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_sub(KEPT_MS))
    }
}

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
        match wraps::purge(tx, Self::over_since(ctx.now), STEP).await? {
            0 => Err(Error::Conflict("another node removed them".into())),
            removed => Ok(removed),
        }
    }
}
