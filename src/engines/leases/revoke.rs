//! Ending leases: by their holder, an administrator, or the worker that finds what is due.
//!
//! That a lease is to end is committed first; then the role goes; then that it is gone is
//! recorded. What fails is tried again by the worker, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{EndReason, Found, Lease, LeaseDetail, find, missing, resource_of};
use crate::audit::Field;
use crate::engines::database::Databases;
use crate::engines::database::postgres::PostgresTarget;
use crate::engines::database::target::{DatabaseTarget as _, TargetError};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::database::TargetRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, CredentialState, RequestContext, UnixMillis};
use crate::vault::{
    Decision, EffectOperation, Note, READS, Resource, Resumed, TAKES_BACK, Verb, View, WRITES,
};

/// How long a try has a lease for itself: after it another may begin.
const CLAIM: Duration = Duration::from_mins(1);
/// How long a caller waits for the target; the worker goes on where that is not enough.
const CALLER_WAITS: Duration = Duration::from_secs(10);
/// How long a worker's try takes at most: less than its claim.
const WORKER_WAITS: Duration = Duration::from_secs(45);
/// After an intent, how long a target may still create the role. Before that a role that is not
/// there proves nothing. See [`crate::engines::database::IssueCredentials`].
pub(in crate::engines) const MAY_STILL_COME: Duration = Duration::from_mins(1);
/// Pauses between tries: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(5);
const DOUBLINGS: u32 = 9;
const REASON_CHARS: usize = 500;

/// What a worker keeps of one target while it goes through its leases.
#[derive(Debug, Clone)]
pub struct Course(Arc<OfTarget>);

#[derive(Debug)]
struct OfTarget {
    /// Why it does not answer, where it does not: it is not asked for each of its leases.
    outage: Mutex<Option<String>>,
    /// Leases that it is asked about at once. More are under way, so that it need not wait while
    /// what it did is committed.
    lanes: Semaphore,
}

impl Course {
    /// Begins one that asks the target about so many leases at once.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self(Arc::new(OfTarget { outage: Mutex::default(), lanes: Semaphore::new(lanes) }))
    }
}

/// Who ends a lease, and why.
#[derive(Debug, Clone)]
pub enum Ending {
    /// A caller asked for it.
    Asked {
        /// Why, for the record.
        reason: String,
    },
    /// A worker found it due: this version of it, and nobody else's claim since.
    Due {
        /// The version that was found due.
        version: i64,
        /// Why it is to end, unless it was to end before.
        reason: EndReason,
        /// What is known of its target.
        course: Course,
    },
}

/// Ends a lease.
#[derive(Debug)]
pub struct RevokeLease {
    /// What the database verbs share.
    pub databases: Databases,
    /// The lease.
    pub id: CredentialId,
    /// Who asks, and why.
    pub ending: Ending,
}

/// What ending it takes.
#[derive(Debug)]
pub struct Prepared {
    found: Found,
    target: Result<Arc<PostgresTarget>>,
    used: Vec<KeyUse>,
    /// Why the target did not end it, for the row and the record.
    trouble: Mutex<Option<String>>,
}

impl Prepared {
    fn is_over(&self) -> bool {
        self.found.lease.row.state == CredentialState::Ended
    }
}

#[async_trait]
impl Verb for RevokeLease {
    const ACTION: &'static str = "leases.revoke";
    type Prepared = Prepared;
    type Output = Lease;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.id).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        if let Ending::Asked { reason } = &self.ending
            && reason.chars().count() > REASON_CHARS
        {
            return Err(Error::invalid("a reason has at most 500 characters"));
        }
        let found = find(view, self.id).await?.ok_or_else(missing)?;
        // Whatever is wrong with the account, that the lease is to end is committed.
        let (target, used) = match pool(&self.databases, view, &found.detail).await {
            Ok((target, used)) => (Ok(target), used),
            Err(error) => (Err(error), view.used()),
        };
        Ok(Prepared { found, target, used, trouble: Mutex::default() })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(self.id);
        note.keys.extend(prepared.used.iter().cloned());
        if let Ending::Asked { reason } = &self.ending
            && !reason.is_empty()
        {
            note.private.push((Field::Reason, reason.clone()));
        }
        let trouble = prepared.trouble.lock().clone();
        if let Some(trouble) = trouble {
            note.private.push((Field::Detail, trouble));
        }
    }
}

#[async_trait]
impl EffectOperation for RevokeLease {
    /// Whether the role is gone from the target.
    type Effect = bool;

