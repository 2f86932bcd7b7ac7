//! What the clock does to ceremonies: one that waited too long is over, and that is told.

use async_trait::async_trait;

use super::case::Case;
use super::notify;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::{CeremonyId, CeremonyState, NoticeKind, RequestContext};
use crate::vault::{Decision, Note, Operation, Resource, TAKES_BACK, Verb, View};

/// Says of a ceremony that it waited too long; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct ExpireCeremony {
    /// Which.
    pub id: CeremonyId,
    /// The version that was found due.
    pub version: i64,
}

#[async_trait]
impl Verb for ExpireCeremony {
    const ACTION: &'static str = "ceremonies.expire";
    /// Whether the vault is marked as development.
    type Prepared = bool;
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("ceremonies".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<bool> {
        Ok(view.is_dev())
    }

    fn note(&self, _: &bool, note: &mut Note) {
        note.private.push((Field::Detail, format!("ceremony {}", self.id)));
    }
}

#[async_trait]
impl Operation for ExpireCeremony {
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        dev: &bool,
        _: &Decision,
    ) -> Result<()> {
        let mut case = Case::find(tx, self.id, *dev).await?;
        let row = &case.found.row;
        let due = row.state == CeremonyState::Open && row.expires_at <= ctx.now;
        if !due || case.found.version != self.version {
            return Err(Error::Conflict("it is not due any more".into()));
        }
        case.write(ctx, tx, CeremonyState::Expired).await?;
        notify::event(ctx, tx, &case, NoticeKind::CeremonyExpired).await
    }
}
