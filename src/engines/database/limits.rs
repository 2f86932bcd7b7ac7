//! How long what is issued may live: what the role, the grants and the identity leave of it.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::types::{ResourceName, UnixMillis};
use crate::vault::{Decision, HeldGrant, View};

const ACTION: &str = super::credentials::ACTION;

/// The bounds of one credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) struct Limits {
    /// The moment that it may not pass, if there is one.
    end: Option<UnixMillis>,
}

impl Limits {
    /// Takes the ends of the identity and of the grants that a decision stood on.
    pub(super) fn of_decision(decision: &Decision) -> Self {
        Self { end: decision.end(ACTION) }
    }

    /// Gathers them anew for a lease that is to live on: its holder must still hold the right.
    ///
    /// # Errors
    /// [`Error::Denied`] when no grant in force covers what the lease was issued for;
    /// [`Error::Precondition`] when it was made under an elevation that is over.
    pub(in crate::engines) fn of_lease(view: &View, lease: &CredentialRow) -> Result<Self> {
        let subject = view.subject()?;
        let elevation = match lease.elevation {
            Some(id) => Some(subject.carries(id).ok_or_else(|| {
                Error::precondition("the elevation that the lease was made under is over")
            })?),
            None => None,
        };
        let mut best: Option<Option<UnixMillis>> = None;
        for grant in subject.grants(ACTION).filter(|grant| covers(grant, view, &lease.resource)) {
            let facts = grant.facts();
            let life = facts.conditions.max_ttl_s;
            let life = life.map(|s| lease.issued_at.plus(Duration::from_secs(s))).transpose()?;
            let end = [life, facts.expires_at].into_iter().flatten().min();
            best = Some(match best {
                None => end,
                Some(best) => best.zip(end).map(|(a, b)| a.max(b)),
            });
        }
        let of_grants = best.ok_or_else(|| {
            Error::Denied("no grant covers this lease any more; ask for one".into())
        })?;
        let ends = [of_grants, subject.identity.row.expires_at, elevation];
        Ok(Self { end: ends.into_iter().flatten().min() })
    }

    /// Cuts a moment to what is allowed.
    pub(in crate::engines) fn cap(&self, moment: UnixMillis) -> UnixMillis {
        self.end.map_or(moment, |end| end.min(moment))
    }
}

fn covers(grant: &HeldGrant, view: &View, resource: &ResourceName) -> bool {
    let facts = grant.facts();
    facts.in_force(view.now())
        && facts.resource.matches(resource.as_str())
        && facts.conditions.source_fits(view.ctx().source)
}
