//! Destroys versions of secrets whose time for that has come: deleted ones when their window closes,
//! expired ones as long after their end.
//!
//! Each is claimed by a compare-and-set, so that nodes do not fight.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::secrets::PurgeVersion;
use crate::error::{Error, Result};
use crate::store::{Reader, secrets};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Versions of one round: what is left is due in the next.
const ROUND: i64 = 256;

/// The worker.
#[derive(Debug)]
pub struct SecretKeeper {
    vault: Vault,
    reader: Reader,
}

impl SecretKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }
}

#[async_trait]
impl Worker for SecretKeeper {
    const NAME: &'static str = "secret_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let due = self.reader.view(move |tx| {
            async move { Ok(secrets::versions_due(tx, now, ROUND).await?) }.boxed()
        });
        for found in due.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let (row_version, row) = (found.version, found.row);
            let (secret, version, id) = (row.secret, row.version, row.id);
            match self.vault.run(&ctx, PurgeVersion { secret, version, id, row_version }).await {
                Ok(()) | Err(Error::Conflict(_)) => {}
                Err(Error::Sealed) => return Ok(()),
                // It holds up itself alone.
                Err(error) => tracing::warn!(%secret, version, %error, "it is not destroyed"),
            }
        }
        Ok(())
    }
}