    /// The room that is kept is for the first try to take something back. So each lease uses it
    /// once or twice, and neither repeating a request nor a target that is down drains it.
    fn needs(&self, prepared: &Prepared) -> Needs {
        let lease = &prepared.found.lease.row;
        match (&self.ending, lease.state) {
            (Ending::Asked { .. }, CredentialState::Ended | CredentialState::Spent) => READS,
            (Ending::Asked { .. }, CredentialState::Pending | CredentialState::Active) => {
                TAKES_BACK
            }
            // A suspension left it to the worker.
            (Ending::Due { .. }, CredentialState::Revoking) if lease.tries == 0 => TAKES_BACK,
            (Ending::Asked { .. }, CredentialState::Revoking) | (Ending::Due { .. }, _) => WRITES,
        }
    }

    fn is_done(&self, prepared: &Prepared) -> bool {
        matches!(self.ending, Ending::Asked { .. }) && prepared.is_over()
    }

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        _: &Prepared,
        _: &Decision,
    ) -> Result<()> {
        let lease = tx.lookup::<CredentialRow>(&self.id).await?.ok_or_else(missing)?;
        let why = match &self.ending {
            // Another ended it in between.
            Ending::Asked { .. } if lease.row.state == CredentialState::Ended => return Ok(()),
            Ending::Asked { .. } => EndReason::Revoked,
            Ending::Due { version, reason, .. } if lease.version == *version => *reason,
            Ending::Due { .. } => {
                return Err(Error::Conflict("another node is ending this lease".into()));
            }
        };
        let claim = ctx.now.plus(CLAIM)?;
        end(tx, &lease, why, claim).await
    }

    async fn act(&self, view: &View, prepared: &Prepared) -> Result<bool> {
        if self.is_done(prepared) {
            return Ok(true);
        }
        let ended = match &self.ending {
            Ending::Asked { .. } => take_back(view, prepared, CALLER_WAITS, None).await,
            Ending::Due { course, .. } => {
                take_back(view, prepared, WORKER_WAITS, Some(course)).await
            }
        };
        match (ended, &self.ending) {
            (Ok(()), _) => Ok(true),
            (Err(error), ending) => {
                *prepared.trouble.lock() = Some(error.to_string());
                match ending {
                    Ending::Asked { .. } => Ok(false),
                    Ending::Due { .. } => Err(error),
                }
            }
        }
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        gone: &bool,
    ) -> Result<Lease> {
        let row = if self.is_done(prepared) {
            // Whatever became of it since is not this one's to settle.
            tx.lookup::<CredentialRow>(&self.id).await?.ok_or_else(missing)?.row
        } else if *gone {
            settle(ctx, tx, self.id).await?
        } else {
            postpone(ctx, tx, self.id, prepared).await?
        };
        prepared.found.shown(row)
    }

    async fn abandon(&self, ctx: &RequestContext, tx: &mut Tx, prepared: &Prepared) -> Result<()> {
        postpone(ctx, tx, self.id, prepared).await.map(drop)
    }
}

/// Finds the connections to the account that made a lease's role.
pub(super) async fn pool(
    databases: &Databases,
    view: &View,
    detail: &LeaseDetail,
) -> Result<(Arc<PostgresTarget>, Vec<KeyUse>)> {
    let id = detail.target()?;
    let row = view.read(move |tx| async move { Ok(tx.lookup::<TargetRow>(&id).await?) }.boxed());
    let row = row.await?.ok_or_else(|| Error::internal("a lease without its account"))?;
    databases.pool(view, &row).await
}

async fn take_back(
    view: &View,
    prepared: &Prepared,
    patience: Duration,
    course: Option<&Course>,
) -> Result<()> {
    let target = prepared.target.as_ref().map_err(Clone::clone)?;
    let detail = &prepared.found.detail;
    let role = detail.role(view.vault_id())?;
    let revoke = async {
        let Some(Course(of)) = course else {
            return target.revoke(&role, &detail.disposal).await.map_err(Error::from);
        };
        let _lane = of.lanes.acquire().await.map_err(Error::internal)?;
        let outage = of.outage.lock().clone();
        if let Some(outage) = outage {
            return Err(Error::unavailable(outage));
        }
        target.revoke(&role, &detail.disposal).await.map_err(|error| {
            if matches!(error, TargetError::Unreachable(_)) {
                *of.outage.lock() = Some(error.to_string());
            }
            error.into()
        })
    };
    let late = |_elapsed| Error::unavailable("the target database did not answer in time");
    tokio::time::timeout(patience, revoke).await.map_err(late)?
}

/// Writes that a lease is to end, to be looked at again at a time.
async fn end(
    tx: &mut Tx,
    lease: &Versioned<CredentialRow>,
    why: EndReason,
    next_try: UnixMillis,
) -> Result<()> {
    let mut detail = LeaseDetail::decode(&lease.row.detail)?;
    detail.end_reason.get_or_insert(why);
    let row = CredentialRow {
        state: CredentialState::Revoking,
        next_try: Some(next_try),
        detail: detail.encode()?,
        ..lease.row.clone()
    };
    tx.update(lease.version, &row).await?;
    Ok(())
}

