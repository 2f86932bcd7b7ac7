//! Each rule of the built-in policy, once for and once against.

use super::*;
use crate::types::VERBS;

const READER: &str = "database/analytics/reader";
const MACHINES: [Kind; 6] =
    [Kind::Agent, Kind::Model, Kind::Dataset, Kind::Pipeline, Kind::Service, Kind::Runner];

#[test]
fn nothing_is_allowed_by_default() {
    // What is public, what shows each only what it may use, and what the role of an elevation
    // decides, which its engine looks at.
    let everybody = [
        "identities.whoami",
        "records.checkpoint",
        "pki.ca",
        "pki.crl",
        "secrets.list",
        "secrets.search",
        "keys.list",
        "keys.random",
        "wraps.unwrap",
    ];
    let by_its_role = [
        "elevations.show-role",
        "elevations.list-roles",
        "elevations.request",
        "elevations.list",
        "elevations.watch",
        "elevations.show",
        "elevations.approve",
        "elevations.deny",
        "elevations.review",
    ];
    let elsewhere = |action| everybody.contains(&action) || by_its_role.contains(&action);
    for verb in VERBS.iter().filter(|verb| !elsewhere(verb.action)) {
        for kind in Kind::ALL {
            let verdict = scene(*kind, verb.action, thing("database/analytics/reader")).decide();
            assert!(!verdict.allow, "{kind} may {}: {}", verb.action, verdict.by);
        }
    }
    refused(&pipeline("database.credentials", thing(READER)), Reason::NoGrant);
    refused(&pipeline("database.drop-everything", thing(READER)), Reason::UnknownAction);
    let nothing = pipeline("pki.ca", thing(READER)).with(|scene| scene.things.clear());
    refused(&nothing, Reason::NothingAsked);
}

#[test]
fn an_identity_may_ask_who_it_is_and_nobody_elses() {
    let me = thing("identities/ci/nightly-etl").is(|subject| subject.id = Some(CALLER));
    let other = thing("identities/other").is(|subject| subject.id = Some(OTHER));
    for kind in MACHINES.into_iter().chain([Kind::Human]) {
        allowed_by(&scene(kind, "identities.whoami", me.clone()), "self");
        refused(&scene(kind, "identities.whoami", other.clone()), Reason::NoGrant);
    }
    refused(&pipeline("identities.whoami", thing("identities/unknown")), Reason::NoGrant);
    let both = pipeline("identities.whoami", me).with(|scene| scene.things.push(other));
    refused(&both, Reason::NoGrant);
}

#[test]
fn what_is_for_all_is_for_every_active_identity() {
    for (action, name) in
        [("records.checkpoint", "records/checkpoint"), ("pki.ca", "pki/authorities")]
    {
        for kind in MACHINES.into_iter().chain([Kind::Human]) {
            allowed_by(&scene(kind, action, thing(name)), "everybody");
        }
        refused(&scene(Kind::Bootstrap, action, thing(name)), Reason::BootstrapLimited);
    }
}

#[test]
fn a_dead_identity_does_nothing() {
    type Change = fn(&mut Scene);
    let deaths: [(Change, Reason); 5] = [
        (|scene| scene.state = IdentityState::Suspended, Reason::IdentitySuspended),
        (|scene| scene.expires_at = Some(NOW), Reason::IdentityExpired),
        (|scene| scene.expires_at = Some(at(-1)), Reason::IdentityExpired),
        (|scene| scene.credential_expires_at = Some(NOW), Reason::CredentialExpired),
        (|scene| scene.credential_expires_at = Some(at(-1)), Reason::CredentialExpired),
    ];
    let me = thing("identities/ci/nightly-etl").is(|subject| subject.id = Some(CALLER));
    let new = thing("identities/ada").is(|subject| subject.administrator = true);
    let living = [
        pipeline("identities.whoami", me),
        pipeline("pki.ca", thing("pki/authorities")),
        pipeline("leases.revoke", thing("leases/database/analytics/reader").held(CALLER)),
        pipeline("database.credentials", thing(READER)).granted(given(
            9,
            "database.credentials",
            READER,
        )),
        administrator("system.seal", thing("system/seal")),
        scene(Kind::Bootstrap, "identities.create", new),
    ];
    for scene in living {
        assert!(scene.decide().allow, "{} of the living", scene.action);
        for (kill, reason) in deaths {
            refused(&scene.clone().with(kill), reason);
        }
    }
}

