//! Removes wrapped answers that nobody opened in time.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::wraps::PurgeWraps;
use crate::error::{Error, Result};
use crate::store::{Reader, wraps};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Steps of one round: what is left is due in the next.
const STEPS: usize = 16;

/// The worker.
#[derive(Debug)]
pub struct WrapKeeper {
    vault: Vault,
    reader: Reader,
}

impl WrapKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }
}

#[async_trait]
impl Worker for WrapKeeper {
    const NAME: &'static str = "wrap_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let over = PurgeWraps::over_since(now);
        for _ in 0..STEPS {
            let due = self
                .reader
                .view(move |tx| async move { Ok(wraps::is_due(tx, over).await?) }.boxed());
            if !due.await? {
                break;
            }
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            match self.vault.run(&ctx, PurgeWraps).await {
                Ok(_) => {}
                // Another node was first.
                Err(Error::Conflict(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
