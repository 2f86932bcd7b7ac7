//! Ends certificates and logins that a crash left between their intent and their signature.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::pki::RecoverSigning;
use crate::error::{Error, Result};
use crate::store::{Reader, credentials};
use crate::types::{Caller, CredentialKind, UnixMillis};
use crate::vault::Vault;

/// Rows of one kind in one round: what is left is due in the next.
const STEP: i64 = 256;

/// The worker.
#[derive(Debug)]
pub struct CertificateReaper {
    vault: Vault,
    reader: Reader,
}

impl CertificateReaper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader }
    }
}

#[async_trait]
impl Worker for CertificateReaper {
    const NAME: &'static str = "certificate_reaper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        for kind in [CredentialKind::Certificate, CredentialKind::Login] {
            let due = self
                .reader
                .view(move |tx| {
                    async move { Ok(credentials::due(tx, kind, now, STEP).await?) }.boxed()
                })
                .await?;
            for pending in due {
                let ctx = self.vault.context(Caller::System(Self::NAME), None, None)?;
                match self.vault.run(&ctx, RecoverSigning { id: pending.row.id }).await {
                    // Another node was first, or the signature came after all.
                    Ok(()) | Err(Error::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
