//! Decides: facts in, a verdict out. The rules are `builtin.rego`, evaluated on regorus's register
//! VM; what no policy may lift is in `guard`. `docs/authorization.md` tells all of it in prose.
//!
//! Deny by default: an error, a timeout and an answer that means nothing are refusals. Knows
//! neither engines nor the store: whoever asks brings the facts, and caches the verdict.

mod cidr;
mod facts;
mod grant;
mod guard;
mod input;
mod machine;
mod mask;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

pub use cidr::Cidr;
pub use facts::{
    CallerFacts, Conditions, CredentialFacts, FactorFacts, Facts, GrantFacts, GrantOrigin,
    GrantSubject, GroupFacts, IdentityFacts, LoginTerms, ResourceFacts, SignInFacts, SubjectFacts,
};
pub use grant::{Granter, Proposal, Receiver};
pub use guard::{RULES, SYSTEM_RIGHTS};
pub use mask::{Mask, MaskHow};
pub use verdict::{Basis, Obligations, Reason, Verdict};

use crate::error::Result;
use crate::types::{UnixMillis, Verb};
use input::Candidates;
use machine::{Answer, Machine};

/// A compiled policy, shared by all who decide.
#[derive(Debug)]
pub struct Policy {
    machine: Machine,
}

impl Policy {
    /// Compiles the built-in policy.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when it does not compile, which its tests exclude.
    pub fn builtin() -> Result<Self> {
        Self::from_source(include_str!("builtin.rego"), machine::TIME_LIMIT)
    }

    fn from_source(source: &str, time_limit: Duration) -> Result<Self> {
        Ok(Self { machine: Machine::compile(source, time_limit)? })
    }

    /// Decides. Takes some tens of microseconds and touches nothing outside.
    #[must_use]
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        let (identity, credential) = match facts.caller {
            // Some of what the vault does itself is no verb that anybody else could ask for.
            CallerFacts::System(worker) => return of_system(worker, facts),
            CallerFacts::Identity { identity, credential } => (identity, credential),
        };
        let Some(verb) = Verb::lookup(facts.action) else {
            return Verdict::refuse(Reason::UnknownAction, None);
        };
        // Whoever looks at itself administers nothing.
        let of_itself = facts.action == "identities.show"
            && facts
                .resources
                .iter()
                .all(|one| one.identity.and_then(|it| it.id) == Some(identity.id));
        let administrative = (facts.administrative || verb.administrative) && !of_itself;
        self.of_identity(facts, administrative, identity, credential)
    }

    fn of_identity(
        &self,
        facts: &Facts<'_>,
        administrative: bool,
        identity: &IdentityFacts<'_>,
        credential: CredentialFacts<'_>,
    ) -> Verdict {
        let candidates = input::candidates(facts, identity);
        let input = input::build(facts, administrative, identity, credential, &candidates);
        let failed = || Verdict::refuse(Reason::PolicyFailed, Some(facts.now));
        let answer = match self.machine.run(input) {
            Ok(answer) => answer,
            Err(cause) => {
                tracing::error!(%cause, action = facts.action, "the policy could not be evaluated");
                return failed();
            }
        };
        let ends = ends(facts, identity, credential);
        let verdict = match answer {
            Answer::Refuse(text) => Reason::lookup_refusal(&text).map(|reason| {
                refused(facts, reason, &candidates, earliest(facts.now, ends.iter().copied()))
            }),
            Answer::Rule(name) => RULES.iter().find(|rule| ***rule == *name).map(|rule| Verdict {
                allow: true,
                reason: Reason::Allowed,
                by: Basis::Rule(rule),
                valid_until: earliest(facts.now, ends.iter().copied()),
                obligations: Obligations::default(),
                depends_on_source: false,
                depends_on_login: false,
            }),
            Answer::Grants(chosen) => {
                granted(facts, credential, administrative, &chosen, &candidates, ends)
            }
        };
        let Some(verdict) = verdict else {
            tracing::error!(action = facts.action, "the policy's answer means nothing");
            return failed();
        };
        let objection = guard::objection(facts, administrative, identity, credential.expires_at);
        match objection.filter(|_| verdict.allow) {
            Some(reason) => Verdict::refuse(reason, verdict.valid_until),
            None => verdict,
        }
    }
}

