//! Rows that are kept in memory between requests, on whose way they would be read each time.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::View;

/// How long what was read stands whatever the epoch says.
const STANDS: Duration = Duration::from_secs(1);

/// When something was read: at which authority epoch, and at which time of this machine, which no row
/// of the store moves.
///
/// Taken before the row is read: what is kept may be newer than its epoch, never older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub(super) epoch: i64,
    at: Instant,
}

impl Moment {
    /// Tells whether what was read then stands now: every change of what is kept moves the epoch. At
    /// least once a second it is read anew all the same, because the epoch is a plain row: one that
    /// somebody sets back must not keep alive what was changed since.
    fn stands(self, now: Self) -> bool {
        self.epoch == now.epoch && now.at.saturating_duration_since(self.at) < STANDS
    }
}

impl View {
    /// What anything that is read from here on is kept under.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { epoch: self.reader().epoch_seen(), at: self.core.clock.monotonic() }
    }
}

/// What was read a moment ago, by name. A commit that finds the epoch moved looks at the rows that what
/// is kept stands on.
#[derive(Debug)]
pub struct Recent<K, V> {
    kept: Mutex<HashMap<K, (Moment, Arc<V>)>>,
    most: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// Keeps so many at the most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// Finds what stands.
    #[must_use]
    pub fn find<Q: Hash + Eq + ?Sized>(&self, name: &Q, now: Moment) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let kept = self.kept.lock();
        let found = kept.get(name).filter(|(then, _)| then.stands(now));
        found.map(|(_, value)| Arc::clone(value))
    }

    /// Keeps what was read.
    pub fn keep(&self, name: K, read: Moment, value: &Arc<V>) {
        let mut kept = self.kept.lock();
        if kept.len() >= self.most && !kept.contains_key(&name) {
            kept.clear();
        }
        kept.insert(name, (read, Arc::clone(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stands_at_its_epoch_and_for_a_second_alone() {
        let (recent, began) = (Recent::new(2), Instant::now());
        let moment = |epoch, ms| Moment { epoch, at: began + Duration::from_millis(ms) };
        recent.keep("issuing", moment(7, 500), &Arc::new(1));
        let found = |now| recent.find("issuing", now).map(|found| *found);
        assert_eq!(found(moment(7, 500)), Some(1));
        assert_eq!(found(moment(7, 1_499)), Some(1));
        assert_eq!(found(moment(7, 1_500)), None, "whatever the epoch says");
        assert_eq!(found(moment(7, 0)), Some(1), "for whoever looked a moment before");
        assert_eq!(found(moment(8, 500)), None, "it may have moved");
        assert_eq!(found(moment(6, 500)), None, "which no request sees");
        assert_eq!(recent.find("login", moment(7, 500)), None);
    }

    #[test]
    fn no_more_is_kept_than_was_said() {
        let (recent, now) = (Recent::new(2), Moment { epoch: 1, at: Instant::now() });
        for (name, value) in [("a", 1), ("b", 2), ("b", 3)] {
            recent.keep(name, now, &Arc::new(value));
        }
        let found = |name| recent.find(name, now).map(|found| *found);
        assert_eq!((found("a"), found("b")), (Some(1), Some(3)), "what is replaced adds none");
        recent.keep("c", now, &Arc::new(4));
        assert_eq!((found("a"), found("b"), found("c")), (None, None, Some(4)));
    }
}
