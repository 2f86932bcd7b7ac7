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
use crate::store::keys::{self, HsmKeyRow, KeyState, WrapPart};

impl Vault {
    /// Learns which root key is the newest: another node may have made it.
    ///
    /// # Errors
    /// What store and HSM answer.
    pub async fn learn_root(&self) -> Result<()> {
        Ok(self.core.keyring.refresh(&self.core.reader).await?)
    }

    /// Reads so many of what is wrapped for a root key at most, after one of the wraps.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn wraps_of(&self, recipient: &str, after: String, part: i64) -> Result<WrapPart> {
        let wanted = recipient.to_owned();
        let read = self.core.reader.view(move |tx| {
            async move { Ok(keys::wraps_after(tx, &wanted, &after, part).await?) }.boxed()
        });
        read.await
    }

    /// Wraps a part of what is wrapped for a root key again, for the newest.
    ///
    /// # Errors
    /// What the HSM answers.
    pub async fn wrap_again(&self, recipient: &str, part: WrapPart) -> Result<Vec<MovedWrap>> {
        if part.wraps.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.core.keyring.move_wraps(recipient, part.wraps).await?)
    }

    /// Stores what was wrapped again; false where the root key was rotated again since, and nothing is
    /// stored. A wrap that was moved or removed meanwhile stays as it is.
    ///
    /// # Errors
    /// What the store answers; nothing of the part is stored then.
    pub async fn store_wraps(&self, wraps: Vec<MovedWrap>) -> Result<bool> {
        let Some(to) = wraps.first().map(|moved| moved.is.recipient.clone()) else {
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
                for MovedWrap { was, is } in &wraps {
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