/// Writes that a lease is over; or that it has to be looked for once more, because its role may
/// still come to be.
async fn settle(ctx: &RequestContext, tx: &mut Tx, id: CredentialId) -> Result<CredentialRow> {
    let lease = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?;
    if lease.row.state == CredentialState::Ended {
        return Ok(lease.row);
    }
    let mut detail = LeaseDetail::decode(&lease.row.detail)?;
    let certain = lease.row.issued_at.plus(MAY_STILL_COME)?;
    let row = if detail.created || ctx.now >= certain {
        detail.ended(ctx.now);
        CredentialRow {
            state: CredentialState::Ended,
            next_try: None,
            trouble: String::new(),
            detail: detail.encode()?,
            ..lease.row.clone()
        }
    } else {
        CredentialRow {
            state: CredentialState::Revoking,
            next_try: Some(certain),
            trouble: "creating it was not seen to end; it is looked for once more".to_owned(),
            ..lease.row.clone()
        }
    };
    Ok(tx.update(lease.version, &row).await?.row)
}

/// Writes that a try failed, and when the next one is.
async fn postpone(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: CredentialId,
    prepared: &Prepared,
) -> Result<CredentialRow> {
    let lease = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?;
    if lease.row.state == CredentialState::Ended {
        return Ok(lease.row);
    }
    let row = CredentialRow {
        next_try: Some(ctx.now.plus(pause(lease.row.tries))?),
        tries: lease.row.tries.saturating_add(1),
        trouble: prepared.trouble.lock().clone().unwrap_or_default(),
        ..lease.row.clone()
    };
    Ok(tx.update(lease.version, &row).await?.row)
}

/// How long to wait after so many tries in vain.
fn pause(tries: i64) -> Duration {
    let doublings = u32::try_from(tries).unwrap_or(DOUBLINGS).min(DOUBLINGS);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LAST_PAUSE)
}

/// Leaves to the worker what an issue did not bring to its end.
pub(in crate::engines) async fn hand_over(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: CredentialId,
) -> Result<()> {
    let Some(lease) = tx.lookup::<CredentialRow>(&id).await? else { return Ok(()) };
    // Ended as well: the role may have come to be after it was looked for.
    end(tx, &lease, EndReason::Failed, ctx.now).await
}

/// Finds a lease of the caller's: the row that names it is not sealed, so whoever writes to the
/// database chooses the name.
async fn own_lease(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: CredentialId,
) -> Result<Versioned<CredentialRow>> {
    let lease = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?;
    let own = ctx.authenticated().is_some_and(|caller| caller.identity == lease.row.identity);
    if own && lease.row.kind == CredentialKind::Lease { Ok(lease) } else { Err(missing()) }
}

/// Ends, in favour of another, what a first try made.
pub(in crate::engines) async fn supersede(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: CredentialId,
) -> Result<()> {
    let lease = own_lease(ctx, tx, id).await?;
    match lease.row.state {
        CredentialState::Pending | CredentialState::Active => {
            end(tx, &lease, EndReason::Revoked, ctx.now).await
        }
        CredentialState::Revoking | CredentialState::Ended | CredentialState::Spent => Ok(()),
    }
}

/// Says what is left of the lease that a counted use began. A use pays for one lease at a time: the
/// next may be made when this one is proven gone, and came to nothing or is to be replaced.
pub(in crate::engines) async fn resume(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: CredentialId,
    replace: bool,
) -> Result<Resumed> {
    let lease = own_lease(ctx, tx, id).await?;
    let detail = LeaseDetail::decode(&lease.row.detail)?;
    match (lease.row.state, detail.end_reason) {
        (CredentialState::Ended, Some(EndReason::Failed | EndReason::Replaced)) => {
            Ok(Resumed::Anew)
        }
        (CredentialState::Active, _) if replace => {
            end(tx, &lease, EndReason::Replaced, ctx.now).await?;
            Ok(Resumed::Stays)
        }
        (_, _) => Ok(Resumed::Stays),
    }
}

/// Ends a lease because what it hangs on was revoked.
pub(in crate::engines) async fn end_with_parent(
    ctx: &RequestContext,
    tx: &mut Tx,
    lease: &Versioned<CredentialRow>,
) -> Result<()> {
    end(tx, lease, EndReason::ParentEnded, ctx.now).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let seconds: Vec<_> = (0..12).map(|tries| pause(tries).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(pause(i64::MAX), LAST_PAUSE);
    }
}
