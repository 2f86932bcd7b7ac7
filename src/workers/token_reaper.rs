//! Ends what hangs below tokens and enrolments that were revoked, where one commit was not enough.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::tokens::EndToken;
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::{Reader, Versioned};
use crate::types::{Caller, CredentialKind, UnixMillis};
use crate::vault::Vault;

/// Tokens of one step, and steps of one round: what is left is due in the next.
const STEP: i64 = 64;
const STEPS: usize = 16;

/// The worker.
#[derive(Debug)]
pub struct TokenReaper {
    vault: Vault,
    reader: Reader,
}

impl TokenReaper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }

    /// Finds what is due: tokens and enrolments, and logins that hung on one.
    async fn due(&self, now: UnixMillis) -> Result<Vec<Versioned<CredentialRow>>> {
        let read = self.reader.view(move |tx| {
            async move {
                let mut due = credentials::due(tx, CredentialKind::Token, now, STEP).await?;
                due.extend(credentials::due(tx, CredentialKind::Login, now, STEP).await?);
                due.extend(credentials::due(tx, CredentialKind::Enrolment, now, STEP).await?);
                Ok(due)
            }
            .boxed()
        });
        read.await
    }

    /// Ends a part of what is below one, unless another node was first.
    async fn end_one(&self, token: &Versioned<CredentialRow>) -> Result<()> {
        let (id, version) = (token.row.id, token.version);
        let read = self
            .reader
            .view(move |tx| async move { Ok(tx.lookup::<CredentialRow>(&id).await?) }.boxed());
        if read.await?.is_none_or(|now| now.version != version) {
            return Ok(());
        }
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        match self.vault.run(&ctx, EndToken { id, version }).await {
            Ok(()) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Worker for TokenReaper {
    const NAME: &'static str = "token_reaper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, _: UnixMillis) -> Result<()> {
        for _ in 0..STEPS {
            // Whoever has more below it than one step ends is due again, after the others.
            let due = self.due(self.vault.now()?).await?;
            let mut ended = false;
            for token in due {
                match self.end_one(&token).await {
                    Ok(()) => ended = true,
                    Err(Error::Sealed) => return Ok(()),
                    // It holds up itself alone.
                    Err(error) => {
                        tracing::warn!(token = %token.row.id, %error, "what is below does not end");
                    }
                }
            }
            if !ended {
                break;
            }
        }
        Ok(())
    }
}
