//! Whether a processor has nothing better to do.
//!
//! The runtime's workers say when they park: whoever gathers work then knows that nobody brings more of
//! it soon, and that waiting longer would leave a processor idle.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

/// Of this process: processors are shared by all of its stores.
static IDLE: Idle = Idle::new();

struct Idle {
    /// Workers that are parked.
    parked: AtomicUsize,
    /// Whether anybody waits for one that parks.
    awaited: AtomicBool,
    waiting: Mutex<Vec<Thread>>,
}

impl Idle {
    const fn new() -> Self {
        Self {
            parked: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            waiting: Mutex::new(Vec::new()),
        }
    }

    fn parks(&self) {
        // Either this sees who waits, or who waits sees this: both are in one order.
        self.parked.fetch_add(1, Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) && self.awaited.swap(false, Ordering::SeqCst) {
            for thread in self.waiting.lock().drain(..) {
                thread.unpark();
            }
        }
    }

    fn unparks(&self) {
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until a worker has nothing to do, or for so long; tells which.
    fn wait(&self, most: Duration) -> bool {
        let us = thread::current();
        let id = us.id();
        self.waiting.lock().push(us);
        self.awaited.store(true, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) == 0 {
            thread::park_timeout(most);
        }
        let mut waiting = self.waiting.lock();
        let all = waiting.len();
        waiting.retain(|thread| thread.id() != id);
        waiting.len() == all || self.parked.load(Ordering::SeqCst) > 0
    }
}

/// Has the workers of a runtime say when they have nothing to do.
pub fn tell_of_idle_workers(runtime: &mut tokio::runtime::Builder) {
    runtime.on_thread_park(|| IDLE.parks()).on_thread_unpark(|| IDLE.unparks());
}

/// Waits until a worker has nothing to do, or for so long; tells which. Where none ever says so, for
/// so long.
pub(super) fn wait(most: Duration) -> bool {
    IDLE.wait(most)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn who_waits_goes_on_when_a_worker_parks_and_not_before() {
        let idle = Arc::new(Idle::new());
        assert!(!idle.wait(Duration::from_millis(1)), "nobody ever parked");
        let waits = Arc::clone(&idle);
        let waiter = thread::spawn(move || waits.wait(LONG));
        while idle.waiting.lock().is_empty() {
            thread::yield_now();
        }
        assert!(!waiter.is_finished());
        idle.parks();
        assert!(waiter.join().unwrap());
        let began = Instant::now();
        assert!(idle.wait(LONG), "one is parked already");
        assert!(began.elapsed() < LONG);
        idle.unparks();
        assert!(!idle.wait(Duration::from_millis(1)), "it works again");
        assert!(idle.waiting.lock().is_empty(), "nobody waits any more");
    }

    #[test]
    fn workers_of_a_runtime_say_when_they_have_nothing_to_do() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        tell_of_idle_workers(&mut runtime);
        let runtime = runtime.worker_threads(1).build().unwrap();
        assert!(wait(LONG), "its worker is parked");
        let (works, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (begun, stopped) = (Arc::clone(&works), Arc::clone(&stop));
        let work = runtime.spawn(async move {
            begun.store(true, Ordering::Relaxed);
            while !stopped.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        while !works.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        assert!(!wait(Duration::from_millis(1)), "it works");
        stop.store(true, Ordering::Relaxed);
        assert!(wait(LONG), "it has nothing to do again");
        runtime.block_on(work).unwrap();
        drop(runtime);
    }
}
