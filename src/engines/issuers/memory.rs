//! What this node remembers of issuers and of whom they log in, so that a login reads the store once.
//!
//! It is kept under the authority epoch at which it was read: every change of an issuer, a rule, an
//! identity or its owner moves the epoch, and the commit of a login looks at the rows that it stands
//! on. A node hears of what others changed within a second; until then what is remembered only lets
//! in: whoever it would refuse is looked at anew. Nor is it remembered for longer than that, whatever
//! the epoch says: the epoch is a plain row, and one that somebody set back must not keep a removed
//! rule, or a key that is believed no more, alive.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::candidates::Stand;
use super::definition::IssuerDefinition;
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
    pub(super) issuers: Kept<String, Vec<KnownIssuer>>,
    pub(super) stands: Kept<(ObjectId, IdentityName), Stand>,
    pub(super) used: UsedLately,
}

/// What this node knows to be used up, two halves of it: the older is dropped when the younger is full.
///
/// Whether a token was used before is true in the commit of its login alone, where nobody can be in
/// between. To look before that as well spares the record an entry for each time that a used one is
/// shown again; what is not in here is therefore not looked for, and costs no read.
#[derive(Debug, Clone, Default)]
pub(super) struct UsedLately(Arc<Mutex<[HashSet<String>; 2]>>);

impl UsedLately {
    pub(super) fn add(&self, once: &str) {
        let [young, old] = &mut *self.0.lock();
        if young.len() >= KEPT {
            *old = std::mem::take(young);
        }
        young.insert(once.to_owned());
    }

    pub(super) fn has(&self, once: &str) -> bool {
        self.0.lock().iter().any(|half| half.contains(once))
    }
}

/// An issuer, and what its row says.
pub(super) type KnownIssuer = (Versioned<IssuerRow>, Arc<IssuerDefinition>);

/// What was known when something was read: the authority epoch that was seen before, and the time.
#[derive(Debug, Clone, Copy)]
struct Seen {
    epoch: i64,
    now: UnixMillis,
}

impl Seen {
    /// Tells whether what was read then stands now: a clock that went back says nothing.
    fn stands(self, now: Self) -> bool {
        let since = now.now.0.saturating_sub(self.now.0);
        self.epoch == now.epoch && (-STANDS_MS..STANDS_MS).contains(&since)
    }
}

/// One look at a token: when it began, and what of it rests on what is remembered.
#[derive(Debug)]
pub(super) struct Look {
    seen: Seen,
    /// Whether what is remembered is let be.
    anew: bool,
    rests: AtomicBool,
}

impl Look {
    /// Begins one: with the authority epoch that was seen before anything is read.
    pub(super) const fn begin(epoch: i64, now: UnixMillis) -> Self {
        Self { seen: Seen { epoch, now }, anew: false, rests: AtomicBool::new(false) }
    }

    /// Begins one that reads everything anew.
    pub(super) const fn anew(epoch: i64, now: UnixMillis) -> Self {
        Self { anew: true, ..Self::begin(epoch, now) }
    }

    /// The authority epoch that was seen before.
    pub(super) const fn epoch(&self) -> i64 {
        self.seen.epoch
    }

    /// The time.
    pub(super) const fn now(&self) -> UnixMillis {
        self.seen.now
    }

    /// Tells whether anything that was remembered was taken: where nothing was, another look sees
    /// the same.
    pub(super) fn rests_on_memory(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
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
    pub(super) fn at(&self, look: &Look, key: &K) -> Option<Arc<V>> {
        if look.anew {
            return None;
        }
        let kept = self.0.lock();
        let (_, found) = kept.get(key).filter(|(seen, _)| seen.stands(look.seen))?;
        look.rests.store(true, Ordering::Relaxed);
        Some(Arc::clone(found))
    }

    /// Remembers what was read since a look began: it may be newer than that, never older.
    pub(super) fn keep(&self, look: &Look, key: K, found: V) -> Arc<V> {
        let found = Arc::new(found);
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, (look.seen, Arc::clone(&found)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn look(epoch: i64, ms: i64) -> Look {
        Look::begin(epoch, UnixMillis(ms))
    }

    #[test]
    fn what_was_read_at_another_epoch_or_a_second_ago_is_not_remembered() {
        let kept = Kept::default();
        assert!(kept.at(&look(7, 0), &"a").is_none());
        assert_eq!(*kept.keep(&look(7, 5_000), "a", 1), 1);
        for (now, stands) in [
            (look(7, 5_000), true),
            (look(7, 5_999), true),
            (look(7, 6_000), false),
            (look(7, 4_500), true),
            (look(7, 3_999), false),
            (look(8, 5_000), false),
            (look(6, 5_000), false),
        ] {
            assert_eq!(kept.at(&now, &"a").is_some(), stands, "{now:?}");
            assert_eq!(now.rests_on_memory(), stands, "{now:?}");
        }
        assert!(kept.at(&look(7, 5_000), &"b").is_none());
        kept.keep(&look(8, 5_000), "a", 2);
        assert_eq!(kept.clone().at(&look(8, 5_000), &"a").as_deref(), Some(&2));
    }

    #[test]
    fn a_look_that_reads_anew_takes_nothing_that_is_remembered_and_is_itself() {
        let kept = Kept::default();
        kept.keep(&look(7, 0), "a", 1);
        let anew = Look::anew(7, UnixMillis(0));
        assert!(kept.at(&anew, &"a").is_none() && !anew.rests_on_memory());
        kept.keep(&anew, "a", 2);
        assert_eq!(kept.at(&look(7, 0), &"a").as_deref(), Some(&2));
    }

    #[test]
    fn the_newest_that_was_used_is_known() {
        let used = UsedLately::default();
        assert!(!used.has("0"));
        for n in 0..KEPT {
            used.add(&n.to_string());
        }
        assert!(used.has("0") && !used.has("x"));
        for n in KEPT..3 * KEPT {
            used.add(&n.to_string());
        }
        assert!(!used.has("0") && used.has(&(2 * KEPT).to_string()));
        assert!(used.0.lock().iter().all(|half| half.len() <= KEPT));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (kept, now) = (Kept::default(), look(1, 0));
        for n in 0..=KEPT {
            kept.keep(&now, n, ());
        }
        assert!(kept.at(&now, &0).is_none() && kept.at(&now, &KEPT).is_some());
    }
}
