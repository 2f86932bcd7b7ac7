//! Whether a node serves: asked before every request, changed by whoever starts, seals and stops.
//!
//! A node that does not hear from its store serves nobody: a seal, a suspension or the other
//! clocks may be in there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

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
    now: watch::Sender<Now>,
    look: Notify,
}

/// The state that was set, and when the store was heard last.
#[derive(Debug, Clone)]
pub struct Now {
    state: State,
    seal: Instant,
    clock: Instant,
    authority: Instant,
}

impl Now {
    /// Shows the state, which silence alone changes too.
    #[must_use]
    pub fn state(&self) -> State {
        if self.state == State::Serving && !self.hears() {
            return State::Unheard;
        }
        self.state.clone()
    }

    fn since(state: State) -> Self {
        let at = Instant::now();
        Self { state, seal: at, clock: at, authority: at }
    }

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
        let (now, _) = watch::channel(Now::since(State::Sealed("it starts".to_owned())));
        Self(Arc::new(Inner { now, look: Notify::new() }))
    }
}

impl Standing {
    /// Shows the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.now.borrow().state()
    }

    /// Tells whether the node serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.0.now.borrow().serves()
    }

    /// Tells whether the node serves, or would if it heard from its store.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.now.borrow().state == State::Serving
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
        self.0.now.send_if_modified(|now| {
            if now.state == State::Stopping {
                return false;
            }
            let before = now.state();
            *now = Now::since(state);
            now.state != before
        });
    }

    /// Takes notice that the store answered.
    pub fn heard(&self, news: News) {
        self.0.now.send_if_modified(|now| {
            let before = now.serves();
            let at = Instant::now();
            match news {
                News::Seal => now.seal = at,
                News::Clock => now.clock = at,
                News::Authority => now.authority = at,
            }
            now.serves() != before
        });
    }

    /// Follows the state as it changes. Silence makes no sound: who follows looks at times.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Now> {
        self.0.now.subscribe()
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

    #[test]
    fn a_node_serves_while_it_hears_of_everything_and_tells_when_it_hears_again() {
        let standing = Standing::default();
        standing.set(State::Serving);
        let mut watch = standing.watch();
        standing.heard(News::Clock);
        assert!(!watch.has_changed().unwrap(), "nothing is new");
        for news in [News::Seal, News::Clock, News::Authority] {
            standing.0.now.send_if_modified(|now| {
                let Some(old) = Instant::now().checked_sub(SILENCE) else { return false };
                match news {
                    News::Seal => now.seal = old,
                    News::Clock => now.clock = old,
                    News::Authority => now.authority = old,
                }
                false
            });
            assert_eq!(standing.state(), State::Unheard, "{news:?}");
            assert!(!standing.is_serving() && standing.is_open());
            assert_eq!(standing.refusal().map(|error| error.reason()), Some("UNAVAILABLE"));
            standing.heard(news);
            assert!(watch.has_changed().unwrap(), "{news:?}");
            assert_eq!(watch.borrow_and_update().state(), State::Serving);
            assert_eq!(standing.refusal(), None);
        }
    }
}
