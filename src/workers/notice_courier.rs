//! Delivers notices to one sink, in order: each node has one for each sink, and a compare-and-set on
//! the sink's row says whose turn it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::notices::{BeginSink, DeliverNotice, Sink};
use crate::error::{Error, Result};
use crate::store::Reader;
use crate::types::{Caller, UnixMillis};
use crate::vault::Vault;

/// Notices of one round: what is left is due in the next.
const MOST: usize = 64;

/// The worker.
#[derive(Debug)]
pub struct NoticeCourier {
    vault: Vault,
    reader: Reader,
    sink: Arc<Sink>,
    /// Whether the sink's row was there.
    begun: AtomicBool,
}

impl NoticeCourier {
    /// Makes the worker of a sink.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader, sink: Sink) -> Self {
        Self { vault, reader, sink: Arc::new(sink), begun: AtomicBool::new(false) }
    }

    /// Delivers one; tells whether there may be more.
    async fn deliver(&self) -> Result<bool> {
        let (sink, now) = (self.sink.name.clone(), self.vault.now()?);
        let read = self
            .reader
            .view(move |tx| async move { DeliverNotice::due(tx, &sink, now).await }.boxed());
        let due = match read.await {
            Err(Error::NotFound(_)) => return self.begin().await,
            due => due?,
        };
        self.begun.store(true, Ordering::Relaxed);
        let Some((version, number)) = due else { return Ok(false) };
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        let op = DeliverNotice { sink: Arc::clone(&self.sink), version, number };
        match self.vault.run_effect(&ctx, op).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn begin(&self) -> Result<bool> {
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        let (sink, again) = (self.sink.name.clone(), self.begun.load(Ordering::Relaxed));
        match self.vault.run(&ctx, BeginSink { sink, again }).await {
            // Another node was first.
            Ok(()) | Err(Error::AlreadyExists(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Worker for NoticeCourier {
    const NAME: &'static str = "notice_courier";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn tick(&self, _: UnixMillis) -> Result<()> {
        for _ in 0..MOST {
            match self.deliver().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(Error::Unavailable(why)) => {
                    tracing::warn!(sink = %self.sink.name, %why, "a notice is tried again");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
