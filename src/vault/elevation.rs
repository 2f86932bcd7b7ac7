//! An elevation in force, as decisions carry it: rights for a time, one to an identity.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{HeldGrant, Terms, is_active};
use crate::error::{Error, Result};
use crate::store::elevations::{self, ElevationRow};
use crate::store::identities::{GrantRow, IdentityRow};
use crate::store::{Tx, Versioned};
use crate::types::{
    ElevationId, ElevationState, GrantId, IdentityId, ResourcePattern, UnixMillis, Verb,
};

/// A row that a request stands on, as it was when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandsOn {
    /// Its table.
    pub table: String,
    /// Its key.
    pub id: String,
    /// Its version.
    pub version: i64,
}

/// What was asked for; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The resources.
    pub resources: Vec<String>,
    /// The actions on them, each by its name.
    pub actions: Vec<String>,
    /// How long, in seconds.
    pub ttl_s: i64,
    /// From when on, where that was said.
    pub start_ms: Option<i64>,
    /// Why.
    pub reason: String,
    /// The ticket that asks for it.
    pub ticket: String,
    /// The elevation that it prolongs.
    pub extends: Option<String>,
    /// Whether an elevated call may make what stands by itself.
    pub standing: bool,
    /// The role and the resources that are named, as they were.
    pub stands_on: Vec<StandsOn>,
}

impl Scope {
    /// Reads what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    /// Pairs each action with the resources of its noun. What administers is paired with what is
    /// named exactly alone: no wildcard covers it.
    ///
    /// # Errors
    /// [`Error::Internal`] when a row holds what it must not.
    pub fn pairs(&self) -> Result<Vec<(&str, ResourcePattern)>> {
        let mut pairs = Vec::new();
        for action in &self.actions {
            let verb = Verb::lookup(action).ok_or_else(|| Error::internal("no such action"))?;
            for text in &self.resources {
                let pattern: ResourcePattern = text.parse().map_err(Error::internal)?;
                let exact = !(verb.administrative && pattern.has_wildcard());
                if exact && noun(text) == noun(action) {
                    pairs.push((action.as_str(), pattern));
                }
            }
        }
        Ok(pairs)
    }
}

fn noun(text: &str) -> &str {
    text.split(['.', '/']).next().unwrap_or_default()
}

/// An approval or a denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// Who voted: an identity's id.
    pub by: String,
    /// Their revocation epoch then: what they were contained for takes their approval with it.
    pub epoch: i64,
    /// The credential that proved it.
    pub credential: String,
    /// The factor that was proven with it, where one had to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<String>,
    /// Whether it is an approval.
    pub approves: bool,
    /// The step that it counts for, from 0.
    pub step: usize,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// How long it allows, in seconds.
    pub ttl_s: i64,
    /// Why.
    pub reason: String,
}

impl Vote {
    /// Reads the votes of a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read_all(json: &str) -> Result<Vec<Self>> {
        serde_json::from_str(json).map_err(Error::internal)
    }
}

/// The elevations that something ends with, and when each ends: the first to end ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Under(Vec<(ElevationId, UnixMillis)>);

impl Under {
    /// Adds some.
    pub fn add(&mut self, more: impl IntoIterator<Item = (ElevationId, UnixMillis)>) {
        for (id, end) in more {
            if self.0.iter().all(|(known, _)| *known != id) {
                self.0.push((id, end));
            }
        }
    }

    /// When the first of them ends.
    #[must_use]
    pub fn end(&self) -> Option<UnixMillis> {
        self.0.iter().map(|(_, end)| *end).min()
    }

    /// Their ids, however many they are.
    pub fn each(&self) -> impl Iterator<Item = ElevationId> {
        self.0.iter().map(|(id, _)| *id)
    }

    /// Their ids, as the row of a credential holds them, after those that it holds already.
    ///
    /// # Errors
    /// [`Error::Precondition`] where they are more than a row holds: none is left out.
    pub fn ids(&self, held: [Option<ElevationId>; 2]) -> Result<[Option<ElevationId>; 2]> {
        let mut ids: Vec<_> = held.into_iter().flatten().collect();
        ids.extend(self.each());
        let mut seen = Vec::with_capacity(ids.len());
        ids.retain(|id| {
            !seen.contains(id) && {
                seen.push(*id);
                true
            }
        });
        match ids.as_slice() {
            [] => Ok([None, None]),
            [one] => Ok([Some(*one), None]),
            [one, two] => Ok([Some(*one), Some(*two)]),
            [..] => Err(Error::precondition(
                "this would end with more than two elevations; ask by a credential that was made \
                 under none",
            )),
        }
    }
}

