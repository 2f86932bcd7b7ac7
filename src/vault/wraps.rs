//! Identity keys that are wrapped again for the newest root key: upkeep, like the log's, because no
//! sealed row changes and nothing is decided. That it began, and that it came to its end, are entries.
//!
//! Where a crash cuts it off, what is left is what is still wrapped for the old root key: there is no
//! other state to lose.

use futures_util::FutureExt as _;

use super::Vault;
use crate::error::Result;
use crate::keyring::MovedWrap;
use crate::store::keys::{self, HsmKeyRow, KeyState};

/// Wraps of one commit: a group of this size holds up the commits beside it for a millisecond or two.
const PART: i64 = 128;

/// Wraps on their way to the store, and where the walk goes on.
#[derive(Debug)]
pub struct WrapStep {
    wraps: Vec<MovedWrap>,
    /// The key after which the next part begins; none where this is the last.
    pub next: Option<String>,
}

impl WrapStep {
    /// Tells whether nothing of it is to be stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wraps.is_empty()
    }
}

impl Vault {
    /// Wraps a part of what is wrapped for a root key again, for the newest. Before the first part it
    /// looks which that is: another node may have made it.
    ///
    /// # Errors
    /// What store and HSM answer.
    pub async fn wrap_again(&self, recipient: &str, after: String) -> Result<WrapStep> {
        if after.is_empty() {
            self.core.keyring.refresh(&self.core.reader).await?;
        }
        let wanted = recipient.to_owned();
        let read = self.core.reader.view(move |tx| {
            async move { Ok(keys::wraps_after(tx, &wanted, &after, PART).await?) }.boxed()
        });
        let part = read.await?;
        let wraps = self.core.keyring.move_wraps(recipient, part.wraps).await?;
        Ok(WrapStep { wraps, next: part.next })
    }

    /// Stores what was wrapped again. A wrap that was moved or removed meanwhile stays as it is.
    ///
    /// # Errors
    /// What the store answers; nothing of the part is stored then.
    pub async fn store_wraps(&self, step: WrapStep) -> Result<()> {
        let Some(to) = step.wraps.first().map(|moved| moved.is.recipient.clone()) else {
            return Ok(());
        };
        self.write(move |tx| {
            async move {
                // Rotated again and retired since: what is wrapped for it would never open.
                let root = tx.lookup::<HsmKeyRow>(&to).await?;
                if root.is_none_or(|root| root.row.state == KeyState::Destroyed) {
                    return Ok(());
                }
                for MovedWrap { was, is } in &step.wraps {
                    keys::replace_wrap(tx, was, is).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }
}
