//! Says how often the root key rotates by itself.

use std::time::Duration;

use async_trait::async_trait;

use super::{RootStatus, resource};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::engines::keys::every_s;
use crate::engines::rotations::Schedule;
use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, Rotates};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Says how often the root key rotates by itself; who says so together approves of each time.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleRoot {
    /// How often; none for never.
    pub every: Option<Duration>,
}

#[async_trait]
impl Verb for ScheduleRoot {
    const ACTION: &'static str = "root.schedule";
    type Prepared = Option<i64>;
    type Output = RootStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<Option<i64>> {
        self.every.map(every_s).transpose()
    }

    fn note(&self, every_s: &Option<i64>, note: &mut Note) {
        let every = every_s.map_or_else(|| "never".to_owned(), |s| format!("every {s} s"));
        note.private.push((Field::Detail, every));
    }
}

impl Solemn for ScheduleRoot {
    fn terms(&self) -> Vec<Term> {
        let every =
            self.every.map_or_else(|| "never".to_owned(), |it| format!("{} s", it.as_secs()));
        vec![Term::new("every", &every)]
    }
}

#[async_trait]
impl Operation for ScheduleRoot {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        every_s: &Option<i64>,
        _: &Decision,
    ) -> Result<RootStatus> {
        Schedule::put(ctx, tx, Rotates::Root, *every_s).await?;
        RootStatus::read(tx, ctx.now).await
    }
}
