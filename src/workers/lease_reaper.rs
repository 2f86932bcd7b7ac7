//! Ends leases: whose time is over, that are to end, that a crash left half made, whose identity
//! has no right to them any more. Lets go of targets that another node removed.
//!
//! Each is claimed by a compare-and-set before anything is done, so that nodes do not fight. A
//! target that is down holds up its own leases alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::Worker;
use crate::engines::database::Databases;
use crate::engines::leases::{Course, EndReason, Ending, LeaseDetail, RevokeLease};
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::{Reader, Versioned};
use crate::types::{Caller, CredentialKind, CredentialState, ObjectId, UnixMillis};
use crate::vault::Vault;

/// Leases looked at in one step.
const STEP: i64 = 256;
/// Steps of one round: what is left is due in the next.
const STEPS: usize = 8;
/// Targets worked on at once, and leases that one of them is asked about at once.
const TARGETS: usize = 16;
const ASKED: usize = 8;
/// Leases of one target that are under way at once: what it did of some is committed meanwhile.
const LEASES: usize = 12;

/// The worker.
#[derive(Debug)]
pub struct LeaseReaper {
    vault: Vault,
    reader: Reader,
    databases: Databases,
    /// The authority epoch up to which leases without right were looked for.
    looked: AtomicI64,
    /// When they were last looked for, whatever the epoch.
    looked_at: AtomicI64,
}

/// Looks for leases without right anyway, because identities also end by time, in milliseconds.
const LOOK_EVERY_MS: i64 = 60_000;

impl LeaseReaper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader, databases: Databases) -> Self {
        let looked = AtomicI64::new(0);
        Self { vault, reader, databases, looked, looked_at: AtomicI64::new(0) }
    }

    /// Ends one step's leases; tells whether there may be more.
    async fn end_due(&self, now: UnixMillis) -> Result<bool> {
        let due = self
            .reader
            .view(move |tx| {
                async move { Ok(credentials::due(tx, CredentialKind::Lease, now, STEP).await?) }
                    .boxed()
            })
            .await?;
        let more = i64::try_from(due.len()).is_ok_and(|found| found == STEP);
        let due = due.into_iter().map(|lease| {
            let why = reason(&lease.row);
            (lease, why)
        });
        self.end(due.collect()).await;
        Ok(more)
    }

    /// Ends leases whose identity lost them; tells whether there may be more.
    async fn end_without_right(&self, now: UnixMillis) -> Result<bool> {
        let (epoch, found) = self
            .reader
            .view(move |tx| {
                async move {
                    let epoch = tx.epoch().await?;
                    Ok((epoch, credentials::leases_without_right(tx, now, STEP).await?))
                }
                .boxed()
            })
            .await?;
        let more = i64::try_from(found.len()).is_ok_and(|found| found == STEP);
        let complete = found.is_empty();
        let found = found.into_iter().map(|lease| (lease, EndReason::IdentitySuspended));
        self.end(found.collect()).await;
        if complete {
            // Nobody gets a lease for what moved before this epoch: fences refuse it.
            self.looked.fetch_max(epoch, Ordering::AcqRel);
            self.looked_at.store(now.0, Ordering::Release);
        }
        Ok(more)
    }

    /// Ends leases that were made under an elevation which is over; tells whether there may be more.
    async fn end_of_elevations(&self) -> Result<bool> {
        let read = self
            .reader
            .view(|tx| async { Ok(credentials::leases_of_ended(tx, STEP).await?) }.boxed());
        let found = read.await?;
        // Those of one column come before those of the other.
        let more = !found.is_empty();
        let found = found.into_iter().map(|lease| (lease, EndReason::ElevationEnded));
        self.end(found.collect()).await;
        Ok(more)
    }

    async fn may_lack_right(&self, now: UnixMillis) -> Result<bool> {
        let minute = now.0.saturating_sub(self.looked_at.load(Ordering::Acquire));
        if minute >= LOOK_EVERY_MS {
            return Ok(true);
        }
        let epoch = self.reader.view(|tx| async { Ok(tx.epoch().await?) }.boxed()).await?;
        Ok(epoch > self.looked.load(Ordering::Acquire))
    }

    /// Ends leases, target by target.
    async fn end(&self, leases: Vec<(Versioned<CredentialRow>, EndReason)>) {
        let mut targets: HashMap<Option<ObjectId>, Vec<_>> = HashMap::new();
        for (lease, why) in leases {
            let target = LeaseDetail::decode(&lease.row.detail).and_then(|detail| detail.target());
            targets.entry(target.ok()).or_default().push((lease, why));
        }
        stream::iter(targets.into_values())
            .for_each_concurrent(TARGETS, |leases| self.end_of_target(leases))
            .await;
    }

    async fn end_of_target(&self, leases: Vec<(Versioned<CredentialRow>, EndReason)>) {
        let course = Course::new(ASKED);
        stream::iter(leases)
            .for_each_concurrent(LEASES, |(lease, reason)| {
                let course = course.clone();
                async move {
                    let id = lease.row.id;
                    match self.end_one(&lease, reason, course).await {
                        // Another node has it, or its holder was first.
                        Ok(()) | Err(Error::Conflict(_) | Error::Sealed) => {}
                        Err(error) => tracing::warn!(lease = %id, %error, "a lease does not end"),
                    }
                }
            })
            .await;
    }

    async fn end_one(
        &self,
        lease: &Versioned<CredentialRow>,
        reason: EndReason,
        course: Course,
    ) -> Result<()> {
        let id = lease.row.id;
        let read = self
            .reader
            .view(move |tx| async move { Ok(tx.lookup::<CredentialRow>(&id).await?) }.boxed());
        if read.await?.is_none_or(|now| now.version != lease.version) {
            return Ok(());
        }
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        let ending = Ending::Due { version: lease.version, reason, course };
        let databases = self.databases.clone();
        self.vault.run_effect(&ctx, RevokeLease { databases, id, ending }).await.map(drop)
    }
}

#[async_trait]
impl Worker for LeaseReaper {
    const NAME: &'static str = "lease_reaper";
    const PERIOD: Duration = Duration::from_secs(1);
    const FOLLOWS: bool = true;

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        for _ in 0..STEPS {
            if !self.may_lack_right(now).await? || !self.end_without_right(now).await? {
                break;
            }
        }
        for _ in 0..STEPS {
            if !self.end_of_elevations().await? {
                break;
            }
        }
        for _ in 0..STEPS {
            if !self.end_due(now).await? {
                break;
            }
        }
        self.databases.forget_changed(&self.reader).await
    }
}

fn reason(lease: &CredentialRow) -> EndReason {
    match lease.state {
        CredentialState::Active => EndReason::Expired,
        CredentialState::Pending => EndReason::Failed,
        // Why it is to end stands in it already.
        CredentialState::Revoking | CredentialState::Ended | CredentialState::Spent => {
            EndReason::Revoked
        }
    }
}
