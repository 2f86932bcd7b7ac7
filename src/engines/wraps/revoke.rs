//! Takes a wrap back: nobody opens it any more, and what was in it is gone.

use async_trait::async_trait;

use super::{Wrap, as_of, missing, resource_of};
use crate::audit::Field;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::Result;
use crate::store::wraps::{self, WrapRow};
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, Id, RequestContext, WrapState};
use crate::vault::{Decision, Note, Operation, Resource, TAKES_BACK, Verb, View};

/// Takes a wrap back.
#[derive(Debug, Clone)]
pub struct RevokeWrap {
    /// Its accessor.
    pub accessor: CredentialId,
    /// Why, for the record.
    pub reason: String,
}

#[async_trait]
impl Verb for RevokeWrap {
    const ACTION: &'static str = "wraps.revoke";
    /// The restore of the vault that it is shown as of.
    type Prepared = i64;
    type Output = Wrap;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.accessor).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<i64> {
        check_text("a reason", &self.reason, LONG)?;
        decision.resource()?.id.ok_or_else(missing)?;
        let (_, restore_epoch) = as_of(view)?;
        Ok(restore_epoch)
    }

    fn note(&self, _: &i64, note: &mut Note) {
        note.credential = Some(self.accessor);
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RevokeWrap {
    const NEEDS: Needs = TAKES_BACK;

    fn holds(&self, _: &i64) -> Option<Id> {
        Some(self.accessor.0)
    }

    /// Repeating it changes nothing, nor does it change what was opened.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        restore_epoch: &i64,
        _: &Decision,
    ) -> Result<Wrap> {
        let found = tx.lookup::<WrapRow>(&self.accessor).await?.ok_or_else(missing)?;
        let row = match found.row.state {
            WrapState::Opened | WrapState::Revoked => found.row,
            WrapState::Pending => {
                let (changed_at, changed_by) = (ctx.now, ctx.actor());
                let row =
                    WrapRow { state: WrapState::Revoked, changed_at, changed_by, ..found.row };
                tx.update(found.version, &row).await?;
                wraps::remove_payload(tx, row.id).await?;
                row
            }
        };
        Wrap::describe(tx, &mut Names::default(), row, (ctx.now, *restore_epoch)).await
    }
}
