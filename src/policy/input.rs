//! Facts to the policy's `input`, built directly as a regorus `Value`: no JSON is written or read.
//!
//! What a grant covers is matched here, by [`ResourcePattern`], and handed over as candidates of
//! each resource. The policy language has a glob of its own, but its `*`, `**`, `?`, `[…]` and
//! `{…}` mean other things than a grant's, and one pattern must have one meaning.
//!
//! [`ResourcePattern`]: crate::types::ResourcePattern

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use regorus::Value;

use super::facts::{
    CredentialFacts, FactorFacts, Facts, GrantFacts, GrantOrigin, GrantSubject, IdentityFacts,
    ResourceFacts, SignInFacts,
};
use super::facts::{SubjectFacts, is_ahead};
use crate::types::UnixMillis;

/// The grants that cover one resource, as indexes into [`Facts::grants`], best first.
pub(super) type Candidates = Vec<usize>;

macro_rules! keys {
    ($($name:ident),+ $(,)?) => {
        /// The keys of `input`, made once: a clone counts a reference instead of copying text.
        struct Keys { $($name: Value),+ }

        static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys { $($name: stringify!($name).into()),+ });
    };
}

keys! {
    action, administrative, administrator, amr, auth_time, caller, credential, enrolled_at, expires_at,
    factors, grants, granted_by, groups, has_certificate, holder, id, identity, index, issuer, kind, labels, login_fits,
    machine, method, name, not_before, now, owned, owner, owner_active, proven_at, registered_by, resource, resources,
    sign_in, signed_in, source, source_fits, state, sub, tier, vouched_by, wildcard,
}

/// Finds for each resource the grants that cover it, best first: those that hide nothing, before
/// those that mask; those that were given, before those of an elevation; the one that lets things live
/// longest, then one that holds from anywhere, then one for any login, then the one that holds
/// longest, then the oldest.
///
/// An expired grant never comes back, so it is no candidate.
pub(super) fn candidates(facts: &Facts<'_>, caller: &IdentityFacts<'_>) -> Vec<Candidates> {
    let of_caller = |grant: &GrantFacts<'_>| match grant.subject {
        GrantSubject::Identity(id) => id == caller.id,
        GrantSubject::Group(id) => caller.groups.iter().any(|group| group.id == id),
    };
    let mut usable: Vec<_> = facts
        .grants
        .iter()
        .enumerate()
        .filter(|(_, grant)| grant.action == facts.action && is_ahead(grant.expires_at, facts.now))
        .filter(|(_, grant)| of_caller(grant))
        .collect();
    usable.sort_by_key(|(_, grant)| {
        let longest = grant.conditions.max_ttl_s.unwrap_or(u64::MAX);
        let anywhere = grant.conditions.sources.is_empty();
        let anyhow = grant.conditions.login.is_none();
        let masked = !grant.conditions.masks.is_empty();
        // Whoever may do something anyway does it without an elevation.
        let elevated = grant.origin != GrantOrigin::Given;
        (
            masked,
            elevated,
            Reverse(longest),
            Reverse(anywhere),
            Reverse(anyhow),
            Reverse(end(grant.expires_at)),
            grant.id,
        )
    });
    let covering = |resource: &ResourceFacts<'_>| {
        let name = resource.name.as_str();
        let covers = |grant: &GrantFacts<'_>| grant.resource.matches(name);
        usable.iter().filter(|(_, grant)| covers(grant)).map(|(index, _)| *index).collect()
    };
    facts.resources.iter().map(covering).collect()
}

/// Builds `input` for one decision.
pub(super) fn build(
    facts: &Facts<'_>,
    administrative: bool,
    identity: &IdentityFacts<'_>,
    credential: CredentialFacts<'_>,
    candidates: &[Candidates],
) -> Value {
    let k = &*KEYS;
    let grants = facts.grants.iter().enumerate();
    let grants: Vec<Value> =
        grants.map(|(index, one)| grant(index, one, facts, credential)).collect();
    let resources: Vec<Value> = facts
        .resources
        .iter()
        .zip(candidates)
        .map(|(one, covering)| {
            let covering = covering.iter().filter_map(|index| grants.get(*index)).cloned();
            resource(one, identity, covering.collect(), facts.now)
        })
        .collect();
    let mut top = vec![
        (&k.action, facts.action.into()),
        (&k.administrative, administrative.into()),
        (&k.caller, caller(identity, facts.now)),
        (&k.credential, of_credential(credential)),
        (&k.resources, resources.into()),
        (&k.now, facts.now.0.into()),
    ];
    if let Some(source) = facts.source {
        top.push((&k.source, source.to_canonical().to_string().into()));
    }
    object(top)
}

fn of_credential(facts: CredentialFacts<'_>) -> Value {
    let k = &*KEYS;
    let mut fields = vec![
        (&k.method, facts.method.as_str().into()),
        (&k.expires_at, end(facts.expires_at).into()),
        (&k.auth_time, facts.auth_time.0.into()),
        (&k.factors, facts.factors.iter().map(factor).collect::<Vec<_>>().into()),
        (&k.signed_in, facts.sign_in.is_some().into()),
    ];
    fields.extend(facts.sign_in.map(|said| (&k.sign_in, sign_in(said))));
    object(fields)
}