#[test]
fn a_holder_may_list_renew_and_revoke_its_own_and_no_others() {
    for action in ["leases.list", "leases.renew", "leases.revoke", "pki.list", "wraps.revoke"] {
        let lease = thing("leases/database/analytics/reader");
        allowed_by(&pipeline(action, lease.clone().held(CALLER)), "holder");
        allowed_by(&administrator(action, lease.clone().held(OTHER)), "administrator");
        refused(&pipeline(action, lease.clone().held(OTHER)), Reason::NotHolder);
        refused(&human(action, lease.clone()), Reason::NotHolder);
        let mixed = pipeline(action, lease.clone().held(CALLER))
            .with(|scene| scene.things.push(lease.clone().held(OTHER)));
        refused(&mixed, Reason::NotHolder);
        let owner = human(action, lease.clone().held(OTHER).owned(CALLER));
        if action == "leases.renew" {
            refused(&owner, Reason::NotHolder);
        } else {
            allowed_by(&owner, "owner");
        }
        // A machine does not become an administrator by being put into the group.
        let machine = pipeline(action, lease.held(OTHER)).with(|scene| scene.administrator = true);
        refused(&machine, Reason::NotHolder);
    }
}

#[test]
fn administrators_hold_every_administrative_action_and_nothing_else() {
    for verb in VERBS {
        let target = thing("groups/target").is(|subject| subject.kind = Kind::Pipeline);
        if verb.administrative {
            allowed_by(&administrator(verb.action, target.clone()), "administrator");
            let mints =
                ["identities.issue-cert", "tokens.mint", "factors.invite", "enrolments.create"];
            let mints = mints.contains(&verb.action);
            let reason = if mints { Reason::MintForbidden } else { Reason::NotAdministrator };
            refused(&human(verb.action, target), reason);
        }
    }
    refused(&administrator("database.credentials", thing(READER)), Reason::NoGrant);
    refused(&administrator("pki.sign", thing("pki/web")), Reason::NoGrant);
}

#[test]
fn humans_have_their_own_factors_and_machines_none_whatever_is_granted() {
    let own = || thing("factors/target").is(|subject| subject.id = Some(CALLER)).held(CALLER);
    let other = || thing("factors/target").is(|_| {}).held(OTHER);
    for action in ["enrol", "confirm", "recovery-codes", "verify", "remove"] {
        let verb = VERBS.iter().find(|verb| verb.action == format!("factors.{action}")).unwrap();
        allowed_by(&human(verb.action, own()), "self");
        refused(&human(verb.action, other()), Reason::NoGrant);
    }
    allowed_by(&human("factors.list", own()), "holder");
    refused(&human("factors.list", other()), Reason::NotHolder);
    allowed_by(&administrator("factors.list", other()), "administrator");
    let granted = human("factors.invite", other());
    refused(&granted.granted(given(9, "factors.invite", "factors/target")), Reason::MintForbidden);
    for verb in VERBS.iter().filter(|verb| verb.action.starts_with("factors.")) {
        for kind in MACHINES.into_iter().filter(|_| !verb.administrative) {
            let scene = scene(kind, verb.action, own());
            let scene = scene.granted(given(9, verb.action, "factors/target"));
            refused(&scene, Reason::MachinesHaveNoFactors);
        }
    }
}

#[test]
fn nobody_mints_a_token_for_another_human() {
    let target = || thing("tokens/target").is(|subject| subject.kind = Kind::Human);
    refused(&administrator("tokens.mint", target()), Reason::MintForbidden);
    refused(&human("tokens.mint", target().owned(CALLER)), Reason::MintForbidden);
    let machine = thing("tokens/target").is(|subject| subject.kind = Kind::Runner);
    allowed_by(&human("tokens.mint", machine.owned(CALLER)), "owner");
}

#[test]
fn machines_never_administer_whatever_grants_and_groups_say() {
    for verb in VERBS.iter().filter(|verb| verb.administrative) {
        for kind in MACHINES {
            let target = thing("groups/target").owned(CALLER).held(CALLER);
            let scene = scene(kind, verb.action, target)
                .granted(given(9, verb.action, "groups/target"))
                .granted(given(8, verb.action, "groups/**"))
                .with(|scene| scene.administrator = true);
            refused(&scene, Reason::MachinesNeverAdminister);
        }
    }
}

