//! The vault's time: the later of the local clock and a mark that all nodes keep.
//!
//! A node whose clock fell behind, or ran ahead of the others, must not decide what has expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::types::{Clock, UnixMillis};

/// How far a node may be behind the mark, or ahead of one that others keep moving.
const SKEW: Duration = Duration::from_secs(5);
/// How long a mark that another node moved counts as moving.
const MOVING: Duration = Duration::from_secs(3);
/// How far a mark may be ahead of this node before only an operator can tell who is right.
const LOST: Duration = Duration::from_hours(1);

/// What is wrong with a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skew {
    None,
    Behind,
    Ahead,
    Lost,
}

/// The local clock, held against the mark.
#[derive(Debug)]
pub struct VaultClock {
    clock: Arc<dyn Clock>,
    node: String,
    mark: AtomicI64,
    /// The latest time that a request was told: what was over for it stays over, also within the
    /// second before the mark moves.
    told: AtomicI64,
    active: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    mark: UnixMillis,
    moved_by_others: Option<Instant>,
    skew: Skew,
}

impl VaultClock {
    /// Holds a clock against the marks that `node` reads.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, node: String) -> Self {
        let seen = Seen { mark: UnixMillis(0), moved_by_others: None, skew: Skew::None };
        Self {
            clock,
            node,
            mark: AtomicI64::new(0),
            told: AtomicI64::new(0),
            active: AtomicBool::new(false),
            seen: Mutex::new(seen),
        }
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Tells the time of a request.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while this node's clock cannot be trusted.
    pub fn now(&self) -> Result<UnixMillis> {
        let skew = self.seen.lock().skew;
        match skew {
            Skew::None => {}
            Skew::Behind => return Err(Error::unavailable("this node's clock is behind")),
            Skew::Ahead => {
                return Err(Error::unavailable("this node's clock is ahead of the others"));
            }
            Skew::Lost => {
                return Err(Error::unavailable("this node's clock is hours behind; set it"));
            }
        }
        self.active.store(true, Ordering::Relaxed);
        let now = self.clock.now().0.max(self.mark.load(Ordering::Acquire));
        Ok(UnixMillis(now.max(self.told.fetch_max(now, Ordering::AcqRel))))
    }

    /// Tells a time that never goes back.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Tells whether a request asked for the time since this was last asked.
    pub(super) fn was_active(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed)
    }

    /// Takes notice of the stored mark, and answers what this node should move it to, if at all.
    pub(super) fn notice(&self, stored: Option<(String, UnixMillis)>) -> Option<UnixMillis> {
        let (local, instant) = (self.clock.now(), self.clock.monotonic());
        let mut seen = self.seen.lock();
        if let Some((node, mark)) = stored {
            let moved = mark > seen.mark;
            if moved && seen.mark > UnixMillis(0) && node != self.node {
                seen.moved_by_others = Some(instant);
            }
            seen.mark = seen.mark.max(mark);
            self.mark.fetch_max(mark.0, Ordering::AcqRel);
        }
        let moving = seen
            .moved_by_others
            .is_some_and(|moved| instant.saturating_duration_since(moved) < MOVING);
        let skew = if seen.mark.since(local) > LOST {
            Skew::Lost
        } else if seen.mark.since(local) > SKEW {
            Skew::Behind
        } else if moving && local.since(seen.mark) > SKEW {
            Skew::Ahead
        } else {
            Skew::None
        };
        if std::mem::replace(&mut seen.skew, skew) == Skew::Ahead && skew != Skew::Ahead {
            // What it told while it ran ahead was nobody else's time.
            self.told.store(seen.mark.0, Ordering::Release);
        }
        (seen.skew == Skew::None && local > seen.mark).then_some(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Turned(Mutex<(UnixMillis, Instant)>);

    impl Turned {
        fn turn(&self, wall_ms: i64, monotonic_ms: u64) {
            let mut now = self.0.lock();
            now.0 = UnixMillis(now.0.0 + wall_ms);
            now.1 += Duration::from_millis(monotonic_ms);
        }
    }

    impl Clock for Turned {
        fn now(&self) -> UnixMillis {
            self.0.lock().0
        }

        fn monotonic(&self) -> Instant {
            self.0.lock().1
        }
    }

    fn clock() -> (Arc<Turned>, VaultClock) {
        let turned = Arc::new(Turned(Mutex::new((UnixMillis(1_000_000_000), Instant::now()))));
        let clock = VaultClock::new(Arc::clone(&turned) as Arc<dyn Clock>, "here".into());
        (turned, clock)
    }

    #[test]
    fn time_never_goes_back_behind_the_mark() {
        let (turned, clock) = clock();
        clock.notice(Some(("there".into(), UnixMillis(1_000_001_000))));
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_001_000)));
        turned.turn(3_000, 3_000);
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_003_000)));
    }

    #[test]
    fn time_that_was_told_does_not_come_back_before_the_mark_has_moved() {
        let (turned, clock) = clock();
        turned.turn(3_000, 3_000);
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_003_000)));
        turned.turn(-60_000, 100);
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_003_000)));
        turned.turn(60_001, 100);
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_003_001)));
    }

    #[test]
    fn a_node_that_ran_ahead_and_is_put_right_tells_the_time_of_the_others() {
        let (turned, clock) = clock();
        clock.notice(Some(("there".into(), UnixMillis(1_000_000_000))));
        turned.turn(60_000, 500);
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_060_000)));
        clock.notice(Some(("there".into(), UnixMillis(1_000_001_000))));
        assert!(clock.now().is_err());
        turned.turn(-59_000, 500);
        clock.notice(Some(("there".into(), UnixMillis(1_000_002_000))));
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_002_000)));
    }

    #[test]
    fn a_node_that_is_behind_refuses_and_does_not_write() {
        let (_, clock) = clock();
        let wrote = clock.notice(Some(("there".into(), UnixMillis(1_000_006_000))));
        assert_eq!(wrote, None);
        assert!(clock.now().is_err());
    }

    #[test]
    fn a_node_that_ran_ahead_refuses_while_others_move_the_mark() {
        let (turned, clock) = clock();
        clock.notice(Some(("there".into(), UnixMillis(1_000_000_000))));
        turned.turn(60_000, 1_000);
        assert_eq!(clock.notice(Some(("there".into(), UnixMillis(1_000_001_000)))), None);
        assert!(clock.now().is_err());
    }

    #[test]
    fn a_mark_that_nobody_moves_is_merely_old() {
        let (turned, clock) = clock();
        clock.notice(Some(("there".into(), UnixMillis(1_000_000_000))));
        turned.turn(60_000, 60_000);
        let wrote = clock.notice(Some(("there".into(), UnixMillis(1_000_000_000))));
        assert_eq!(wrote, Some(UnixMillis(1_000_060_000)));
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_060_000)));
    }

    #[test]
    fn a_clock_that_is_put_right_serves_again() {
        let (turned, clock) = clock();
        clock.notice(Some(("there".into(), UnixMillis(1_000_006_000))));
        turned.turn(5_000, 0);
        clock.notice(Some(("there".into(), UnixMillis(1_000_006_000))));
        assert_eq!(clock.now(), Ok(UnixMillis(1_000_006_000)));
    }
}
