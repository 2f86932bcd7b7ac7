//! Serial numbers, stored before anything is signed over them.
//!
//! They are drawn and stored a block at a time, so that the number of a certificate is in the store
//! before the HSM signs and the certificate itself still takes one commit, with its entry. An
//! intent for each (a row that says "pending") would cost a second commit and leave rows for a
//! worker to end, and what it tells nobody needs: a certificate whose commit did not come about
//! never leaves the process that signed it. What is left of a block when a node stops is not used
//! again.

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::{Vault, View};
use crate::error::{Error, Result};
use crate::store::pki;
use crate::types::{Id, Serial};

/// Serials stored by one statement: their row fits into one page.
const BLOCK: usize = 128;

/// Serials of this node that are stored and not used.
#[derive(Debug, Default)]
pub(super) struct Serials {
    left: Mutex<Vec<Serial>>,
    /// Held by whoever stores a block.
    storing: tokio::sync::Mutex<()>,
}

impl Serials {
    fn take(&self) -> Option<Serial> {
        self.left.lock().pop()
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
        if let Some(serial) = serials.take() {
            return Ok(serial);
        }
        let _storing = serials.storing.lock().await;
        if let Some(serial) = serials.take() {
            return Ok(serial);
        }
        let drawn: Vec<Serial> =
            (0..BLOCK).map(|_| Serial::random(self.entropy())).collect::<Result<_>>()?;
        let numbers: Vec<u8> = drawn.iter().flat_map(Serial::as_bytes).copied().collect();
        let (id, at): (Id, _) = (self.new_id()?, self.now());
        Vault { core: self.core.clone() }
            .write(move |tx| {
                async move { Ok(pki::store_serials(tx, id, numbers, at).await?) }.boxed()
            })
            .await?;
        let mut left = serials.left.lock();
        left.extend(drawn);
        left.pop().ok_or_else(|| Error::internal("a block of serials without one"))
    }
}
