//! Serial numbers, stored before anything is signed over them.
//!
//! They are drawn and stored a block at a time, so that the number of a certificate is in the store
//! before the HSM signs and the certificate itself still takes one commit, with its entry. An
//! intent for each (a row that says "pending") would cost a second commit and leave rows for a
//! worker to end, and what it tells nobody needs: a certificate whose commit did not come about
//! never leaves the process that signed it. What is left of a block when a node stops is not used
//! again.

use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::{Vault, View};
use crate::error::{Error, Result};
use crate::store::pki;
use crate::types::{Id, Serial, UnixMillis};

/// Serials stored by one statement: their row fits into one page.
const BLOCK: usize = 128;
/// Serials left at which the next block is stored beside those who still find some, so that nobody
/// waits for it while certificates are asked for at an even pace.
const LOW: usize = 64;

/// Serials of this node that are stored and not used.
#[derive(Debug, Default)]
pub(super) struct Serials {
    left: Mutex<Vec<Serial>>,
    /// Held by whoever stores a block.
    storing: Arc<tokio::sync::Mutex<()>>,
}

impl Serials {
    /// Takes one, and tells how many are left.
    fn take(&self) -> Option<(Serial, usize)> {
        let mut left = self.left.lock();
        left.pop().map(|serial| (serial, left.len()))
    }
}

impl View {
    /// Takes a serial that is in the store already. Whoever finds none left stores a block; others
    /// wait for it, and take from it what is left.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn serial(&self) -> Result<Serial> {
        let serials = &self.core.serials;
        if let Some((serial, left)) = serials.take() {
            if left <= LOW
                && let Ok(storing) = Arc::clone(&serials.storing).try_lock_owned()
            {
                let (vault, now) = (Vault { core: self.core.clone() }, self.now());
                drop(self.core.tasks.spawn(async move {
                    if let Err(error) = vault.store_serials(now).await {
                        tracing::debug!(%error, "serials could not be stored ahead of their use");
                    }
                    drop(storing);
                }));
            }
            return Ok(serial);
        }
        let _storing = serials.storing.lock().await;
        if let Some((serial, _)) = serials.take() {
            return Ok(serial);
        }
        Vault { core: self.core.clone() }.store_serials(self.now()).await?;
        let taken = serials.take().map(|(serial, _)| serial);
        taken.ok_or_else(|| Error::internal("a block of serials without one"))
    }
}

impl Vault {
    /// Draws a block and stores it. Called by whoever holds `storing`.
    async fn store_serials(&self, at: UnixMillis) -> Result<()> {
        let entropy = self.core.entropy.as_ref();
        let drawn: Vec<Serial> =
            (0..BLOCK).map(|_| Serial::random(entropy)).collect::<Result<_>>()?;
        let numbers: Vec<u8> = drawn.iter().flat_map(Serial::as_bytes).copied().collect();
        let id = Id::ordered(at, entropy)?;
        self.write(move |tx| {
            async move { Ok(pki::store_serials(tx, id, numbers, at).await?) }.boxed()
        })
        .await?;
        self.core.serials.left.lock().extend(drawn);
        Ok(())
    }
}
