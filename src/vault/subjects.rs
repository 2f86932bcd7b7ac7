//! Subjects kept between requests: those that ask often are loaded once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::held::Held;
use super::subject::{Kin, Subject};
use crate::types::{CredentialId, CredentialKind, Id, IdentityId, UnixMillis};

/// Subjects kept.
const KEPT: usize = 20_000;
/// Grants and memberships kept, of all subjects together.
pub(super) const WEIGHT: usize = 200_000;

/// What a subject is looked up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Handle([u8; 32]),
    Id(CredentialId),
    /// A token by its id, with what is stored of it: nothing is loaded for whoever made it up.
    Token(CredentialId, [u8; 32]),
}

/// Subjects kept: a stale one is slow, never wrong, because commits re-read what it stood on.
#[derive(Debug, Default)]
pub(super) struct Subjects(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Counts how often all of it was forgotten.
    emptied: u64,
    by_id: HashMap<CredentialId, Arc<Subject>>,
    by_handle: HashMap<[u8; 32], CredentialId>,
    by_identity: HashMap<IdentityId, Arc<Kin>>,
    holders: HashMap<Id, Arc<Held>>,
    weight: usize,
}

impl Subjects {
    pub(super) fn lookup(&self, wanted: &Wanted) -> Option<Arc<Subject>> {
        let kept = self.0.lock();
        let id = match wanted {
            Wanted::Handle(handle) => kept.by_handle.get(handle)?,
            Wanted::Id(id) | Wanted::Token(id, _) => id,
        };
        kept.by_id.get(id).cloned()
    }

    /// What an identity or group holds, if that is kept as of this version of its row.
    pub(super) fn held(&self, holder: Id, version: i64) -> Option<Arc<Held>> {
        let kept = self.0.lock();
        kept.holders.get(&holder).filter(|held| held.version == version).cloned()
    }

    /// What all credentials of an identity share, as of the same epoch and not long ago.
    pub(super) fn kin(
        &self,
        identity: IdentityId,
        epoch: i64,
        now: UnixMillis,
    ) -> Option<Arc<Kin>> {
        let kept = self.0.lock();
        let kin = kept.by_identity.get(&identity);
        kin.filter(|kin| kin.epoch == epoch && !kin.is_old(now)).cloned()
    }

    /// Forgets one subject.
    pub(super) fn forget(&self, id: CredentialId) {
        self.0.lock().by_id.remove(&id);
    }

    /// How often all of it was forgotten: asked before loading.
    pub(super) fn emptied(&self) -> u64 {
        self.0.lock().emptied
    }

    /// Keeps a subject, unless all was forgotten since its loading began. False when all was
    /// forgotten to make room.
    pub(super) fn keep(&self, subject: &Arc<Subject>, emptied: u64) -> bool {
        let mut kept = self.0.lock();
        if kept.emptied != emptied || subject.is_large() {
            return true;
        }
        let had_room = kept.admit(&subject.held);
        let id = subject.credential.row.id;
        kept.by_identity.insert(subject.identity.row.id, Arc::clone(subject.kin()));
        if subject.credential.row.kind == CredentialKind::Lease {
            // Its end moves with each renewal.
            return had_room;
        }
        kept.by_id.insert(id, Arc::clone(subject));
        if subject.credential.row.kind == CredentialKind::Login
            && let Some(handle) = subject.credential.row.handle.as_deref()
            && let Ok(handle) = handle.try_into()
        {
            kept.by_handle.insert(handle, id);
        }
        had_room
    }

    pub(super) fn clear(&self) {
        self.0.lock().empty();
    }
}

impl Kept {
    /// Makes room for what a subject holds and counts it, each holder's once. False when all was
    /// forgotten for it.
    fn admit(&mut self, held: &[Arc<Held>]) -> bool {
        let shared = |one: &&Arc<Held>| {
            !self.holders.get(&one.holder).is_some_and(|kept| Arc::ptr_eq(kept, one))
        };
        let grants = held.iter().filter(shared).map(|held| held.count).sum::<usize>();
        let added = grants.saturating_add(held.len());
        let has_room = self.by_id.len() < KEPT && self.weight.saturating_add(added) <= WEIGHT;
        if !has_room {
            self.empty();
        }
        self.weight = self.weight.saturating_add(if has_room { added } else { weight(held) });
        self.holders.extend(held.iter().map(|held| (held.holder, Arc::clone(held))));
        has_room
    }

    fn empty(&mut self) {
        self.by_id.clear();
        self.by_handle.clear();
        self.by_identity.clear();
        self.holders.clear();
        self.weight = 0;
        self.emptied = self.emptied.wrapping_add(1);
    }
}

/// What a subject weighs by itself: its grants, and its place in each holder.
pub(super) fn weight(held: &[Arc<Held>]) -> usize {
    held.iter().map(|held| held.count).sum::<usize>().saturating_add(held.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: u8, version: i64, count: usize) -> Arc<Held> {
        let holder = Id::from_bytes([holder; 16]);
        Arc::new(Held { holder, version, by_action: HashMap::new(), count })
    }

    #[test]
    fn what_a_group_holds_is_kept_once_however_many_are_in_it() {
        let subjects = Subjects::default();
        let group = held(1, 7, 1_000);
        for member in 2..=250 {
            let mut kept = subjects.0.lock();
            assert!(kept.admit(&[held(member, 1, 3), Arc::clone(&group)]));
        }
        assert_eq!(subjects.0.lock().weight, 1_000 + 249 * (3 + 2));
        let found = subjects.held(group.holder, 7).unwrap();
        assert!(Arc::ptr_eq(&found, &group));
        assert!(subjects.held(group.holder, 8).is_none(), "its grants may have changed");
    }

    #[test]
    fn all_is_forgotten_before_too_much_is_kept() {
        let mut kept = Kept::default();
        for holder in 0..3 {
            assert!(kept.admit(&[held(holder, 1, 60_000)]));
        }
        let before = kept.emptied;
        assert!(!kept.admit(&[held(3, 1, 60_000)]));
        assert_ne!(kept.emptied, before);
        assert_eq!((kept.weight, kept.holders.len()), (60_001, 1));
        // A holder whose grants changed is counted anew: who loaded the old ones may hold them.
        assert!(kept.admit(&[held(3, 2, 60_000)]));
        assert_eq!(kept.weight, 120_002);
    }
}
