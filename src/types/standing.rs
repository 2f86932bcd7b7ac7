//! Whether a node serves: asked before every request, changed by whoever starts, seals and stops.

use std::sync::Arc;

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
    /// It finishes what runs, and ends.
    Stopping,
}

/// The state of a node, shared by all who ask for it.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<State>,
    look: Notify,
}

impl Default for Standing {
    fn default() -> Self {
        let (state, _) = watch::channel(State::Sealed("it starts".to_owned()));
        Self(Arc::new(Inner { state, look: Notify::new() }))
    }
}

impl Standing {
    /// Shows the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state.borrow().clone()
    }

    /// Tells whether the node serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.0.state.borrow() == State::Serving
    }

    /// Why a request other than health is refused; nothing while the node serves.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        match &*self.0.state.borrow() {
            State::Serving => None,
            State::Sealed(_) => Some(Error::Sealed),
            State::Held(_) => Some(Error::unavailable(
                "the store was restored, or is not the newest; administrators must accept it",
            )),
            State::Stopping => Some(Error::unavailable("this node is stopping; retry elsewhere")),
        }
    }

    /// Changes the state; a node that stops never comes back.
    pub fn set(&self, state: State) {
        self.0.state.send_if_modified(|now| {
            let changes = *now != State::Stopping && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
    }

    /// Follows the state as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
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
