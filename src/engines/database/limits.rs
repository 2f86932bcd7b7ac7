//! How long what is issued may live: what the role, the grants and the identity leave of it.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::policy::{CredentialFacts, GrantOrigin};
use crate::store::credentials::CredentialRow;
use crate::types::{ElevationId, ResourceName, UnixMillis};
use crate::vault::{Decision, HeldGrant, View};

const ACTION: &str = super::credentials::ACTION;

/// The bounds of one credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) struct Limits {
    /// The moment that it may not pass, if there is one.
    end: Option<UnixMillis>,
    /// The elevation that alone allows it, and when that ends.
    elevated: Option<(ElevationId, UnixMillis)>,
}

impl Limits {
    /// Takes the ends of the identity and of the grants that a decision stood on.
    pub(super) fn of_decision(decision: &Decision) -> Self {
        Self { end: decision.end(ACTION), elevated: None }
    }

    /// Gathers them anew for a lease that is to live on: its holder must still hold the right.
    ///
    /// # Errors
    /// [`Error::Denied`] when no grant in force covers what the lease was issued for;
    /// [`Error::Precondition`] when it was made under an elevation that is over.
    pub(in crate::engines) fn of_lease(view: &View, lease: &CredentialRow) -> Result<Self> {
        let subject = view.subject()?;
        let mut ends = vec![subject.identity.row.expires_at];
        for id in [lease.elevation, lease.elevation_too].into_iter().flatten() {
            ends.push(Some(subject.carries(id).ok_or_else(|| {
                Error::precondition("an elevation that the lease was made under is over")
            })?));
        }
        // What anybody may do anyway is done without an elevation.
        let mut by = ends_by(view, lease, false)?;
        let elevated = subject.elevated().filter(|_| by.is_empty());
        if elevated.is_some() {
            by = ends_by(view, lease, true)?;
        }
        if by.is_empty() {
            return Err(Error::Denied("no grant covers this lease any more; ask for one".into()));
        }
        // One without an end is the last of them.
        ends.push(by.into_iter().reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten());
        Ok(Self { end: ends.into_iter().flatten().min(), elevated })
    }

    /// The elevation that alone allows it, and when that ends.
    pub(in crate::engines) const fn elevated(&self) -> Option<(ElevationId, UnixMillis)> {
        self.elevated
    }

    /// Cuts a moment to what is allowed.
    pub(in crate::engines) fn cap(&self, moment: UnixMillis) -> UnixMillis {
        self.end.map_or(moment, |end| end.min(moment))
    }
}

/// When each of the grants ends that cover a lease, those of an elevation or the others.
fn ends_by(view: &View, lease: &CredentialRow, elevated: bool) -> Result<Vec<Option<UnixMillis>>> {
    let caller = view.ctx().authenticated().ok_or_else(|| Error::internal("nobody asks"))?;
    let asks = view.subject()?.credential_facts(caller.method, &[]);
    let grants = view.subject()?.grants(ACTION).filter(|grant| {
        (grant.facts().origin != GrantOrigin::Given) == elevated
            && covers(grant, view, &asks, &lease.resource)
    });
    let mut ends = Vec::new();
    for grant in grants {
        let facts = grant.facts();
        let life = facts.conditions.max_ttl_s;
        let life = life.map(|s| lease.issued_at.plus(Duration::from_secs(s))).transpose()?;
        ends.push([life, facts.expires_at].into_iter().flatten().min());
    }
    Ok(ends)
}

fn covers(
    grant: &HeldGrant,
    view: &View,
    asks: &CredentialFacts<'_>,
    resource: &ResourceName,
) -> bool {
    let facts = grant.facts();
    facts.in_force(view.now())
        && facts.resource.matches(resource.as_str())
        && facts.conditions.source_fits(view.ctx().source)
        && facts.conditions.login.fit(asks, view.now())
}
