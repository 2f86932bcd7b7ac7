//! Unwrapped identity keys: bounded, wiped when they leave, all gone at sealing.

use std::collections::HashMap;
use std::sync::Arc;

use super::identity::DataWrapKey;
use crate::store::keys::KeyOwner;
use crate::types::Id;

/// What a key is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Find {
    /// The key that new data of an owner goes under.
    Current(KeyOwner),
    /// A key by its id.
    Id(Id),
}

/// Two halves, the older of which is dropped when the younger is full.
///
/// A key by its id stays what it is. Which one is an owner's current is known as of the authority epoch
/// at which it was read: whoever rotates it moves the epoch.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Find, Held>,
    old: HashMap<Find, Held>,
    /// Counts forgettings, so that a key that was read before one is not remembered after it.
    forgotten: u64,
}

/// A key, and the epoch at which it was read.
type Held = (i64, Arc<DataWrapKey>);

impl Cache {
    /// Half of what is held at most.
    pub(super) const HALF: usize = 5_000;

    pub(super) const fn moment(&self) -> u64 {
        self.forgotten
    }

    /// Finds what holds at an epoch.
    pub(super) fn lookup(&mut self, find: Find, epoch: i64) -> Option<Arc<DataWrapKey>> {
        let holds = |(at, key): &Held| match find {
            Find::Id(_) => Some(Arc::clone(key)),
            Find::Current(_) => (*at == epoch).then(|| Arc::clone(key)),
        };
        if let Some(held) = self.young.get(&find) {
            return holds(held);
        }
        let held = self.old.remove(&find)?;
        let found = holds(&held);
        self.put(find, held);
        found
    }

    /// Remembers what was read at a moment and an epoch.
    pub(super) fn remember(
        &mut self,
        (moment, epoch): (u64, i64),
        find: Find,
        key: &Arc<DataWrapKey>,
    ) {
        if moment == self.forgotten {
            self.put(find, (epoch, Arc::clone(key)));
        }
    }

    fn put(&mut self, find: Find, held: Held) {
        if self.young.len() >= Self::HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(find, held);
    }

    /// Forgets the keys of an owner, or all.
    pub(super) fn forget(&mut self, owner: Option<KeyOwner>) {
        self.forgotten = self.forgotten.wrapping_add(1);
        for half in [&mut self.young, &mut self.old] {
            half.retain(|_, (_, key)| owner.is_some_and(|owner| key.row.row.owner != owner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Versioned;
    use crate::store::keys::{IdentityKeyRow, KeyState};
    use crate::types::{IdentityId, SecretBytes, UnixMillis};

    fn id(n: usize) -> Id {
        Id::from_bytes(u128::try_from(n).unwrap().to_be_bytes())
    }

    fn key(n: usize) -> Arc<DataWrapKey> {
        let row = IdentityKeyRow {
            id: id(n),
            owner: KeyOwner::Identity(IdentityId(id(n))),
            version: 1,
            state: KeyState::Active,
            created_at: UnixMillis(0),
        };
        let key = SecretBytes::new(vec![0; 32]);
        Arc::new(DataWrapKey { row: Versioned { row, version: 1 }, key })
    }

    #[test]
    fn the_cache_never_holds_more_than_two_halves_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let used = key(0);
        cache.remember((0, 0), Find::Id(id(0)), &used);
        for n in 1..=3 * Cache::HALF {
            cache.remember((0, 0), Find::Id(id(n)), &key(n));
            assert!(cache.lookup(Find::Id(id(0)), 1).is_some(), "{n}");
            assert!(cache.young.len() + cache.old.len() <= 2 * Cache::HALF);
        }
        assert!(cache.lookup(Find::Id(id(1)), 0).is_none());
    }

    #[test]
    fn a_forgotten_owner_is_gone_and_a_key_read_before_is_not_remembered() {
        let mut cache = Cache::default();
        let (a, b) = (key(1), key(2));
        for key in [&a, &b] {
            cache.remember((0, 4), Find::Id(key.row.row.id), key);
            cache.remember((0, 4), Find::Current(key.row.row.owner), key);
        }
        let current = Find::Current(a.row.row.owner);
        assert!(cache.lookup(current, 4).is_some());
        assert!(cache.lookup(current, 5).is_none(), "somebody may have rotated it");
        let moment = cache.moment();
        cache.forget(Some(a.row.row.owner));
        cache.remember((moment, 4), Find::Id(id(1)), &a);
        assert!(cache.lookup(Find::Id(id(1)), 4).is_none());
        assert!(cache.lookup(current, 4).is_none());
        assert!(cache.lookup(Find::Id(id(2)), 4).is_some());
        cache.forget(None);
        assert!(cache.lookup(Find::Id(id(2)), 4).is_none());
        assert_eq!((Arc::strong_count(&a), Arc::strong_count(&b)), (1, 1));
    }
}