#[test]
fn an_owner_shows_and_mints_for_its_machine_and_for_no_human() {
    let machine = thing("identities/etl").owned(CALLER).is(|it| it.kind = Kind::Pipeline);
    let person = thing("identities/bob").owned(CALLER).is(|it| it.kind = Kind::Human);
    let foreign = thing("identities/etl").owned(OTHER).is(|it| it.kind = Kind::Pipeline);
    for action in ["identities.show", "identities.issue-cert", "enrolments.create"] {
        allowed_by(&human(action, machine.clone()), "owner");
        refused(&pipeline(action, machine.clone()), Reason::MachinesNeverAdminister);
        let both = human(action, machine.clone()).with(|scene| scene.things.push(foreign.clone()));
        assert!(!both.decide().allow, "{action} of one own and one foreign machine");
    }
    allowed_by(&human("identities.show", person.clone()), "owner");
    refused(&human("identities.issue-cert", person.clone()), Reason::MintForbidden);
    refused(&human("enrolments.create", person.clone()), Reason::MintForbidden);
    allowed_by(&administrator("enrolments.create", person), "administrator");
    refused(&human("identities.issue-cert", foreign.clone()), Reason::MintForbidden);
    refused(&human("identities.show", foreign.clone()), Reason::NotAdministrator);
    for action in ["identities.suspend", "identities.resume", "identities.create"] {
        refused(&human(action, machine.clone()), Reason::NotAdministrator);
    }
    // Not even an exact grant mints for somebody else.
    let granted = human("identities.issue-cert", foreign).granted(given(
        9,
        "identities.issue-cert",
        "identities/etl",
    ));
    refused(&granted, Reason::MintForbidden);
}

#[test]
fn a_stranger_hears_the_same_of_what_exists_and_of_what_does_not() {
    for action in ["identities.issue-cert", "identities.show", "leases.revoke", "pki.sign"] {
        let there = thing("identities/etl").owned(OTHER).held(OTHER).is(|it| {
            it.kind = Kind::Pipeline;
            it.owner_active = false;
        });
        let there = human(action, there).decide();
        let absent = human(action, thing("identities/etl")).decide();
        assert_eq!(there, absent, "{action}");
    }
}

#[test]
fn an_identity_without_an_active_owner_receives_nothing_new() {
    for (action, name) in [
        ("database.credentials", READER),
        ("pki.issue", "pki/web"),
        ("pki.sign", "pki/web"),
        ("leases.renew", READER),
        ("tokens.create", "tokens/etl"),
        ("tokens.renew", "tokens/etl"),
        ("secrets.get", "secrets/app/key"),
        ("elevations.activate", "elevations/fix"),
        ("elevations.extend", "elevations/fix"),
    ] {
        let scene = pipeline(action, thing(name).held(CALLER)).granted(given(9, action, name));
        assert!(scene.decide().allow, "{action} with an active owner");
        refused(&scene.clone().with(|scene| scene.owner_active = false), Reason::OwnerInactive);
        let ends = |at| scene.clone().with(|scene| scene.owner_expires_at = Some(at));
        refused(&ends(NOW), Reason::OwnerInactive);
        assert_eq!(ends(at(5)).decide().valid_until, Some(at(5)), "{action}");
    }
    let revoke = pipeline("leases.revoke", thing(READER).held(CALLER));
    allowed_by(&revoke.with(|scene| scene.owner_active = false), "holder");
    let orphan = thing("identities/etl").is(|it| {
        it.kind = Kind::Pipeline;
        it.owner_active = false;
    });
    refused(&administrator("identities.issue-cert", orphan.clone()), Reason::SubjectOwnerInactive);
    allowed_by(&administrator("identities.show", orphan), "administrator");
    let ended = thing("identities/etl").is(|it| it.owner_expires_at = Some(NOW));
    refused(&administrator("identities.issue-cert", ended), Reason::SubjectOwnerInactive);
}

#[test]
fn the_bootstrap_certificate_registers_administrators_and_signs_their_first_request() {
    let bootstrap = |action, thing| scene(Kind::Bootstrap, action, thing);
    let person = |change: fn(&mut SubjectFacts)| thing("identities/ada").is(change);
    let create = "identities.create";
    let sign = "identities.issue-cert";
    allowed_by(&bootstrap(create, person(|it| it.administrator = true)), "bootstrap");
    allowed_by(&bootstrap(sign, person(|it| it.registered_by = Some(CALLER))), "bootstrap");
    for (action, bad) in [
        (create, person(|it| it.administrator = false)),
        (create, thing("identities/ada")),
        (
            create,
            person(|it| {
                it.administrator = true;
                it.kind = Kind::Service;
            }),
        ),
        (sign, person(|it| it.registered_by = Some(OTHER))),
        (sign, person(|it| it.registered_by = None)),
        (
            sign,
            person(|it| {
                it.registered_by = Some(CALLER);
                it.has_certificate = true;
            }),
        ),
        (
            sign,
            person(|it| {
                it.registered_by = Some(CALLER);
                it.kind = Kind::Pipeline;
            }),
        ),
    ] {
        refused(&bootstrap(action, bad), Reason::BootstrapLimited);
    }
    for verb in VERBS.iter().filter(|verb| verb.action != create && verb.action != sign) {
        let me = thing("groups/target").held(CALLER).owned(CALLER).is(|it| it.id = Some(CALLER));
        let scene = bootstrap(verb.action, me)
            .granted(given(9, verb.action, "groups/target"))
            .with(|scene| scene.administrator = true);
        refused(&scene, Reason::BootstrapLimited);
    }
}

