//! The key in the HSM that has the place of a purpose: what new certificates are signed with.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::View;
use crate::error::{Error, Result};
use crate::store::keys::{self, HsmPurpose};

/// Purposes whose keys are kept: those that sign certificates, with room to spare.
pub(super) const PURPOSES: usize = 16;

impl View {
    /// Refuses to sign with a key in the HSM whose place another took, or under a certificate whose place
    /// another took, a moment ago and maybe by another node; and what it signs is signed anew where that
    /// happens before it is committed.
    ///
    /// # Errors
    /// [`Error::Conflict`]; what the store answers.
    pub async fn require_current(
        &self,
        purpose: HsmPurpose,
        label: &str,
        certificate: &[u8],
    ) -> Result<()> {
        let moment = self.moment();
        let incumbents = &self.core.incumbents;
        let current = if let Some(kept) = incumbents.find(&purpose, moment) {
            Some(kept)
        } else {
            let read = self
                .read(move |tx| async move { Ok(keys::current_of(tx, purpose).await?) }.boxed());
            let read = read.await?.map(Arc::new);
            if let Some(read) = &read {
                incumbents.keep(purpose, moment, read);
            }
            read
        };
        let current = current.filter(|current| {
            current.row.id == label && current.row.certificate.as_deref() == Some(certificate)
        });
        let current = current.ok_or_else(|| {
            Error::Conflict("the authority was rotated a moment ago; retry".into())
        })?;
        self.stands_on(moment.epoch, [current.fence()]);
        Ok(())
    }
}