/// Gathers the moments at which something ends that any decision stands on.
fn ends(
    facts: &Facts<'_>,
    identity: &IdentityFacts<'_>,
    credential: CredentialFacts<'_>,
) -> Vec<UnixMillis> {
    let owners = facts.resources.iter().filter_map(|one| one.identity?.owner_expires_at);
    [identity.expires_at, identity.owner_expires_at, credential.expires_at]
        .into_iter()
        .flatten()
        .chain(owners)
        .collect()
}

fn of_system(worker: &str, facts: &Facts<'_>) -> Verdict {
    if facts.resources.is_empty() {
        return Verdict::refuse(Reason::NothingAsked, None);
    }
    if !guard::system_may(worker, facts.action) {
        return Verdict::refuse(Reason::SystemLimited, None);
    }
    Verdict {
        allow: true,
        reason: Reason::Allowed,
        by: Basis::Rule("system"),
        valid_until: None,
        obligations: Obligations::default(),
        depends_on_source: false,
        depends_on_login: false,
    }
}

/// A refusal stands until a candidate comes into force, and may not stand for another source.
fn refused(
    facts: &Facts<'_>,
    reason: Reason,
    candidates: &[Candidates],
    valid_until: Option<UnixMillis>,
) -> Verdict {
    let of = candidates.iter().flatten().filter_map(|index| facts.grants.get(*index));
    let mut verdict = Verdict::refuse(reason, valid_until);
    for grant in of {
        verdict.depends_on_source |= !grant.conditions.sources.is_empty();
        verdict.depends_on_login |= !grant.conditions.login.is_none();
        verdict.valid_until =
            earliest(facts.now, verdict.valid_until.into_iter().chain(grant.not_before));
    }
    verdict
}

/// Makes the verdict on chosen grants; `None` where one is no candidate of its resource, is not in
/// force or is not exact enough, because then the policy is wrong.
fn granted(
    facts: &Facts<'_>,
    credential: CredentialFacts<'_>,
    administrative: bool,
    chosen: &[usize],
    candidates: &[Candidates],
    mut bounds: Vec<UnixMillis>,
) -> Option<Verdict> {
    if chosen.len() != candidates.len() {
        return None;
    }
    let (mut ids, mut depends_on_source, mut max_ttl_s) = (Vec::new(), false, None::<u64>);
    let (mut limited, mut masks, mut depends_on_login) = (false, Vec::new(), false);
    for (index, of) in chosen.iter().zip(candidates) {
        let rank = of.iter().position(|candidate| candidate == index)?;
        let grant = facts.grants.get(*index)?;
        let exact = !administrative || !grant.resource.has_wildcard();
        let login = &grant.conditions.login;
        if !exact
            || !grant.in_force(facts.now)
            || !grant.conditions.source_fits(facts.source)
            || !login.fit(&credential, facts.now)
        {
            return None;
        }
        // A better grant that does not hold yet, or not from here, would change the verdict.
        for better in of.iter().take(rank).filter_map(|index| facts.grants.get(*index)) {
            depends_on_source |= !better.conditions.sources.is_empty();
            depends_on_login |= !better.conditions.login.is_none();
            bounds.extend(better.not_before);
        }
        depends_on_source |= !grant.conditions.sources.is_empty();
        depends_on_login |= !login.is_none();
        bounds.extend(grant.expires_at.into_iter().chain(login.ends(credential.auth_time)));
        limited |= guard::is_limited(grant, facts.action);
        max_ttl_s = max_ttl_s.into_iter().chain(grant.conditions.max_ttl_s).min();
        if !ids.contains(&grant.id) {
            ids.push(grant.id);
            masks.extend_from_slice(&grant.conditions.masks);
        }
    }
    if limited {
        return Some(Verdict::refuse(Reason::ElevationLimited, earliest(facts.now, bounds)));
    }
    Some(Verdict {
        allow: true,
        reason: Reason::Allowed,
        by: Basis::Grants(ids),
        valid_until: earliest(facts.now, bounds),
        obligations: Obligations { max_ttl_s, masks },
        depends_on_source,
        depends_on_login,
    })
}

/// The earliest of the moments that lie ahead.
fn earliest(now: UnixMillis, moments: impl IntoIterator<Item = UnixMillis>) -> Option<UnixMillis> {
    moments.into_iter().filter(|at| *at > now).min()
}
