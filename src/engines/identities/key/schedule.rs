//! Says how often an identity's key rotates by itself.

use std::time::Duration;

use async_trait::async_trait;

use super::show::IdentityKeyStatus;
use crate::audit::Field;
use crate::engines::identities::show::{decided, resource};
use crate::engines::keys::every_s;
use crate::engines::rotations::Schedule;
use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::{IdentityId, IdentityName, RequestContext, Rotates};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Says how often an identity's key rotates by itself.
#[derive(Debug, Clone)]
pub struct ScheduleIdentityKey {
    /// The identity's name.
    pub name: IdentityName,
    /// How often; none for never.
    pub every: Option<Duration>,
}

#[async_trait]
impl Verb for ScheduleIdentityKey {
    const ACTION: &'static str = "identities.schedule-key";
    type Prepared = (IdentityId, Option<i64>);
    type Output = IdentityKeyStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<(IdentityId, Option<i64>)> {
        Ok((decided(decision)?, self.every.map(every_s).transpose()?))
    }

    fn note(&self, (_, every_s): &(IdentityId, Option<i64>), note: &mut Note) {
        let every = every_s.map_or_else(|| "never".to_owned(), |s| format!("every {s} s"));
        note.private.push((Field::Detail, every));
    }
}

#[async_trait]
impl Operation for ScheduleIdentityKey {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (id, every_s): &(IdentityId, Option<i64>),
        _: &Decision,
    ) -> Result<IdentityKeyStatus> {
        Schedule::put(ctx, tx, Rotates::Identity(*id), *every_s).await?;
        IdentityKeyStatus::read(tx, *id, ctx.now).await
    }
}
