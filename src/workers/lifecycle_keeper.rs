//! Suspends identities whose end has passed, and those that were not used for as long as their
//! kind may rest.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::identities::{Due, SuspendIdentity};
use crate::error::{Error, Result};
use crate::store::identities::IdentityRow;
use crate::store::{Reader, Versioned, lifecycles};
use crate::types::{Caller, Kind, UnixMillis};
use crate::vault::Vault;

/// Identities in one step, and steps of one round: what is left is due in the next.
const STEP: i64 = 64;
const STEPS: usize = 16;
/// Time between two looks at who is over, and at who is dormant, in milliseconds.
const OVER_EVERY_MS: i64 = 60_000;
const DORMANT_EVERY_MS: i64 = 3_600_000;

/// The worker.
#[derive(Debug)]
pub struct LifecycleKeeper {
    vault: Vault,
    reader: Reader,
    over_at: AtomicI64,
    dormant_at: AtomicI64,
}

impl LifecycleKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader, over_at: AtomicI64::new(0), dormant_at: AtomicI64::new(0) }
    }

    async fn end_over(&self, now: UnixMillis) -> Result<()> {
        for _ in 0..STEPS {
            let read = self
                .reader
                .view(move |tx| async move { Ok(lifecycles::over(tx, now, STEP).await?) }.boxed());
            let found = read.await?;
            if found.is_empty() {
                break;
            }
            for identity in found {
                self.suspend(identity, Due::Over, "its end has passed").await?;
            }
        }
        Ok(())
    }

    /// What cannot be suspended, the last administrator, is passed by.
    async fn end_dormant(&self, kind: Kind, now: UnixMillis) -> Result<()> {
        let mut after = String::new();
        for _ in 0..STEPS {
            let from = after.clone();
            let read = self.reader.view(move |tx| {
                async move {
                    let rests_s = lifecycles::of_kind(tx, kind).await?.row.dormant_after_s;
                    if rests_s == 0 {
                        return Ok((UnixMillis(0), Vec::new()));
                    }
                    let since = UnixMillis(now.0.saturating_sub(rests_s.saturating_mul(1_000)));
                    Ok((since, lifecycles::dormant(tx, kind, since, &from, STEP).await?))
                }
                .boxed()
            });
            let (since, found) = read.await?;
            let Some(last) = found.last() else { break };
            after = last.row.id.to_string();
            for identity in found {
                self.suspend(identity, Due::Dormant { since }, "it was not used for too long")
                    .await?;
            }
        }
        Ok(())
    }

    async fn suspend(
        &self,
        identity: Versioned<IdentityRow>,
        due: Due,
        reason: &'static str,
    ) -> Result<()> {
        let name = identity.row.name;
        let ctx = self.vault.context(Caller::System(Self::NAME), None, None)?;
        let op = SuspendIdentity { name: name.clone(), reason: reason.to_owned(), due: Some(due) };
        match self.vault.run(&ctx, op).await {
            Ok(_) => tracing::warn!(identity = %name, reason, "an identity was suspended"),
            // Another node was first, it was changed or used meanwhile, or it is needed.
            Err(Error::Conflict(_) | Error::Precondition(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for LifecycleKeeper {
    const NAME: &'static str = "lifecycle_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let due =
            |at: &AtomicI64, every: i64| now.0.saturating_sub(at.load(Ordering::Acquire)) >= every;
        if due(&self.over_at, OVER_EVERY_MS) {
            self.end_over(now).await?;
            self.over_at.store(now.0, Ordering::Release);
        }
        if due(&self.dormant_at, DORMANT_EVERY_MS) {
            for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Bootstrap) {
                self.end_dormant(*kind, now).await?;
            }
            self.dormant_at.store(now.0, Ordering::Release);
        }
        Ok(())
    }
}
