//! Removes a grant: it ends, and stays to be seen.

use async_trait::async_trait;

use super::DescribedGrant;
use super::show::{Holder, resource, unknown};
use crate::audit::Field;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::store::identities::GrantRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{GrantId, RequestContext};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Removes a grant. What was issued under it lives on to its own end.
#[derive(Debug, Clone)]
pub struct RemoveGrant {
    /// Its id.
    pub id: GrantId,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Verb for RemoveGrant {
    const ACTION: &'static str = "grants.remove";
    type Prepared = ();
    type Output = DescribedGrant;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.id).await?])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        check_text("a reason", &self.reason, LONG)
    }

    fn note(&self, (): &(), note: &mut Note) {
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RemoveGrant {
    const NEEDS: Needs = CONTAINS;

    /// Answers the grant as it was.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (): &(),
        decision: &Decision,
    ) -> Result<DescribedGrant> {
        let found = tx.lookup::<GrantRow>(&self.id).await?.filter(|found| found.row.active);
        let Versioned { row, version } = found.ok_or_else(unknown)?;
        // An identity and a group may share a name, and a grant of this action names no more.
        let administers =
            decision.subject.as_ref().is_some_and(|subject| subject.is_administrator());
        if row.subject_is_group && !administers {
            return Err(Error::Denied("only administrators take grants from groups".into()));
        }
        let was = DescribedGrant::read(tx, &mut Names::default(), row.clone()).await?;
        let (subject, is_group) = (row.subject, row.subject_is_group);
        let ended = GrantRow { active: false, changed_at: ctx.now, changed_by: ctx.actor(), ..row };
        tx.update(version, &ended).await?;
        Holder::touch(ctx, tx, subject, is_group).await?;
        Ok(was)
    }
}
