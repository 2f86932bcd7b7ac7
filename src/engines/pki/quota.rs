//! How many certificates one identity may have whose time is not over: each of them may come to stand
//! on the revocation list, and one holder must not fill it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::store::credentials;
use crate::store::identities::IdentityRow;
use crate::types::IdentityId;
use crate::vault::View;

/// Certificates that are issued before they are counted again.
const SPAN: u32 = 64;
/// Identities remembered.
const KEPT: usize = 10_000;

/// What identities may still be issued, as this node counted it.
#[derive(Debug, Clone)]
pub struct Quota {
    most: u32,
    rooms: Arc<Mutex<HashMap<IdentityId, Room>>>,
}

/// Room that was counted for an identity under a revocation epoch.
#[derive(Debug, Clone, Copy)]
struct Room {
    epoch: i64,
    left: u32,
}

impl Quota {
    /// Lets each identity have so many.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, rooms: Arc::default() }
    }

    /// Takes room for one certificate. Those that were revoked count, because they stand on the list;
    /// those of before a containment do not, because somebody else decided on what comes after it.
    ///
    /// # Errors
    /// [`Error::Exhausted`] where there is none.
    pub async fn take(&self, view: &View, holder: &IdentityRow) -> Result<()> {
        let (identity, epoch) = (holder.id, holder.revocation_epoch);
        if self.takes(identity, epoch) {
            return Ok(());
        }
        let (now, most) = (view.now(), self.most);
        let read = view.read(move |tx| {
            let whose = (identity, epoch);
            async move { Ok(credentials::unexpired_certificates(tx, whose, now, most).await?) }
                .boxed()
        });
        let room = most.saturating_sub(read.await?).min(SPAN);
        let Some(left) = room.checked_sub(1) else {
            return Err(Error::Exhausted(
                format!(
                    "the identity has {most} certificates whose time is not over, the most that \
                     it may have"
                )
                .into(),
            ));
        };
        let mut rooms = self.rooms.lock();
        if rooms.len() >= KEPT {
            rooms.clear();
        }
        rooms.insert(identity, Room { epoch, left });
        Ok(())
    }

    fn takes(&self, identity: IdentityId, epoch: i64) -> bool {
        let mut rooms = self.rooms.lock();
        let room = rooms.get_mut(&identity).filter(|room| room.epoch == epoch);
        let Some(room) = room else { return false };
        let left = room.left.checked_sub(1);
        room.left = left.unwrap_or_default();
        left.is_some()
    }
}
