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
use super::refused::{Refused, Why};
use crate::store::Versioned;
use crate::store::issuers::IssuerRow;
use crate::types::{ObjectId, UnixMillis};

/// How long keys are used without a look at what the issuer publishes.
const FRESH: Duration = Duration::from_mins(10);
/// How long they are used at the most where it does not answer.
const USABLE: Duration = Duration::from_hours(1);
/// How long after one fetch another is made, whatever tokens say.
const PACE: Duration = Duration::from_secs(5);
/// Issuers kept.
const KEPT: usize = 1_000;

/// The keys of every issuer.
#[derive(Debug, Clone, Default)]
pub struct IssuerKeys(Arc<Mutex<HashMap<ObjectId, Arc<Slot>>>>);

/// What is known of one issuer, as of one version of its row.
#[derive(Debug)]
struct Slot {
    version: i64,
    known: Mutex<Known>,
    /// Held while its keys are fetched, so that one fetch serves everybody.
    fetching: tokio::sync::Mutex<()>,
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
        let slot = self.slot(issuer);
        let mut keys = slot.keys(issuer, definition, now, false).await?;
        if keys.find(token.key.as_deref(), token.algorithm).is_none() {
            keys = slot.keys(issuer, definition, now, true).await?;
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
        let mut slots = self.0.lock();
        if let Some(slot) = slots.get(&issuer.row.id).filter(|it| it.version == issuer.version) {
            return Arc::clone(slot);
        }
        if slots.len() >= KEPT {
            slots.clear();
        }
        let slot = Arc::new(Slot {
            version: issuer.version,
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        });
        slots.insert(issuer.row.id, Arc::clone(&slot));
        slot
    }
}

impl Slot {
    /// The keys; newer ones than are known where one was not found among them.
    async fn keys(
        &self,
        issuer: &Versioned<IssuerRow>,
        definition: &IssuerDefinition,
        now: UnixMillis,
        missing: bool,
    ) -> Result<Arc<KeySet>, Refused> {
        let known = self.known.lock().clone();
        match &known.keys {
            Some(keys) if !definition.fetches() => return Ok(Arc::clone(keys)),
            Some(keys) if !missing && known.is_within(now, FRESH) => return Ok(Arc::clone(keys)),
            Some(_) | None => {}
        }
        let _fetching = self.fetching.lock().await;
        let before = self.known.lock().clone();
        // Somebody else may have fetched them meanwhile, and nobody asks again at once.
        let asked = before.tried != known.tried || is_within(before.tried, now, PACE);
        if !asked || (before.keys.is_none() && !definition.fetches()) {
            self.fetch(issuer, definition, now).await?;
        }
        let known = self.known.lock().clone();
        match known.keys.clone().filter(|_| known.is_within(now, USABLE)) {
            Some(keys) => Ok(keys),
            None => Err(Why::new("ISSUER_UNREACHABLE", known.trouble).into()),
        }
    }

    async fn fetch(
        &self,
        issuer: &Versioned<IssuerRow>,
        definition: &IssuerDefinition,
        now: UnixMillis,
    ) -> Result<(), Refused> {
        self.known.lock().tried = Some(now);
        let algorithms = definition.algorithms()?;
        let fetched = fetch::keys(&issuer.row.url, definition).await;
        let parsed = fetched.and_then(|bytes| {
            KeySet::parse(&bytes, &algorithms).map_err(|why| format!("its keys are unfit: {why}"))
        });
        let mut known = self.known.lock();
        match parsed {
            Ok(keys) => {
                known.keys = Some(Arc::new(keys));
                known.fetched = Some(now);
                known.trouble.clear();
            }
            Err(trouble) => {
                tracing::warn!(issuer = %issuer.row.name, %trouble, "an issuer's keys stay as they are");
                known.trouble = trouble;
            }
        }
        Ok(())
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