#[test]
fn workers_do_what_their_list_says_and_no_more() {
    let policy = Policy::builtin().unwrap();
    for (worker, action, allow) in [
        ("lease_reaper", "leases.revoke", true),
        ("lease_reaper", "pki.sign", false),
        ("lease_reaper", "leases.renew", false),
        ("lease_reaper", "system.seal", false),
        ("reaper", "leases.revoke", false),
        ("", "leases.revoke", false),
    ] {
        let scene = human(action, thing(READER)).granted(given(9, action, READER));
        let verdict = scene.decide_as(&policy, CallerFacts::System(worker));
        assert_eq!(verdict.allow, allow, "{worker} {action}");
        let by = if allow { "system" } else { "system_limited" };
        assert_eq!(verdict.by, Basis::Rule(by), "{worker} {action}");
    }
}

#[test]
fn no_combination_of_facts_lets_anybody_but_a_human_administer() {
    let relations: [fn(Thing) -> Thing; 4] = [
        |it| it,
        |it| it.owned(CALLER).is(|subject| subject.kind = Kind::Pipeline),
        |it| it.held(CALLER).is(|subject| subject.id = Some(CALLER)),
        |it| it.is(|subject| subject.administrator = true),
    ];
    for verb in VERBS.iter().filter(|verb| verb.administrative) {
        for kind in [Kind::Human, Kind::Bootstrap, Kind::Agent] {
            for (administrator, relate) in relations.iter().flat_map(|it| [(true, it), (false, it)])
            {
                for pattern in ["groups/other", "groups/target", "groups/**"] {
                    let scene = scene(kind, verb.action, relate(thing("groups/target")))
                        .granted(given(9, verb.action, pattern))
                        .with(|scene| scene.administrator = administrator);
                    let verdict = scene.decide();
                    let bootstrap = verdict.by == Basis::Rule("bootstrap");
                    // Looking at oneself administers nothing.
                    let itself = verdict.by == Basis::Rule("self");
                    assert!(!itself || verb.action == "identities.show", "{scene:?}");
                    let human = kind == Kind::Human;
                    assert!(!verdict.allow || human || bootstrap || itself, "{scene:?}");
                    let by_wildcard =
                        matches!(verdict.by, Basis::Grants(_)) && pattern != "groups/target";
                    assert!(!by_wildcard, "{scene:?}");
                }
            }
        }
    }
}

#[test]
fn the_humans_of_a_group_act_as_the_owner_that_it_is_and_machines_in_it_do_not() {
    let machine = |by: GroupId| {
        thing("identities/etl").owned(Owner::Group(by)).is(|it| it.kind = Kind::Pipeline)
    };
    let other = GroupId(id(51));
    for action in
        ["identities.show", "identities.holdings", "identities.issue-cert", "identities.transfer"]
    {
        allowed_by(&human(action, machine(TEAM)), "owner");
        assert!(!human(action, machine(other)).decide().allow, "{action} of another group");
        let left = human(action, machine(TEAM)).with(|scene| scene.member = false);
        assert!(!left.decide().allow, "{action} after leaving");
        refused(&pipeline(action, machine(TEAM)), Reason::MachinesNeverAdminister);
    }
    let lease = || thing(READER).held(OTHER).owned(Owner::Group(TEAM));
    allowed_by(&human("leases.revoke", lease()), "owner");
    refused(&pipeline("leases.revoke", lease()), Reason::NotHolder);
}

#[test]
fn who_is_retired_or_holds_no_credential_yet_does_nothing() {
    for state in [IdentityState::Registered, IdentityState::Retired] {
        let scene =
            human("identities.whoami", thing("identities/carol").is(|it| it.id = Some(CALLER)));
        allowed_by(&scene, "self");
        refused(&scene.with(|scene| scene.state = state), Reason::IdentityNotActive);
    }
}
