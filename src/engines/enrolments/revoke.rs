//! Revokes an enrolment: its token is dead from the commit on, and every certificate below it.

use async_trait::async_trait;

use super::detail::{EnrolmentDetail, Why};
use super::lineage::end;
use super::{Enrolment, Found, find, missing, resource_name};
use crate::audit::Field;
use crate::engines::identities::{LONG, check_text};
use crate::engines::tokens::{is_taken_back, needs_of_revoking};
use crate::error::Result;
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, RequestContext, ResourceName};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Ends an enrolment.
#[derive(Debug, Clone)]
pub struct RevokeEnrolment {
    /// Which.
    pub id: CredentialId,
    /// Why, for the record.
    pub reason: String,
}

/// The enrolment that is to end.
#[derive(Debug)]
pub struct Prepared {
    found: Found,
    restore_epoch: i64,
}

#[async_trait]
impl Verb for RevokeEnrolment {
    const ACTION: &'static str = "enrolments.revoke";
    type Prepared = Prepared;
    type Output = Enrolment;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let Some(found) = find(view, self.id).await? else {
            let name = ResourceName::join("enrolments", &[&self.id.to_string()])?;
            return Ok(vec![Resource::named(name)]);
        };
        let name = resource_name(&found.holder.row.name)?;
        let mut resource = Resource::named(name).with_row(self.id.0, &found.enrolment);
        resource.rows.push(found.holder.fence());
        resource.owner = Some(found.holder.row.owner);
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        check_text("a reason", &self.reason, LONG)?;
        let found = find(view, self.id).await?.ok_or_else(missing)?;
        Ok(Prepared { found, restore_epoch: view.subject()?.restore_epoch() })
    }

    fn note(&self, _: &Prepared, note: &mut Note) {
        note.credential = Some(self.id);
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RevokeEnrolment {
    const NEEDS: Needs = CONTAINS;

    fn needs(&self, prepared: &Prepared) -> Needs {
        needs_of_revoking(prepared.found.enrolment.row.state)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        Prepared { found, restore_epoch }: &Prepared,
        _: &Decision,
    ) -> Result<Enrolment> {
        let read = tx.lookup::<CredentialRow>(&self.id).await?.ok_or_else(missing)?;
        let row = if is_taken_back(read.row.state) {
            read.row
        } else {
            let detail = EnrolmentDetail::decode(&read.row.detail)?;
            end(ctx, tx, read, detail, Why::Revoked).await?
        };
        found.shown(row, (*restore_epoch, ctx.now))
    }
}
