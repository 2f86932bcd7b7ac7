//! Deletes notices that are too old: what no sink is told any more.

use std::time::Duration;

use async_trait::async_trait;

use super::resource;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::notices::{self, NoticeHeadRow};
use crate::store::{Needs, Tx};
use crate::types::{NoticeNumber, RequestContext, UnixMillis};
use crate::vault::{Decision, Note, Operation, Resource, TAKES_BACK, Verb, View};

/// How long a notice is kept: longer than any is tried. However many there are, none goes before:
/// else whoever may ask could bury one under others.
const KEPT: Duration = Duration::from_hours(8 * 24);
/// Notices that are looked at in one step.
const STEP: i64 = 1_000;

/// Deletes notices up to one; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct PurgeNotices {
    /// The newest that goes.
    pub upto: NoticeNumber,
}

impl PurgeNotices {
    /// Finds what is to go, if anything is.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn due(tx: &mut Tx, now: UnixMillis) -> Result<Option<NoticeNumber>> {
        let kept_ms = i64::try_from(KEPT.as_millis()).map_err(Error::internal)?;
        let before = UnixMillis(now.0.saturating_sub(kept_ms));
        Ok(notices::due_for_purge(tx, before, STEP).await?)
    }
}

#[async_trait]
impl Verb for PurgeNotices {
    const ACTION: &'static str = "notices.purge";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        resource(&[])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        note.private.push((Field::Detail, format!("up to notice {}", self.upto.0)));
    }
}

#[async_trait]
impl Operation for PurgeNotices {
    // It makes room.
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let head = notices::hold_head(tx).await?;
        let upto = self.upto.min(NoticeNumber(head.row.last));
        if upto.0 <= head.row.purged {
            return Err(Error::Conflict("another node deleted them".into()));
        }
        let purged = NoticeHeadRow { purged: upto.0, changed_at: ctx.now, ..head.row };
        tx.update(head.version, &purged).await?;
        Ok(notices::purge(tx, upto).await?)
    }
}
