//! What this node remembers of issuers and of whom they log in, so that a login reads the store once.
//!
//! It is kept under the authority epoch at which it was read: every change of an issuer, a rule, an
//! identity or its owner moves the epoch, and the commit of a login looks at the rows that it stands
//! on. A node hears of what others changed within a second; until then what is remembered only lets
//! in: whoever it would refuse is looked at anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::candidates::Stand;
use crate::store::Versioned;
use crate::store::issuers::IssuerRow;
use crate::types::{IdentityName, ObjectId};

/// Issuers, and identities, that are remembered.
const KEPT: usize = 10_000;

/// Issuers by URL, and identities by issuer.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) issuers: Kept<String, Vec<Versioned<IssuerRow>>>,
    pub(super) stands: Kept<(ObjectId, IdentityName), Stand>,
}

/// Things by name, each with the epoch at which it was read.
#[derive(Debug)]
pub(super) struct Kept<K, V>(Arc<Mutex<HashMap<K, (i64, Arc<V>)>>>);

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
    /// What was read at this epoch.
    pub(super) fn at(&self, epoch: i64, key: &K) -> Option<Arc<V>> {
        let kept = self.0.lock();
        kept.get(key).filter(|(at, _)| *at == epoch).map(|(_, found)| Arc::clone(found))
    }

    /// Remembers what was read after this epoch was seen: it may be newer than that, never older.
    pub(super) fn keep(&self, epoch: i64, key: K, found: V) -> Arc<V> {
        let found = Arc::new(found);
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, (epoch, Arc::clone(&found)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_at_another_epoch_is_not_remembered() {
        let kept = Kept::default();
        assert!(kept.at(7, &"a").is_none());
        assert_eq!(*kept.keep(7, "a", 1), 1);
        assert_eq!(kept.at(7, &"a").as_deref(), Some(&1));
        assert!(kept.at(8, &"a").is_none() && kept.at(7, &"b").is_none());
        kept.keep(8, "a", 2);
        assert_eq!(kept.clone().at(8, &"a").as_deref(), Some(&2));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let kept = Kept::default();
        for n in 0..=KEPT {
            kept.keep(1, n, ());
        }
        assert!(kept.at(1, &0).is_none() && kept.at(1, &KEPT).is_some());
    }
}
