//! Keeps ceremonies by the clock: those that waited too long expire, and whom that concerns is told.
//!
//! Each is claimed by a compare-and-set, so that nodes do not fight.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::ceremonies::ExpireCeremony;
use crate::error::{Error, Result};
use crate::store::{Reader, ceremonies};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Ceremonies of one round: what is left is due in the next.
const ROUND: i64 = 64;

/// The worker.
#[derive(Debug)]
pub struct CeremonyKeeper {
    vault: Vault,
    reader: Reader,
}

impl CeremonyKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }
}

#[async_trait]
impl Worker for CeremonyKeeper {
    const NAME: &'static str = "ceremony_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let due = self
            .reader
            .view(move |tx| async move { Ok(ceremonies::due(tx, now, ROUND).await?) }.boxed());
        for found in due.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let (id, version) = (found.row.id, found.version);
            match self.vault.run(&ctx, ExpireCeremony { id, version }).await {
                Ok(()) | Err(Error::Conflict(_)) => {}
                Err(Error::Sealed) => return Ok(()),
                // It holds up itself alone.
                Err(error) => tracing::warn!(ceremony = %id, %error, "it does not expire"),
            }
        }
        Ok(())
    }
}
