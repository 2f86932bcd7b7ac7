//! What no policy can lift: the rules in code, asked after every policy, and the workers' rights.

use super::facts::{Facts, GrantFacts, GrantOrigin, IdentityFacts, ResourceFacts, is_ahead};
use super::verdict::Reason;
use crate::types::{IdentityState, Kind, UnixMillis, Verb};

/// What each worker may do: its name and the action.
pub const SYSTEM_RIGHTS: &[(&str, &str)] = &[
    ("lease_reaper", "leases.revoke"),
    ("token_reaper", "tokens.end"),
    ("elevation_keeper", "elevations.keep"),
    ("elevation_keeper", "elevations.apply-role"),
    ("ceremony_keeper", "ceremonies.expire"),
    ("lifecycle_keeper", "identities.suspend"),
    ("lifecycle_keeper", "identities.tell-end"),
    ("lifecycle_keeper", "identities.end-login"),
    ("crl_keeper", "pki.sign-crl"),
    ("notice_courier", "notices.begin"),
    ("notice_courier", "notices.deliver"),
    ("notice_keeper", "notices.purge"),
    ("notice_keeper", "notices.tell-overdue"),
    ("secret_keeper", "secrets.purge"),
    ("wrap_keeper", "wraps.purge"),
    ("federation", "issuers.login"),
    ("enrolment", "enrolments.join"),
    ("issuer_keeper", "issuers.end-sessions"),
    ("issuer_keeper", "issuers.purge"),
    ("recovery_set_keeper", "recovery_sets.wrap"),
    ("key_keeper", "keys.rotate"),
    ("key_keeper", "keys.settle"),
    ("rotation_keeper", "root.rotate"),
    ("rotation_keeper", "root.finish"),
    ("rotation_keeper", "system.settle-key"),
    ("rotation_keeper", "authorities.rotate"),
    ("rotation_keeper", "identities.rotate-key"),
    ("rotation_keeper", "identities.move-data"),
    ("rotation_keeper", "identities.finish-key"),
    ("restore", "identities.shred-again"),
    ("control_socket", "system.unseal"),
    ("control_socket", "system.recover-admin"),
    ("control_socket", "system.create-backup"),
    ("listener", "system.issue-listener"),
    ("dev", "system.renew-administrator"),
];

/// Rules by which a policy can allow something; one that names another rule has failed.
pub const RULES: &[&str] = &["self", "everybody", "holder", "owner", "administrator", "bootstrap"];

/// Checks whether a worker may do something.
pub(super) fn system_may(worker: &str, action: &str) -> bool {
    SYSTEM_RIGHTS.contains(&(worker, action))
}

/// Checks what a policy allowed once more: a dead identity does nothing, machines never
/// administer, the bootstrap certificate does two things.
///
/// Answers why it is refused all the same.
pub(super) fn objection(
    facts: &Facts<'_>,
    administrative: bool,
    identity: &IdentityFacts<'_>,
    credential_expires_at: Option<UnixMillis>,
) -> Option<Reason> {
    match identity.state {
        IdentityState::Active => {}
        IdentityState::Suspended => return Some(Reason::IdentitySuspended),
        IdentityState::Registered | IdentityState::Retired => {
            return Some(Reason::IdentityNotActive);
        }
    }
    if !is_ahead(identity.expires_at, facts.now) {
        return Some(Reason::IdentityExpired);
    }
    if !is_ahead(credential_expires_at, facts.now) {
        return Some(Reason::CredentialExpired);
    }
    if facts.resources.is_empty() {
        return Some(Reason::NothingAsked);
    }
    // For another human nobody mints, whoever asks.
    let human = |one: &ResourceFacts<'_>| one.identity.is_some_and(|it| !it.kind.is_machine());
    if facts.action == "tokens.mint" && facts.resources.iter().any(human) {
        return Some(Reason::MintForbidden);
    }
    // Nor does anybody but an administrator invite one to enrol a factor, or enrol one.
    let invites = facts.action == "factors.invite"
        || (facts.action == "enrolments.create" && facts.resources.iter().any(human));
    if invites && !identity.administrator {
        return Some(Reason::MintForbidden);
    }
    match identity.kind {
        Kind::Human => None,
        Kind::Bootstrap => {
            let fits = |one: &ResourceFacts<'_>| bootstrap_may(facts.action, identity, one);
            (!facts.resources.iter().all(fits)).then_some(Reason::BootstrapLimited)
        }
        Kind::Agent
        | Kind::Model
        | Kind::Dataset
        | Kind::Pipeline
        | Kind::Service
        | Kind::Runner
            if administrative =>
        {
            Some(Reason::MachinesNeverAdminister)
        }
        Kind::Agent
        | Kind::Model
        | Kind::Dataset
        | Kind::Pipeline
        | Kind::Service
        | Kind::Runner => {
            facts.action.starts_with("factors.").then_some(Reason::MachinesHaveNoFactors)
        }
    }
}

/// Tells whether a grant comes from an elevation that may not be used for an action: what stands by
/// itself is made by what stands.
pub(super) fn is_limited(grant: &GrantFacts<'_>, action: &str) -> bool {
    match grant.origin {
        GrantOrigin::Given => false,
        GrantOrigin::Elevation { standing } => {
            !standing && Verb::lookup(action).is_none_or(|verb| verb.standing)
        }
    }
}

fn bootstrap_may(action: &str, identity: &IdentityFacts<'_>, resource: &ResourceFacts<'_>) -> bool {
    resource.identity.is_some_and(|subject| {
        subject.kind == Kind::Human
            && match action {
                "identities.create" => subject.administrator,
                "identities.issue-cert" => {
                    !subject.has_certificate && subject.registered_by == Some(identity.id)
                }
                _ => false,
            }
    })
}
