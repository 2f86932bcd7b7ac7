//! Keeps elevations by the clock: those that nobody approved or activated expire, those in force
//! end, and what was made under one that is over ends with it.
//!
//! Each is claimed by a compare-and-set, so that nodes do not fight.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::elevations::{ApplyRole, KeepElevation};
use crate::error::{Error, Result};
use crate::store::elevations::{self, ElevationRow};
use crate::store::{Reader, Versioned};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Elevations of one step, and steps of one round: what is left is due in the next.
const STEP: i64 = 64;
const STEPS: usize = 16;

/// The worker.
#[derive(Debug)]
pub struct ElevationKeeper {
    vault: Vault,
    reader: Reader,
}

impl ElevationKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }

    async fn due(&self, now: UnixMillis) -> Result<Vec<Versioned<ElevationRow>>> {
        let read = self.reader.view(move |tx| {
            async move {
                let mut due = elevations::due(tx, now, STEP).await?;
                let contained = elevations::without_right(tx, now, STEP).await?;
                let known = |id| due.iter().any(|one: &Versioned<ElevationRow>| one.row.id == id);
                let others: Vec<_> =
                    contained.into_iter().filter(|one| !known(one.row.id)).collect();
                due.extend(others);
                Ok(due)
            }
            .boxed()
        });
        read.await
    }

    /// Lets confirmed changes of roles take effect.
    async fn apply_roles(&self) -> Result<()> {
        let now = self.vault.now()?;
        let read = self
            .reader
            .view(move |tx| async move { Ok(elevations::roles_due(tx, now, STEP).await?) }.boxed());
        for role in read.await? {
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            let op = ApplyRole { id: role.row.id, version: role.version };
            match self.vault.run(&ctx, op).await {
                Ok(Ok(())) | Err(Error::Conflict(_)) => {}
                Err(Error::Sealed) => return Ok(()),
                Ok(Err(why)) => {
                    tracing::warn!(role = %role.row.name, %why, "its change was dropped");
                }
                Err(error) => tracing::warn!(role = %role.row.name, %error, "it stays as it is"),
            }
        }
        Ok(())
    }

    /// Does what one is due for, unless another node was first.
    async fn keep(&self, found: &Versioned<ElevationRow>) -> Result<()> {
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        let (id, version, state) = (found.row.id, found.version, found.row.state);
        match self.vault.run(&ctx, KeepElevation { id, version, state }).await {
            Ok(_) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Worker for ElevationKeeper {
    const NAME: &'static str = "elevation_keeper";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn tick(&self, _: UnixMillis) -> Result<()> {
        self.apply_roles().await?;
        for _ in 0..STEPS {
            let due = self.due(self.vault.now()?).await?;
            let mut kept = false;
            for elevation in due {
                match self.keep(&elevation).await {
                    Ok(()) => kept = true,
                    Err(Error::Sealed) => return Ok(()),
                    // It holds up itself alone.
                    Err(error) => {
                        tracing::warn!(elevation = %elevation.row.id, %error, "it is not kept");
                    }
                }
            }
            if !kept {
                break;
            }
        }
        Ok(())
    }
}
