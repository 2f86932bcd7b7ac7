//! Suspends identities whose end has passed, and those that were not used for as long as their
//! kind may rest.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

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
    rounds: Mutex<Option<Rounds>>,
}

/// When it last looked, and what it may not hold against anybody.
#[derive(Debug, Clone, Copy)]
struct Rounds {
    over_at: UnixMillis,
    dormant_at: UnixMillis,
    /// Milliseconds before this node's start in which nobody at all was served: nobody could have
    /// been used then.
    unserved_ms: i64,
}

impl LifecycleKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader, rounds: Mutex::default() }
    }

    /// Waits a whole round after a start, so that whoever finds a wrong clock, or an old vault put
    /// back, has the time to say so.
    async fn begin(&self, now: UnixMillis) -> Result<()> {
        let last = self.reader.view(|tx| async { Ok(lifecycles::last_use(tx).await?) }.boxed());
        let unserved_ms = last.await?.map_or(0, |last| now.0.saturating_sub(last.0).max(0));
        *self.rounds.lock() = Some(Rounds { over_at: now, dormant_at: now, unserved_ms });
        Ok(())
    }

    async fn end_over(&self, now: UnixMillis) -> Result<()> {
        let mut after = String::new();
        for _ in 0..STEPS {
            let from = after.clone();
            let read = self.reader.view(move |tx| {
                async move { Ok(lifecycles::over(tx, now, &from, STEP).await?) }.boxed()
            });
            let found = read.await?;
            let Some(last) = found.last() else { break };
            after = last.row.id.to_string();
            for identity in found {
                self.suspend(identity, Due::Over, "its end has passed").await;
            }
        }
        Ok(())
    }

    async fn end_dormant(&self, kind: Kind, now: UnixMillis, unserved_ms: i64) -> Result<()> {
        let mut after = String::new();
        for _ in 0..STEPS {
            let from = after.clone();
            let read = self.reader.view(move |tx| {
                async move {
                    let after_s = lifecycles::of_kind(tx, kind).await?.row.dormant_after_s;
                    if after_s == 0 {
                        return Ok((UnixMillis(0), Vec::new()));
                    }
                    let unused_ms = after_s.saturating_mul(1_000).saturating_add(unserved_ms);
                    let since = UnixMillis(now.0.saturating_sub(unused_ms));
                    Ok((since, lifecycles::dormant(tx, kind, since, &from, STEP).await?))
                }
                .boxed()
            });
            let (since, found) = read.await?;
            let Some(last) = found.last() else { break };
            after = last.row.id.to_string();
            for identity in found {
                let due = Due::Dormant { since };
                self.suspend(identity, due, "it was not used for too long").await;
            }
        }
        Ok(())
    }

    /// What cannot be suspended, the last administrator, is passed by; what fails holds up itself
    /// alone, until the next round.
    async fn suspend(&self, identity: Versioned<IdentityRow>, due: Due, reason: &'static str) {
        let name = identity.row.name;
        let op = SuspendIdentity { name: name.clone(), reason: reason.to_owned(), due: Some(due) };
        let suspended = match self.vault.context(Caller::System(Self::NAME), None) {
            Ok(ctx) => self.vault.run(&ctx, op).await.map(drop),
            Err(error) => Err(error),
        };
        match suspended {
            Ok(()) => tracing::warn!(identity = %name, reason, "an identity was suspended"),
            // Another node was first, it was changed or used meanwhile, or it is needed.
            Err(Error::Conflict(_) | Error::Precondition(_) | Error::Sealed) => {}
            Err(error) => tracing::warn!(identity = %name, %error, "an identity stays as it is"),
        }
    }
}

#[async_trait]
impl Worker for LifecycleKeeper {
    const NAME: &'static str = "lifecycle_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    /// A round that fails is not tried again before the next is due.
    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let Some(mut rounds) = *self.rounds.lock() else { return self.begin(now).await };
        let due = |at: UnixMillis, every: i64| now.0.saturating_sub(at.0) >= every;
        if due(rounds.over_at, OVER_EVERY_MS) {
            rounds.over_at = now;
            *self.rounds.lock() = Some(rounds);
            self.end_over(now).await?;
        }
        if due(rounds.dormant_at, DORMANT_EVERY_MS) {
            rounds.dormant_at = now;
            *self.rounds.lock() = Some(rounds);
            for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Bootstrap) {
                self.end_dormant(*kind, now, rounds.unserved_ms).await?;
            }
        }
        Ok(())
    }
}
