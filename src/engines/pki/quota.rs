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

/// Certificates that are issued at least before they are counted again.
const SPAN: u32 = 64;
/// The part of an identity's room that is issued before they are counted again: who is far from the
/// limit is hardly ever counted, although each count reads a row for each certificate.
const PART: u32 = 8;
/// Identities remembered.
const KEPT: usize = 10_000;

/// What identities may still be issued, as this node counted it.
#[derive(Debug, Clone)]
pub struct Quota {
    most: u32,
    rooms: Arc<Mutex<HashMap<IdentityId, Arc<tokio::sync::Mutex<Room>>>>>,
}

/// Room that was counted for an identity under a revocation epoch. Held while it is counted: others
/// of the same identity wait, and take from what was found.
#[derive(Debug, Default)]
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
        let room = self.room(holder.id);
        let mut room = room.lock().await;
        if room.epoch != holder.revocation_epoch || room.left == 0 {
            let (whose, now, most) = ((holder.id, holder.revocation_epoch), view.now(), self.most);
            let read = view.read(move |tx| {
                async move { Ok(credentials::unexpired_certificates(tx, whose, now, most).await?) }
                    .boxed()
            });
            let left = most.saturating_sub(read.await?);
            let left = left.min(SPAN.max(left / PART));
            *room = Room { epoch: holder.revocation_epoch, left };
        }
        let most = self.most;
        room.left = room.left.checked_sub(1).ok_or_else(|| {
            Error::Exhausted(
                format!(
                    "the identity has {most} certificates whose time is not over, the most that \
                     it may have"
                )
                .into(),
            )
        })?;
        Ok(())
    }

    fn room(&self, identity: IdentityId) -> Arc<tokio::sync::Mutex<Room>> {
        let mut rooms = self.rooms.lock();
        if rooms.len() >= KEPT {
            rooms.clear();
        }
        Arc::clone(rooms.entry(identity).or_default())
    }
}