/// An elevation that a credential was made under.
#[derive(Debug)]
pub(super) struct MadeUnder {
    pub(super) row: Versioned<ElevationRow>,
    /// Who has it, where that is another than whose the credential is.
    pub(super) holder: Option<Versioned<IdentityRow>>,
}

impl MadeUnder {
    pub(super) async fn load(tx: &mut Tx, id: ElevationId, whose: IdentityId) -> Result<Self> {
        let missing = || Error::internal("made under an elevation without its row");
        let row = tx.lookup::<ElevationRow>(&id).await?.ok_or_else(missing)?;
        let missing = || Error::internal("an elevation of nobody");
        let holder = match row.row.identity {
            own if own == whose => None,
            other => Some(tx.lookup::<IdentityRow>(&other).await?.ok_or_else(missing)?),
        };
        Ok(Self { row, holder })
    }

    /// Tells whether it is in force. Who has it and is contained has it no more, before any worker
    /// has ended it.
    pub(super) fn is_in_force(&self, now: UnixMillis, restore_epoch: i64) -> bool {
        let epoch = self.row.row.revocation_epoch;
        let stands = |who: &IdentityRow| is_active(who, now) && who.revocation_epoch == epoch;
        is_in_force(&self.row.row, now, restore_epoch)
            && self.holder.as_ref().is_none_or(|holder| stands(&holder.row))
    }
}

/// An elevation in force, read once with who has it.
#[derive(Debug)]
pub struct Elevated {
    /// Its row.
    pub row: Versioned<ElevationRow>,
    /// The first moment at which it is in force no more.
    pub ends_at: UnixMillis,
    by_action: HashMap<String, Vec<HeldGrant>>,
    /// How the record names it: itself, and who approved it.
    named: String,
}

/// Tells whether an elevation is in force at a moment, of a vault that was restored so often.
fn is_in_force(row: &ElevationRow, now: UnixMillis, restore_epoch: i64) -> bool {
    row.state == ElevationState::Active
        && row.ends_at.is_some_and(|end| end > now)
        && row.restore_epoch == restore_epoch
}

impl Elevated {
    /// Finds the one that an identity has in force.
    pub(super) async fn find(
        tx: &mut Tx,
        of: &IdentityRow,
        now: UnixMillis,
        restore_epoch: i64,
    ) -> Result<Option<Self>> {
        let found = elevations::active_of(tx, of.id).await?.filter(|found| {
            is_in_force(&found.row, now, restore_epoch)
                && found.row.revocation_epoch == of.revocation_epoch
        });
        found.map(Self::read).transpose()
    }

    fn read(row: Versioned<ElevationRow>) -> Result<Self> {
        let ElevationRow { id, identity, ends_at, .. } = row.row;
        let ends_at = ends_at.ok_or_else(|| Error::internal("in force without an end"))?;
        let scope = Scope::read(&row.row.scope)?;
        let mut by_action: HashMap<String, Vec<HeldGrant>> = HashMap::new();
        for (action, resource) in scope.pairs()? {
            let grant = GrantRow {
                id: GrantId(id.0),
                subject: identity.0,
                subject_is_group: false,
                action: action.to_owned(),
                resource,
                conditions: Terms::default().to_json()?,
                reason: String::new(),
                ticket: String::new(),
                expires_at: Some(ends_at),
                active: true,
                created_at: row.row.requested_at,
                created_by: identity.to_string(),
                changed_at: row.row.changed_at,
                changed_by: row.row.changed_by.clone(),
            };
            let held = HeldGrant::read(grant)?.elevated(scope.standing);
            by_action.entry(action.to_owned()).or_default().push(held);
        }
        let approvals = Vote::read_all(&row.row.votes)?.into_iter().filter(|vote| vote.approves);
        let approvals: Vec<_> = approvals.map(|vote| vote.by).collect();
        let named = match approvals.as_slice() {
            [] => format!("elevation {id} by break-glass"),
            approvals => format!("elevation {id} approved by {}", approvals.join("+")),
        };
        Ok(Self { row, ends_at, by_action, named })
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ElevationId {
        self.row.row.id
    }

    /// Its id, and when it ends.
    pub(super) const fn end(&self) -> (ElevationId, UnixMillis) {
        (self.id(), self.ends_at)
    }

    /// Tells whether a decision stood on it, by the id that its rights are known by.
    pub(super) fn is(&self, grant: GrantId) -> bool {
        self.id().0 == grant.0
    }

    /// How the record names it, with who approved it.
    pub(super) fn named(&self) -> &str {
        &self.named
    }

    /// What it allows of an action.
    pub(super) fn grants(&self, action: &str) -> impl Iterator<Item = &HeldGrant> {
        self.by_action.get(action).into_iter().flatten()
    }

    /// All that it allows.
    pub(super) fn all(&self) -> impl Iterator<Item = &HeldGrant> {
        self.by_action.values().flatten()
    }
}
