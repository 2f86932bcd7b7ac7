//! Ends what hangs below tokens that were revoked, where one commit was not enough.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::tokens::EndToken;
use crate::error::{Error, Result};
use crate::store::{Reader, credentials};
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
}

#[async_trait]
impl Worker for TokenReaper {
    const NAME: &'static str = "token_reaper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        for _ in 0..STEPS {
            let due = self.reader.view(move |tx| {
                async move { Ok(credentials::due(tx, CredentialKind::Token, now, STEP).await?) }
                    .boxed()
            });
            let due = due.await?;
            if due.is_empty() {
                break;
            }
            for token in due {
                let ctx = self.vault.context(Caller::System(Self::NAME), None, None)?;
                let end = EndToken { id: token.row.id, version: token.version };
                match self.vault.run(&ctx, end).await {
                    // Another node was first.
                    Ok(()) | Err(Error::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
