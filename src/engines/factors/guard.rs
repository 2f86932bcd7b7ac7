//! What guards the codes of a human: each step of an authenticator counts once, and who gives wrong
//! codes is not asked again for a while.
//!
//! Every try holds the human's one row until its transaction ends, so that tries on all nodes and by
//! all credentials go one after the other, and none of many at once is looked at without being
//! counted. Only who proved another factor, a login or a token of that human, gets this far: nobody
//! else can lock anybody out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::first;
use crate::error::{Error, Result};
use crate::store::factors::{self, FactorRow, GuardRow};
use crate::store::{Tx, Versioned};
use crate::types::{FactorId, IdentityId, UnixMillis};

/// Wrong codes after which no other is looked at.
const FAILURES: usize = 5;
/// The time within which they count, and for which no other is looked at.
const WINDOW: Duration = Duration::from_mins(15);

/// What guards the codes of one human.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// The version that was read; none where there is no row yet.
    version: Option<i64>,
    identity: IdentityId,
    steps: BTreeMap<String, i64>,
    failures: Vec<i64>,
    locked_until: Option<UnixMillis>,
}

impl Guard {
    /// Holds the row for this transaction, and reads it.
    pub(super) async fn hold(tx: &mut Tx, identity: IdentityId) -> Result<Self> {
        let found = factors::hold_guard(tx, identity).await?;
        Self::read(identity, found.map(|found| (found.version, found.row)))
    }

    /// Makes the row where there is none, before there is a code to be tried: a row that is not
    /// there holds nobody.
    pub(super) async fn begin(tx: &mut Tx, identity: IdentityId) -> Result<()> {
        let guard = Self::hold(tx, identity).await?;
        if guard.version.is_some() { Ok(()) } else { guard.store(tx).await }
    }

    /// Reads it as it is.
    pub(super) async fn look(tx: &mut Tx, identity: IdentityId) -> Result<Self> {
        let found = tx.lookup::<GuardRow>(&identity).await?;
        Self::read(identity, found.map(|found| (found.version, found.row)))
    }

    fn read(identity: IdentityId, found: Option<(i64, GuardRow)>) -> Result<Self> {
        let Some((version, row)) = found else {
            let (steps, failures) = (BTreeMap::new(), Vec::new());
            return Ok(Self { version: None, identity, steps, failures, locked_until: None });
        };
        Ok(Self {
            version: Some(version),
            identity,
            steps: serde_json::from_str(&row.steps).map_err(Error::internal)?,
            failures: serde_json::from_str(&row.failures).map_err(Error::internal)?,
            locked_until: row.locked_until,
        })
    }

    /// Writes it, where it is still what was read.
    pub(super) async fn store(self, tx: &mut Tx) -> Result<()> {
        let row = GuardRow {
            id: self.identity,
            steps: serde_json::to_string(&self.steps).map_err(Error::internal)?,
            failures: serde_json::to_string(&self.failures).map_err(Error::internal)?,
            locked_until: self.locked_until,
        };
        match self.version {
            Some(version) => tx.update(version, &row).await?,
            None => tx.insert(&row).await.map_err(first)?,
        };
        Ok(())
    }

    /// Until when no code is looked at, where that is so.
    pub(super) fn locked(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.locked_until.filter(|until| *until > now)
    }

    /// Refuses while no code is looked at.
    pub(super) fn require_open(&self, now: UnixMillis) -> Result<()> {
        self.locked(now).map_or(Ok(()), |until| Err(locked(until)))
    }

    /// Counts a wrong code; what to answer. It does not end a count that others have begun: a right
    /// code in between must not give whoever guesses a fresh start.
    pub(super) fn fail(&mut self, now: UnixMillis) -> Result<Error> {
        self.failures.retain(|at| now.since(UnixMillis(*at)) < WINDOW);
        self.failures.push(now.0);
        if self.failures.len() < FAILURES {
            return Ok(super::not_accepted());
        }
        self.failures.clear();
        let until = now.plus(WINDOW)?;
        self.locked_until = Some(until);
        Ok(locked(until))
    }

    /// Tells whether a step is later than the last that was accepted.
    pub(super) fn is_new(&self, factor: FactorId, step: i64) -> bool {
        self.steps.get(&factor.to_string()).is_none_or(|last| step > *last)
    }

    /// Takes a step, which counts once.
    pub(super) fn take(&mut self, factor: FactorId, step: i64) {
        self.steps.insert(factor.to_string(), step);
    }

    /// Forgets the steps of what is not enrolled any more.
    pub(super) fn keep(&mut self, enrolled: &[Versioned<FactorRow>]) {
        let kept: BTreeSet<_> = enrolled.iter().map(|one| one.row.id.to_string()).collect();
        self.steps.retain(|factor, _| kept.contains(factor));
    }
}

fn locked(until: UnixMillis) -> Error {
    Error::Exhausted(
        format!("too many wrong codes: no other is looked at until {until}; a recovery code is")
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    fn guard() -> Guard {
        Guard::read(IdentityId(Id::from_bytes([1; 16])), None).unwrap()
    }

    #[test]
    fn five_wrong_codes_in_fifteen_minutes_lock_for_fifteen_minutes() {
        let (mut guard, minute) = (guard(), 60_000);
        for n in 0..4 {
            guard.fail(UnixMillis(n * 3 * minute)).unwrap();
            assert_eq!(guard.locked(UnixMillis(n * 3 * minute)), None);
        }
        // The first is 15 minutes ago: it counts no more.
        guard.fail(UnixMillis(15 * minute)).unwrap();
        assert_eq!(guard.locked(UnixMillis(15 * minute)), None);
        guard.fail(UnixMillis(17 * minute)).unwrap();
        assert_eq!(guard.locked(UnixMillis(17 * minute)), Some(UnixMillis(32 * minute)));
        assert!(guard.require_open(UnixMillis(32 * minute - 1)).is_err());
        assert!(guard.require_open(UnixMillis(32 * minute)).is_ok());
    }

    #[test]
    fn a_step_counts_once_and_none_before_it_counts_after_it() {
        let (mut guard, factor) = (guard(), FactorId(Id::from_bytes([2; 16])));
        let other = FactorId(Id::from_bytes([3; 16]));
        assert!(guard.is_new(factor, 7));
        guard.take(factor, 7);
        assert!(!guard.is_new(factor, 7) && !guard.is_new(factor, 6) && guard.is_new(factor, 8));
        assert!(guard.is_new(other, 7));
        guard.take(other, 7);
        guard.keep(&[]);
        assert!(guard.is_new(factor, 7) && guard.is_new(other, 7));
    }
}
