//! Stops a recovery before it takes effect.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::audit::Field;
use crate::engines::identities::{LONG, check_text};
use crate::error::{Error, Result};
use crate::store::recovery::{self, RecoveryRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, RecoveryState, RequestContext, ResourceName};
use crate::vault::{CONTAINS, Decision, Note, Operation, READS, Recovery, Resource, Verb, View};

/// Cancels a recovery that waits.
#[derive(Debug)]
pub struct CancelRecovery {
    /// Which one.
    pub id: Id,
    /// Why.
    pub reason: String,
}

/// What is to be cancelled, or was.
#[derive(Debug)]
pub struct Cancelling {
    row: Versioned<RecoveryRow>,
    recovery: Recovery,
}

impl CancelRecovery {
    async fn find(view: &View) -> Result<Versioned<RecoveryRow>> {
        view.read(|tx| async { Ok(recovery::recovery(tx).await?) }.boxed()).await
    }
}

#[async_trait]
impl Verb for CancelRecovery {
    const ACTION: &'static str = "system.cancel-recovery";
    type Prepared = Cancelling;
    type Output = Recovery;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let mut resource = Resource::named(ResourceName::join("system", &["recovery"])?);
        resource.rows.push(Self::find(view).await?.fence());
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Cancelling> {
        check_text("a reason", &self.reason, LONG)?;
        let row = Self::find(view).await?;
        let found = Recovery::of(&row.row)?.filter(|one| one.id == self.id);
        let unknown =
            || Error::not_found("no recovery of this id waits; `whoami` names one that does");
        let recovery = found.ok_or_else(unknown)?;
        match recovery.state {
            RecoveryState::Cancelled => {}
            RecoveryState::Done => {
                return Err(Error::precondition(
                    "it took effect already; suspend the identity to end what it yielded",
                ));
            }
            RecoveryState::Never | RecoveryState::Pending => {
                if !recovery.is_pending(view.now(), view.subject()?.restore_epoch()) {
                    return Err(Error::precondition("it can take effect no more"));
                }
            }
        }
        Ok(Cancelling { row, recovery })
    }

    fn note(&self, prepared: &Cancelling, note: &mut Note) {
        let Recovery { id, name, .. } = &prepared.recovery;
        note.private.push((Field::Detail, format!("recovery {id} of {name}")));
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for CancelRecovery {
    const NEEDS: Needs = CONTAINS;

    fn needs(&self, prepared: &Cancelling) -> Needs {
        match prepared.recovery.state {
            RecoveryState::Pending => CONTAINS,
            RecoveryState::Never | RecoveryState::Cancelled | RecoveryState::Done => READS,
        }
    }

    /// Cancelling what is cancelled changes nothing.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Cancelling,
        _: &Decision,
    ) -> Result<Recovery> {
        let Cancelling { row: Versioned { row, version }, recovery } = prepared;
        if recovery.state == RecoveryState::Cancelled {
            return Ok(recovery.clone());
        }
        let cancelled = RecoveryRow {
            state: RecoveryState::Cancelled,
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..row.clone()
        };
        tx.update(*version, &cancelled).await?;
        Ok(Recovery { state: cancelled.state, changed_at: ctx.now, ..recovery.clone() })
    }
}
