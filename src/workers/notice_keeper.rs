//! Keeps notices by the clock: tells of reviews that are overdue, and deletes what is too old to be
//! sent.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::notices::{PurgeNotices, TellOverdue};
use crate::error::{Error, Result};
use crate::store::{Reader, elevations};
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Reviews that are read at once.
const REVIEWS: i64 = 64;
/// Deletions of one round: what is left is due in the next.
const PURGES: usize = 16;

/// The worker.
#[derive(Debug)]
pub struct NoticeKeeper {
    vault: Vault,
    reader: Reader,
}

impl NoticeKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }

    async fn tell_overdue(&self, now: UnixMillis) -> Result<()> {
        let mut after = (UnixMillis(i64::MIN), String::new());
        loop {
            let from = after.clone();
            let read = self.reader.view(move |tx| {
                async move { Ok(elevations::overdue(tx, now, &from, REVIEWS).await?) }.boxed()
            });
            let part = read.await?;
            for it in part.rows.iter().filter(|it| it.row.review_told_at.is_none()) {
                let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
                let id = it.row.id;
                match self.vault.run(&ctx, TellOverdue { id }).await {
                    // Another node was first, or somebody reviewed it.
                    Ok(()) | Err(Error::Conflict(_)) => {}
                    Err(Error::Sealed) => return Ok(()),
                    // It holds up itself alone.
                    Err(error) => tracing::warn!(elevation = %id, %error, "nobody is told"),
                }
            }
            match part.last {
                Some(last) if part.more => after = last,
                Some(_) | None => return Ok(()),
            }
        }
    }

    async fn purge(&self, now: UnixMillis) -> Result<()> {
        for _ in 0..PURGES {
            let read =
                self.reader.view(move |tx| async move { PurgeNotices::due(tx, now).await }.boxed());
            let Some(upto) = read.await? else { break };
            let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
            match self.vault.run(&ctx, PurgeNotices { upto }).await {
                Ok(()) | Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for NoticeKeeper {
    const NAME: &'static str = "notice_keeper";
    const PERIOD: Duration = Duration::from_secs(10);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        self.tell_overdue(now).await?;
        self.purge(now).await
    }
}
