//! Identity keys that are wrapped again for the newest root key: upkeep, like the log's, because no
//! sealed row changes and nothing is decided. That it began, and that it came to its end, are entries.
//!
//! Where a crash cuts it off, what is left is what is still wrapped for the old root key: there is no
//! other state to lose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;

use super::Vault;
use crate::error::Result;
use crate::keyring::MovedWrap;
use crate::store::keys::{self, HsmKeyRow, KeyState};

/// Wraps of one commit: what they cost the writer and the runtime's threads is about a millisecond, for
/// which others wait.
const PART: i64 = 64;

/// Wraps on their way to the store, and where the walk goes on.
#[derive(Debug)]
pub struct WrapStep {
    wraps: Vec<MovedWrap>,
    /// The key after which the next part begins; none where this is the last.
    pub next: Option<String>,
}

impl Vault {
    /// Wraps a part of what is wrapped for a root key again, for the newest. Before the first part it
    /// looks which that is: another node may have made it.
    ///
    /// # Errors
    /// What store and HSM answer.
    pub async fn wrap_again(&self, recipient: &str, after: String) -> Result<WrapStep> {
        let (wanted, first) = (recipient.to_owned(), after.is_empty());
        let read = self.core.reader.view(move |tx| {
            async move { Ok(keys::wraps_after(tx, &wanted, &after, PART).await?) }.boxed()
        });
        let part = read.await?;
        if part.wraps.is_empty() {
            return Ok(WrapStep { wraps: Vec::new(), next: part.next });
        }
        if first {
            self.core.keyring.refresh(&self.core.reader).await?;
        }
        let wraps = self.core.keyring.move_wraps(recipient, part.wraps).await?;
        Ok(WrapStep { wraps, next: part.next })
    }

    /// Stores what was wrapped again; false where the root key was rotated again since, and nothing is
    /// stored. A wrap that was moved or removed meanwhile stays as it is.
    ///
    /// # Errors
    /// What the store answers; nothing of the part is stored then.
    pub async fn store_wraps(&self, step: WrapStep) -> Result<bool> {
        let Some(to) = step.wraps.first().map(|moved| moved.is.recipient.clone()) else {
            return Ok(true);
        };
        let stored = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stored);
        let written = self.write(move |tx| {
            async move {
                // Rotated again since: what is wrapped for it now might be missed, and never open.
                let root = tx.lookup::<HsmKeyRow>(&to).await?;
                if root.is_none_or(|root| root.row.state != KeyState::Active) {
                    return Ok(());
                }
                for MovedWrap { was, is } in &step.wraps {
                    keys::replace_wrap(tx, was, is).await?;
                }
                told.store(true, Ordering::Release);
                Ok(())
            }
            .boxed()
        });
        written.await?;
        Ok(stored.load(Ordering::Acquire))
    }
}