fn sign_in(facts: SignInFacts<'_>) -> Value {
    let k = &*KEYS;
    let list = |texts: &[String]| -> Value {
        texts.iter().map(|text| text.as_str().into()).collect::<Vec<Value>>().into()
    };
    object(vec![
        (&k.issuer, facts.issuer.into()),
        (&k.sub, facts.sub.into()),
        (&k.groups, list(facts.groups)),
        (&k.amr, list(facts.amr)),
    ])
}

fn caller(identity: &IdentityFacts<'_>, now: UnixMillis) -> Value {
    let k = &*KEYS;
    let owner_active = identity.owner_active && is_ahead(identity.owner_expires_at, now);
    let groups: Vec<Value> =
        identity.groups.iter().map(|group| group.name.as_str().into()).collect();
    object(vec![
        (&k.id, text(identity.id)),
        (&k.name, identity.name.as_str().into()),
        (&k.kind, identity.kind.as_str().into()),
        (&k.state, identity.state.as_str().into()),
        (&k.owner, text(identity.owner)),
        (&k.owner_active, owner_active.into()),
        (&k.tier, identity.tier.as_str().into()),
        (&k.expires_at, end(identity.expires_at).into()),
        (&k.labels, labels(identity.labels)),
        (&k.groups, groups.into()),
        (&k.administrator, identity.administrator.into()),
    ])
}

fn resource(
    facts: &ResourceFacts<'_>,
    caller: &IdentityFacts<'_>,
    grants: Vec<Value>,
    now: UnixMillis,
) -> Value {
    let k = &*KEYS;
    let mut fields = vec![
        (&k.name, facts.name.as_str().into()),
        (&k.labels, labels(facts.labels)),
        (&k.grants, grants.into()),
        (&k.owned, facts.owner.is_some_and(|owner| caller.owns(owner)).into()),
    ];
    // What is unknown stays undefined, so that nothing equals it.
    fields.extend(facts.owner.map(|owner| (&k.owner, text(owner))));
    fields.extend(facts.holder.map(|holder| (&k.holder, text(holder))));
    fields.extend(facts.identity.as_ref().map(|one| (&k.identity, subject(one, now))));
    object(fields)
}

fn subject(facts: &SubjectFacts, now: UnixMillis) -> Value {
    let k = &*KEYS;
    let owner_active = facts.owner_active && is_ahead(facts.owner_expires_at, now);
    let mut fields = vec![
        (&k.kind, facts.kind.as_str().into()),
        (&k.machine, facts.kind.is_machine().into()),
        (&k.administrator, facts.administrator.into()),
        (&k.has_certificate, facts.has_certificate.into()),
        (&k.owner_active, owner_active.into()),
    ];
    fields.extend(facts.id.map(|id| (&k.id, text(id))));
    fields.extend(facts.registered_by.map(|by| (&k.registered_by, text(by))));
    object(fields)
}

fn grant(
    index: usize,
    facts: &GrantFacts<'_>,
    all: &Facts<'_>,
    credential: CredentialFacts<'_>,
) -> Value {
    let k = &*KEYS;
    object(vec![
        (&k.index, index.into()),
        (&k.id, text(facts.id)),
        (&k.resource, facts.resource.as_str().into()),
        (&k.wildcard, facts.resource.has_wildcard().into()),
        (&k.not_before, facts.not_before.map_or(i64::MIN, |from| from.0).into()),
        (&k.expires_at, end(facts.expires_at).into()),
        (&k.source_fits, facts.conditions.source_fits(all.source).into()),
        (&k.login_fits, facts.conditions.login.fit(&credential, all.now).into()),
        (&k.granted_by, text(facts.granted_by)),
    ])
}

fn factor(facts: &FactorFacts) -> Value {
    let k = &*KEYS;
    let mut fields = vec![
        (&k.id, text(facts.id)),
        (&k.kind, facts.kind.as_str().into()),
        (&k.proven_at, facts.proven_at.0.into()),
        (&k.enrolled_at, facts.enrolled_at.0.into()),
    ];
    fields.extend(facts.vouched_by.map(|by| (&k.vouched_by, text(by))));
    object(fields)
}

/// A moment that may be never; never is the last there is.
fn end(at: Option<UnixMillis>) -> i64 {
    at.map_or(i64::MAX, |at| at.0)
}

fn text(id: impl std::fmt::Display) -> Value {
    id.to_string().into()
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    let pair = |(key, value): (&String, &String)| (key.as_str().into(), value.as_str().into());
    labels.iter().map(pair).collect::<BTreeMap<Value, Value>>().into()
}

fn object(fields: Vec<(&Value, Value)>) -> Value {
    fields.into_iter().map(|(key, value)| (key.clone(), value)).collect::<BTreeMap<_, _>>().into()
}
