//! Says how often an authority rotates by itself.

use std::time::Duration;

use async_trait::async_trait;

use super::{AuthorityName, AuthorityStatus, resource};
use crate::audit::Field;
use crate::engines::keys::every_s;
use crate::engines::rotations::Schedule;
use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::RequestContext;
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Says how often an authority rotates by itself.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleAuthority {
    /// Which.
    pub name: AuthorityName,
    /// How often; none for never.
    pub every: Option<Duration>,
}

#[async_trait]
impl Verb for ScheduleAuthority {
    const ACTION: &'static str = "authorities.schedule";
    type Prepared = Option<i64>;
    type Output = AuthorityStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.name).await?])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<Option<i64>> {
        self.every.map(every_s).transpose()
    }

    fn note(&self, every_s: &Option<i64>, note: &mut Note) {
        let every = every_s.map_or_else(|| "never".to_owned(), |s| format!("every {s} s"));
        note.private.push((Field::Detail, every));
    }
}

#[async_trait]
impl Operation for ScheduleAuthority {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        every_s: &Option<i64>,
        _: &Decision,
    ) -> Result<AuthorityStatus> {
        Schedule::put(ctx, tx, self.name.subject(), *every_s).await?;
        AuthorityStatus::read(tx, self.name, ctx.now).await
    }
}
