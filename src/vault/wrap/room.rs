//! How much an identity may have wrapped that waits to be opened.

use crate::error::{Error, Result};
use crate::store::{Tx, wraps};
use crate::types::{IdentityId, UnixMillis};

/// Wraps of one identity that wait to be opened, at most.
const PENDING: i64 = 1_000;

/// Whose wraps are counted, as of which revocation epoch, and how many bytes of them may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) of: (IdentityId, i64),
    pub(super) most_bytes: i64,
}

impl Room {
    /// Checks that another fits, of so many bytes as they are stored.
    ///
    /// # Errors
    /// [`Error::Exhausted`].
    pub(super) async fn check(self, tx: &mut Tx, bytes: usize, now: UnixMillis) -> Result<()> {
        let bytes = i64::try_from(bytes).map_err(Error::internal)?;
        let (count, waiting) = wraps::pending(tx, self.of, now, PENDING).await?;
        if count >= PENDING {
            let text = format!("{PENDING} wraps of yours wait to be opened: revoke some, or wait");
            return Err(Error::Exhausted(text.into()));
        }
        if waiting.saturating_add(bytes) > self.most_bytes {
            let most = self.most_bytes;
            return Err(Error::Exhausted(
                format!(
                    "wraps of yours that wait to be opened hold {waiting} bytes, and may hold {most}: \
                     revoke some, or wait"
                )
                .into(),
            ));
        }
        Ok(())
    }
}
