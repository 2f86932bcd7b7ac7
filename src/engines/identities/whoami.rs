//! Tells a caller who it is: the cheapest authorized call.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::recovery::{self, RecoveryRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, ResourceName, UnixMillis};
use crate::vault::{
    Decision, EndingSoon, Operation, READS, Recovery, Resource, Subject, Verb, View,
};

/// Asks who the caller is.
#[derive(Debug, Clone, Copy)]
pub struct Whoami;

/// Who the caller is, with all that a decision would read about it.
#[derive(Debug, Clone)]
pub struct WhoAmI {
    /// The caller.
    pub subject: Arc<Subject>,
    /// Whether the vault is marked as development.
    pub dev: bool,
    /// Whether the caller's own end is near.
    pub identity_ends_soon: bool,
    /// Whether its credential's is: less than a third of its life is left.
    pub credential_ends_soon: bool,
    /// What it answers for and ends within its notice.
    pub owned_end_soon: Arc<EndingSoon>,
    /// Of an administrator: a recovery that waits, or took effect lately.
    pub recovery: Option<Recovery>,
}

#[async_trait]
impl Verb for Whoami {
    const ACTION: &'static str = "identities.whoami";
    const SPENDS: bool = false;
    type Prepared = WhoAmI;
    type Output = WhoAmI;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let subject = view.subject()?;
        let row = &subject.identity.row;
        let name = ResourceName::join("identities", &[row.name.as_str()])?;
        let mut resource = Resource::named(name).with_row(row.id.0, &subject.identity);
        resource.owner = Some(row.owner);
        resource.identity = Some(subject.own_facts(view.now()));
        // Nobody is told what was so before: whoever cancels it or asks for one moves the row.
        resource.rows.extend(recovery(view).await?.map(|row| row.fence()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<WhoAmI> {
        let (subject, now) = (Arc::clone(view.subject()?), view.now());
        let row = recovery(view).await?;
        let recovery = row.map(|row| Recovery::of(&row.row)).transpose()?.flatten();
        let notice = u64::try_from(subject.lifecycle.row.notice_s).map_err(Error::internal)?;
        let near = |end: UnixMillis| end.since(now).as_secs() < notice;
        let credential = &subject.credential.row;
        let left = credential.expires_at.since(now);
        let late = left < credential.expires_at.since(credential.issued_at) / 3;
        Ok(WhoAmI {
            dev: view.is_dev(),
            identity_ends_soon: subject.identity.row.expires_at.is_some_and(near),
            owned_end_soon: view.ending_soon().await?,
            credential_ends_soon: late && near(credential.expires_at),
            recovery: recovery.filter(|one| one.is_told(now, subject.restore_epoch())),
            subject,
        })
    }
}

/// Finds the recovery that an administrator is told of. A row that is not what was sealed is not
/// kept of a caller, whom it must not keep from everything else: here it is an alarm.
async fn recovery(view: &View) -> Result<Option<Arc<Versioned<RecoveryRow>>>> {
    let subject = view.subject()?;
    if subject.recovery.is_some() || !subject.is_administrator() {
        return Ok(subject.recovery.clone());
    }
    let read = view.read(|tx| async { Ok(recovery::recovery(tx).await?) }.boxed());
    Ok(Some(Arc::new(read.await?)))
}

#[async_trait]
impl Operation for Whoami {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &WhoAmI,
        _: &Decision,
    ) -> Result<WhoAmI> {
        Ok(prepared.clone())
    }
}
