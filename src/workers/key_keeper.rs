//! Rotates named keys whose time has come or that have encrypted enough, and ends what was left of
//! making one in the HSM.
//!
//! Each is claimed by a compare-and-set, so that nodes do not fight.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::keys::{ROTATE_AT, RotateKey, SettleVersion};
use crate::error::{Error, Result};
use crate::store::{Reader, named_keys};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Keys of one round: what is left is due in the next.
const ROUND: i64 = 64;
/// How long making a key in the HSM may take, in milliseconds: far beyond any call's deadline.
const MAKING_MS: i64 = 300_000;

/// The worker.
#[derive(Debug)]
pub struct KeyKeeper {
    vault: Vault,
    reader: Reader,
}

impl KeyKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }

    async fn rotate(&self, now: UnixMillis) -> Result<()> {
        let due = self.reader.view(move |tx| {
            async move {
                let mut due = named_keys::keys_due(tx, now, ROUND).await?;
                due.extend(named_keys::keys_spent(tx, ROTATE_AT, ROUND).await?);
                Ok(due)
            }
            .boxed()
        });
        for found in due.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let (name, expected) = (found.row.name, found.row.newest);
            let op = RotateKey { name: name.clone(), expected };
            match self.vault.run_effect(&ctx, op).await {
                Ok(_) | Err(Error::Conflict(_)) => {}
                Err(Error::Sealed) => return Ok(()),
                // It holds up itself alone.
                Err(error) => tracing::warn!(%name, %error, "a key is not rotated"),
            }
        }
        Ok(())
    }

    async fn settle(&self, now: UnixMillis) -> Result<()> {
        let before = UnixMillis(now.0.saturating_sub(MAKING_MS));
        let pending = self.reader.view(move |tx| {
            async move { Ok(named_keys::versions_pending(tx, before, ROUND).await?) }.boxed()
        });
        for found in pending.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let (key, id) = (found.row.named_key, found.row.id);
            match self.vault.run_effect(&ctx, SettleVersion { key, id }).await {
                Ok(()) | Err(Error::Conflict(_)) => {}
                Err(Error::Sealed) => return Ok(()),
                Err(error) => tracing::warn!(%key, %error, "a version stays pending"),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for KeyKeeper {
    const NAME: &'static str = "key_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        self.rotate(now).await?;
        self.settle(now).await
    }
}
