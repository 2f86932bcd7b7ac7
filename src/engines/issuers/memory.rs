//! What this node remembers of issuers and of whom they log in, so that a login reads the store once.
//!
//! It is kept under the authority epoch at which it was read: every change of an issuer, a rule, an
//! identity or its owner moves the epoch, and the commit of a login looks at the rows that it stands
//! on. A node hears of what others changed within a second; until then what is remembered only lets
//! in: whoever it would refuse is looked at anew. Nor is it remembered for longer than that, whatever
//! the epoch says: the epoch is a plain row, and one that somebody set back must not keep a removed
//! rule, or a key that is believed no more, alive.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::candidates::Stand;
use crate::store::Versioned;
use crate::store::issuers::IssuerRow;
use crate::types::{IdentityName, ObjectId, UnixMillis};

/// Issuers, and identities, that are remembered.
const KEPT: usize = 10_000;
/// How long, in milliseconds.
const STANDS_MS: i64 = 1_000;

/// Issuers by URL, and identities by issuer.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) issuers: Kept<String, Vec<Versioned<IssuerRow>>>,
    pub(super) stands: Kept<(ObjectId, IdentityName), Stand>,
}

/// What was known when something was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The authority epoch that was seen before.
    pub(super) epoch: i64,
    /// The time.
    pub(super) now: UnixMillis,
}

impl Seen {
    /// Tells whether what was read then stands now: a clock that went back says nothing.
    fn stands(self, now: Self) -> bool {
        let since = now.now.0.saturating_sub(self.now.0);
        self.epoch == now.epoch && (-STANDS_MS..STANDS_MS).contains(&since)
    }
}

/// Things by name, each with when it was read.
#[derive(Debug)]
pub(super) struct Kept<K, V>(Arc<Mutex<Read<K, V>>>);

type Read<K, V> = HashMap<K, (Seen, Arc<V>)>;

impl<K, V> Clone for Kept<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash, V> Kept<K, V> {
    /// What was read at this epoch, a moment ago.
    pub(super) fn at(&self, now: Seen, key: &K) -> Option<Arc<V>> {
        let kept = self.0.lock();
        kept.get(key).filter(|(seen, _)| seen.stands(now)).map(|(_, found)| Arc::clone(found))
    }

    /// Remembers what was read after this was seen: it may be newer than that, never older.
    pub(super) fn keep(&self, seen: Seen, key: K, found: V) -> Arc<V> {
        let found = Arc::new(found);
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, (seen, Arc::clone(&found)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seen(epoch: i64, ms: i64) -> Seen {
        Seen { epoch, now: UnixMillis(ms) }
    }

    #[test]
    fn what_was_read_at_another_epoch_or_a_second_ago_is_not_remembered() {
        let kept = Kept::default();
        assert!(kept.at(seen(7, 0), &"a").is_none());
        assert_eq!(*kept.keep(seen(7, 5_000), "a", 1), 1);
        for (now, stands) in [
            (seen(7, 5_000), true),
            (seen(7, 5_999), true),
            (seen(7, 6_000), false),
            (seen(7, 4_500), true),
            (seen(7, 3_999), false),
            (seen(8, 5_000), false),
            (seen(6, 5_000), false),
        ] {
            assert_eq!(kept.at(now, &"a").is_some(), stands, "{now:?}");
        }
        assert!(kept.at(seen(7, 5_000), &"b").is_none());
        kept.keep(seen(8, 5_000), "a", 2);
        assert_eq!(kept.clone().at(seen(8, 5_000), &"a").as_deref(), Some(&2));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let kept = Kept::default();
        for n in 0..=KEPT {
            kept.keep(seen(1, 0), n, ());
        }
        assert!(kept.at(seen(1, 0), &0).is_none() && kept.at(seen(1, 0), &KEPT).is_some());
    }
}
