//! Whether a node serves: asked before every request, changed by whoever starts, seals and stops.
//!
//! A node that does not hear from its store serves nobody: a seal, a suspension or the other
//! clocks may be in there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::error::Error;

/// Whether a node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Serving,
    /// Its keys are out of memory, and why.
    Sealed(String),
    /// Its keys are there, but its log may not be the newest: it waits for administrators.
    Held(String),
    /// Its keys are there, but it has not heard from its store for too long.
    Unheard,
    /// It finishes what runs, and ends.
    Stopping,
}

/// What a node has to hear from its store again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Whether a seal is on record.
    Seal,
    /// How far the clocks are.
    Clock,
    /// Whether rights changed.
    Authority,
}

/// How long a node serves without one of them: above the longest view that gets its answer.
const SILENCE: Duration = Duration::from_secs(12);

/// The state of a node, shared by all who ask for it.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    now: RwLock<Now>,
    look: Notify,
}

#[derive(Debug)]
struct Now {
    state: State,
    seal: Instant,
    clock: Instant,
    authority: Instant,
}

impl Now {
    fn hears(&self) -> bool {
        let oldest = self.seal.min(self.clock).min(self.authority);
        oldest.elapsed() < SILENCE
    }

    fn serves(&self) -> bool {
        self.state == State::Serving && self.hears()
    }
}

impl Default for Standing {
    fn default() -> Self {
        let state = State::Sealed("it starts".to_owned());
        let at = Instant::now();
        let now = Now { state, seal: at, clock: at, authority: at };
        Self(Arc::new(Inner { now: RwLock::new(now), look: Notify::new() }))
    }
}

impl Standing {
    /// Shows the state.
    #[must_use]
    pub fn state(&self) -> State {
        let now = self.0.now.read();
        if now.state == State::Serving && !now.hears() {
            return State::Unheard;
        }
        now.state.clone()
    }

    /// Tells whether the node serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.0.now.read().serves()
    }

    /// Tells whether the node serves, or would if it heard from its store.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.now.read().state == State::Serving
    }

    /// Why a request other than health is refused; nothing while the node serves.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        if self.is_serving() {
            return None;
        }
        match self.state() {
            State::Serving => None,
            State::Sealed(_) => Some(Error::Sealed),
            State::Held(_) => Some(Error::unavailable(
                "the store was restored, or is not the newest; administrators must accept it",
            )),
            State::Unheard => {
                Some(Error::unavailable("this node does not hear from its store; retry elsewhere"))
            }
            State::Stopping => Some(Error::unavailable("this node is stopping; retry elsewhere")),
        }
    }

    /// Changes the state; a node that stops never comes back. Whoever lets it serve has just heard
    /// from the store.
    pub fn set(&self, state: State) {
        let at = Instant::now();
        let mut now = self.0.now.write();
        if now.state != State::Stopping {
            *now = Now { state, seal: at, clock: at, authority: at };
        }
    }

    /// Takes notice that the store answered.
    pub fn heard(&self, news: News) {
        let at = Instant::now();
        let mut now = self.0.now.write();
        match news {
            News::Seal => now.seal = at,
            News::Clock => now.clock = at,
            News::Authority => now.authority = at,
        }
    }

    /// Asks whoever watches the seal to look at once.
    pub fn nudge(&self) {
        self.0.look.notify_one();
    }

    /// Waits for somebody to ask for a look.
    pub async fn nudged(&self) {
        self.0.look.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_serving_node_refuses_nothing_and_a_stopping_one_never_serves_again() {
        let standing = Standing::default();
        assert_eq!(standing.refusal(), Some(Error::Sealed));
        standing.set(State::Held("older".into()));
        assert_eq!(standing.refusal().map(|error| error.reason()), Some("UNAVAILABLE"));
        standing.set(State::Serving);
        assert_eq!(standing.refusal(), None);
        standing.set(State::Stopping);
        standing.set(State::Serving);
        assert_eq!(standing.state(), State::Stopping);
        assert!(standing.refusal().is_some());
    }
}
