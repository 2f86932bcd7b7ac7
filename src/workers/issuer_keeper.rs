//! Ends sessions of rules and issuers that were removed, with what hangs on them, and forgets used
//! tokens that are over.
//!
//! Each is claimed by a compare-and-set, so that nodes do not fight.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::issuers::{EndSessions, Ending, PurgeUses};
use crate::error::{Error, Result};
use crate::store::{Reader, issuers};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Rules and issuers of one step, and steps of one round: what is left is due in the next.
const STEP: i64 = 64;
const STEPS: usize = 16;
/// How often it looks for used tokens that are over, in milliseconds.
const LOOKS_MS: u64 = 60_000;

/// The worker.
#[derive(Debug)]
pub struct IssuerKeeper {
    vault: Vault,
    reader: Reader,
    /// When it last found no used token that is over, Unix milliseconds.
    looked: AtomicI64,
}

impl IssuerKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader, looked: AtomicI64::new(0) }
    }

    async fn due(&self, now: UnixMillis) -> Result<Vec<EndSessions>> {
        let read = self.reader.view(move |tx| {
            async move {
                let rules = issuers::rules_due(tx, now, STEP).await?;
                let found = issuers::due(tx, now, STEP).await?;
                let rules = rules.into_iter().map(|rule| EndSessions {
                    of: Ending::OfRule(rule.row.id),
                    version: rule.version,
                });
                let found = found.into_iter().map(|issuer| EndSessions {
                    of: Ending::OfIssuer(issuer.row.id),
                    version: issuer.version,
                });
                Ok(rules.chain(found).collect())
            }
            .boxed()
        });
        read.await
    }

    /// Forgets used tokens that are over by now, and then none for a minute: where tokens are used all
    /// the time, one is over all the time.
    async fn purge(&self, now: UnixMillis) -> Result<()> {
        // A clock that went back is no reason to wait.
        if self.looked.load(Ordering::Relaxed).abs_diff(now.0) < LOOKS_MS {
            return Ok(());
        }
        // What is left after these is gone on with in the next round.
        for _ in 0..STEPS {
            let over = self
                .reader
                .view(move |tx| async move { Ok(issuers::has_over(tx, now).await?) }.boxed());
            if !over.await? {
                self.looked.store(now.0, Ordering::Relaxed);
                break;
            }
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            self.vault.run(&ctx, PurgeUses).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for IssuerKeeper {
    const NAME: &'static str = "issuer_keeper";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        for _ in 0..STEPS {
            let due = self.due(now).await?;
            if due.is_empty() {
                break;
            }
            for one in due {
                let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
                match self.vault.run(&ctx, one).await {
                    Ok(()) | Err(Error::Conflict(_)) => {}
                    Err(Error::Sealed) => return Ok(()),
                    // It holds up itself alone.
                    Err(error) => {
                        tracing::warn!(of = ?one.of, %error, "its sessions are not ended");
                    }
                }
            }
        }
        self.purge(now).await
    }
}
