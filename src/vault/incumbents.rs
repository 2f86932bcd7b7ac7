//! The key in the HSM that has the place of a purpose: what new certificates are signed with.

use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::View;
use crate::error::{Error, Result};
use crate::store::Versioned;
use crate::store::keys::{self, HsmKeyRow, HsmPurpose};

/// What was read of those keys, each kept only under the authority epoch at which it was read: whoever
/// takes the place of one moves the epoch, and a commit that finds it moved looks at the row.
#[derive(Debug, Default)]
pub(super) struct Incumbents(Mutex<Vec<Kept>>);

/// A key, with the epoch at which it was read.
type Kept = (i64, Arc<Versioned<HsmKeyRow>>);

impl Incumbents {
    fn kept(&self, purpose: HsmPurpose, epoch: i64) -> Option<Arc<Versioned<HsmKeyRow>>> {
        let kept = self.0.lock();
        let found = kept.iter().find(|(at, key)| (*at, key.row.purpose) == (epoch, purpose));
        found.map(|(_, key)| Arc::clone(key))
    }

    fn keep(&self, epoch: i64, key: &Arc<Versioned<HsmKeyRow>>) {
        let mut kept = self.0.lock();
        kept.retain(|(_, other)| other.row.purpose != key.row.purpose);
        kept.push((epoch, Arc::clone(key)));
    }
}

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
        // Before the row is read: what is kept may be newer than its epoch, never older.
        let as_of = self.reader().epoch_seen();
        let incumbents = &self.core.incumbents;
        let current = if let Some(kept) = incumbents.kept(purpose, as_of) {
            Some(kept)
        } else {
            let read = self
                .read(move |tx| async move { Ok(keys::current_of(tx, purpose).await?) }.boxed());
            let read = read.await?.map(Arc::new);
            if let Some(read) = &read {
                incumbents.keep(as_of, read);
            }
            read
        };
        let current = current.filter(|current| {
            current.row.id == label && current.row.certificate.as_deref() == Some(certificate)
        });
        let current = current.ok_or_else(|| {
            Error::Conflict("the authority was rotated a moment ago; retry".into())
        })?;
        self.stands_on(as_of, [current.fence()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys::KeyState;
    use crate::types::UnixMillis;

    fn key(purpose: HsmPurpose, version: i64) -> Arc<Versioned<HsmKeyRow>> {
        Arc::new(Versioned::first(HsmKeyRow {
            id: format!("{purpose:?} {version}"),
            purpose,
            version,
            state: KeyState::Active,
            pinned: vec![],
            certificate: None,
            link: None,
            created_at: UnixMillis(1),
        }))
    }

    #[test]
    fn a_key_is_kept_for_its_purpose_under_its_epoch_alone() {
        let all = Incumbents::default();
        let (issuing, login) = (key(HsmPurpose::CaIssuing, 1), key(HsmPurpose::CaLogin, 1));
        all.keep(7, &issuing);
        all.keep(8, &login);
        assert_eq!(all.kept(HsmPurpose::CaIssuing, 7), Some(issuing));
        assert_eq!(all.kept(HsmPurpose::CaIssuing, 8), None, "it may have moved");
        assert_eq!(all.kept(HsmPurpose::CaLogin, 8), Some(login));
        let next = key(HsmPurpose::CaIssuing, 2);
        all.keep(9, &next);
        assert_eq!(all.kept(HsmPurpose::CaIssuing, 7), None, "another has its place");
        assert_eq!(all.kept(HsmPurpose::CaIssuing, 9), Some(next));
    }
}
