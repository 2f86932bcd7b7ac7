//! What operators measure: counts and ages, nothing about anybody.

use futures_util::FutureExt as _;

use super::Vault;
use crate::error::Result;
use crate::store::{Activity, credentials, lifecycles, notices, records};
use crate::types::{Kind, UnixMillis};

/// How far the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Entries that have their place.
    pub size: i64,
    /// Batches that wait for theirs.
    pub waiting: i64,
    /// When the newest checkpoint was signed; 0 before the first.
    pub signed_at: UnixMillis,
}

impl Vault {
    /// Counts what this process committed.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.core.reader.activity()
    }

    /// Tells how far the log is.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn log_state(&self) -> Result<LogState> {
        let read = self.core.reader.view(|tx| {
            async move { Ok((records::head(tx).await?, records::waiting(tx).await?)) }.boxed()
        });
        let (head, waiting) = read.await?;
        Ok(LogState { size: head.size, waiting, signed_at: UnixMillis(head.signed_at) })
    }

    /// Counts the identities that end within their notice, by kind.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn ending_counts(&self) -> Result<Vec<(Kind, i64)>> {
        let now = self.now()?;
        let read = self
            .core
            .reader
            .view(move |tx| async move { Ok(lifecycles::ending_counts(tx, now).await?) }.boxed());
        read.await
    }

    /// Counts of each sink the notices that wait for it, and those that were given up.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn notice_counts(&self) -> Result<Vec<(String, i64, i64)>> {
        let read =
            self.core.reader.view(|tx| async move { Ok(notices::counts(tx).await?) }.boxed());
        read.await
    }

    /// Counts credentials by kind and state.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn credential_counts(&self) -> Result<Vec<(String, String, i64)>> {
        let read = self
            .core
            .reader
            .yielding_view(|tx| async move { Ok(credentials::counts(tx).await?) }.boxed());
        read.await
    }
}
