//! The keys of issuers, as this node knows them: fetched when a token needs one that is not known,
//! so that keys rotate without a restart, and no more often than a bound, so that strangers cannot
//! make the vault fetch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::definition::IssuerDefinition;
use super::fetch;
use super::jwk::KeySet;
use super::jwt::Token;
use super::memory::Memory;
use super::refused::{Refused, Why};
use crate::store::Versioned;
use crate::store::issuers::IssuerRow;
use crate::types::{ObjectId, TaskGroup, UnixMillis};

/// How long keys are used without a look at what the issuer publishes.
const FRESH: Duration = Duration::from_mins(10);
/// How long they are used at the most where it does not answer.
const USABLE: Duration = Duration::from_hours(1);
/// How long after one fetch another is made, whatever tokens say.
const PACE: Duration = Duration::from_secs(5);
/// How long a login waits for newer keys where those that are known may be used.
const PATIENCE: Duration = Duration::from_secs(1);
/// Issuers kept.
const KEPT: usize = 1_000;

/// The keys of every issuer, and what is remembered of issuers besides.
#[derive(Debug, Clone, Default)]
pub struct IssuerKeys {
    slots: Arc<Mutex<HashMap<ObjectId, Arc<Slot>>>>,
    tasks: TaskGroup,
    pub(super) memory: Memory,
}

/// What is known of one issuer, as of one version of its row.
#[derive(Debug)]
struct Slot {
    version: i64,
    known: Mutex<Known>,
    /// Held while its keys are fetched, so that one fetch serves everybody.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    keys: Option<Arc<KeySet>>,
    fetched: Option<UnixMillis>,
    tried: Option<UnixMillis>,
    trouble: String,
}

impl Known {
    fn is_within(&self, now: UnixMillis, span: Duration) -> bool {
        is_within(self.fetched, now, span)
    }
}

/// Tells whether a moment was less than a span ago. It may be as little ahead: a request that began
/// before another one fetched is behind what that one did. A clock that went back further says
/// nothing.
fn is_within(at: Option<UnixMillis>, now: UnixMillis, span: Duration) -> bool {
    at.is_some_and(|at| now.since(at) < span && at.since(now) < span)
}

impl IssuerKeys {
    /// Knows no keys yet. They are fetched in these tasks.
    #[must_use]
    pub fn new(tasks: TaskGroup) -> Self {
        Self { tasks, ..Self::default() }
    }

    /// Checks a token's signature with the key that it names.
    ///
    /// # Errors
    /// [`Refused::Token`] where there is no such key, or the signature is not by it.
    pub(super) async fn verify(
        &self,
        issuer: &Versioned<IssuerRow>,
        definition: &IssuerDefinition,
        token: &Token,
        now: UnixMillis,
    ) -> Result<(), Refused> {
        let algorithms = definition.algorithms()?;
        if !algorithms.contains(&token.algorithm) {
            let text =
                format!("it is signed with {}, which the issuer may not use", token.algorithm);
            return Err(Why::new("TOKEN_ALGORITHM", text).into());
        }
        let of = Of { issuer, definition, now };
        let mut keys = self.keys(of, false).await?;
        if keys.find(token.key.as_deref(), token.algorithm).is_none() {
            keys = self.keys(of, true).await?;
        }
        let Some(key) = keys.find(token.key.as_deref(), token.algorithm) else {
            return Err(Why::new("TOKEN_KEY", "the issuer has no such key").into());
        };
        if key.verifies(&token.signed, &token.signature) {
            return Ok(());
        }
        Err(Why::new("TOKEN_SIGNATURE", "its signature is not by the issuer's key").into())
    }

    fn slot(&self, issuer: &Versioned<IssuerRow>) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&issuer.row.id).filter(|it| it.version == issuer.version) {
            return Arc::clone(slot);
        }
        if slots.len() >= KEPT {
            slots.clear();
        }
        let slot = Arc::new(Slot {
            version: issuer.version,
            known: Mutex::default(),
            fetching: Arc::default(),
        });
        slots.insert(issuer.row.id, Arc::clone(&slot));
        slot
    }

    /// The keys; newer ones than are known where one was not found among them.
    async fn keys(&self, of: Of<'_>, missing: bool) -> Result<Arc<KeySet>, Refused> {
        let slot = self.slot(of.issuer);
        let known = slot.known.lock().clone();
        let fresh = !missing && known.is_within(of.now, FRESH);
        match &known.keys {
            Some(keys) if fresh || !of.definition.fetches() => return Ok(Arc::clone(keys)),
            // An issuer that takes its time holds nobody up whose key may still be used.
            Some(_) if !missing && known.is_within(of.now, USABLE) => {
                let _late = tokio::time::timeout(PATIENCE, self.refresh(&slot, of)).await;
            }
            Some(_) | None => self.refresh(&slot, of).await,
        }
        let known = slot.known.lock().clone();
        match known.keys.clone().filter(|_| known.is_within(of.now, USABLE)) {
            Some(keys) => Ok(keys),
            None => Err(Why::new("ISSUER_UNREACHABLE", known.trouble).into()),
        }
    }

    /// Fetches the keys unless that was tried just now, or waits for whoever does. Where whoever asked
    /// for it goes away, it goes on.
    async fn refresh(&self, slot: &Arc<Slot>, of: Of<'_>) {
        let Ok(held) = Arc::clone(&slot.fetching).try_lock_owned() else {
            drop(slot.fetching.lock().await);
            return;
        };
        if is_within(slot.known.lock().tried, of.now, PACE) {
            return;
        }
        let (slot, tasks, now) = (Arc::clone(slot), self.tasks.clone(), of.now);
        let (issuer, definition) = (of.issuer.row.clone(), of.definition.clone());
        let fetched = self.tasks.spawn(async move {
            tokio::select! {
                () = tasks.stopping() => {}
                () = slot.fetch(&issuer, &definition, now) => {}
            }
            drop(held);
        });
        // However it ended, what is known says what came of it.
        let _ended = fetched.await;
    }
}

/// Whose keys are asked for, and when.
#[derive(Debug, Clone, Copy)]
struct Of<'a> {
    issuer: &'a Versioned<IssuerRow>,
    definition: &'a IssuerDefinition,
    now: UnixMillis,
}

impl Slot {
    async fn fetch(&self, issuer: &IssuerRow, definition: &IssuerDefinition, now: UnixMillis) {
        self.known.lock().tried = Some(now);
        let parsed = match definition.algorithms() {
            Ok(algorithms) => fetch::keys(&issuer.url, definition).await.and_then(|bytes| {
                let unfit = |why| format!("its keys are unfit: {why}");
                KeySet::parse(&bytes, &algorithms).map_err(unfit)
            }),
            Err(error) => Err(error.to_string()),
        };
        let mut known = self.known.lock();
        match parsed {
            Ok(keys) => {
                known.keys = Some(Arc::new(keys));
                known.fetched = Some(now);
                known.trouble.clear();
            }
            Err(trouble) => {
                tracing::warn!(issuer = %issuer.name, %trouble, "an issuer's keys stay as they are");
                known.trouble = trouble;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_request_fetched_is_fresh_to_an_earlier_one() {
        let now = UnixMillis(1_800_000_000_000);
        for (offset, fresh) in [
            (0, true),
            (3_000, true),
            (-3_000, true),
            (-5_000, false),
            (5_000, false),
            (i64::MAX - now.0, false),
        ] {
            let at = UnixMillis(now.0 + offset);
            assert_eq!(is_within(Some(at), now, PACE), fresh, "{offset}");
        }
        assert!(!is_within(None, now, PACE));
    }
}
