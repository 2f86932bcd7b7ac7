//! How somebody logged in: what grants want of it, and what follows from a person's signing in.

use super::*;

const CREDS: &str = "database.credentials";
const READER: &str = "database/analytics/reader";

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|&one| one.to_owned()).collect()
}

fn wanting(id: u8, change: impl FnOnce(&mut LoginTerms)) -> Given {
    let mut given = given(id, CREDS, READER);
    change(&mut given.conditions.login);
    given
}

fn signed_in(amr: &[&str], groups: &[&str]) -> Scene {
    let sign_in = Some((texts(amr), texts(groups)));
    human(CREDS, thing(READER)).with(|scene| {
        scene.sign_in = sign_in;
        scene.method = AuthMethod::Token { certificate: None };
    })
}

#[test]
fn a_grant_counts_for_whoever_logged_in_as_it_wants() {
    let aged = || wanting(9, |login| login.max_auth_age_s = Some(600));
    let by = || wanting(9, |login| login.amr = texts(&["otp", "hwk"]));
    let of = || wanting(9, |login| login.groups = texts(&["dba"]));
    let anybody = || human(CREDS, thing(READER));
    let seen = |ms: i64| anybody().with(|scene| scene.auth_time = at(ms));
    for (scene, grant, fits) in [
        (seen(0), aged(), true),
        (seen(-599_999), aged(), true),
        (seen(-600_000), aged(), false),
        (signed_in(&["pwd", "hwk"], &[]), by(), true),
        (signed_in(&["pwd"], &["otp"]), by(), false),
        (signed_in(&[], &[]), by(), false),
        (anybody(), by(), false),
        (signed_in(&["pwd"], &["dba", "x"]), of(), true),
        (signed_in(&["dba"], &["x"]), of(), false),
        (signed_in(&[], &["DBA"]), of(), false),
        (anybody(), of(), false),
    ] {
        let scene = scene.granted(grant);
        if fits {
            allowed_by_grant(&scene, &[9]);
        } else {
            refused(&scene, Reason::LoginUnfit);
        }
        assert!(scene.decide().depends_on_login);
        // One that wants nothing is enough, and comes first.
        let free = scene.granted(given(8, CREDS, READER));
        allowed_by_grant(&free, &[8]);
        assert!(!free.decide().depends_on_login);
    }
    let verdict = seen(-1_000).granted(aged()).decide();
    assert_eq!(verdict.valid_until, Some(at(599_000)));
}

#[test]
fn the_handle_of_a_lease_shows_nobody() {
    let terms = LoginTerms { max_auth_age_s: Some(600), ..LoginTerms::default() };
    let credential = |method| CredentialFacts {
        method,
        expires_at: None,
        auth_time: NOW,
        factors: &[],
        sign_in: None,
    };
    assert!(terms.fit(&credential(AuthMethod::Token { certificate: None }), NOW));
    assert!(!terms.fit(&credential(AuthMethod::Handle), NOW));
    assert!(LoginTerms::default().fit(&credential(AuthMethod::Handle), NOW));
}

#[test]
fn whoever_signed_in_gets_a_login_certificate_for_themselves_alone() {
    let action = "identities.issue-cert";
    let own = thing("identities/ci/nightly-etl").is(|subject| subject.id = Some(CALLER));
    let other = thing("identities/other").is(|subject| subject.id = Some(OTHER));
    let ask = |thing: &Thing| {
        signed_in(&[], &[]).with(|scene| {
            scene.action = action;
            scene.things = vec![thing.clone()];
        })
    };
    allowed_by(&ask(&own), "self");
    refused(&ask(&other), Reason::MintForbidden);
    refused(&ask(&own).with(|scene| scene.sign_in = None), Reason::MintForbidden);
    // The certificate that they got with it is no session.
    let by_certificate = AuthMethod::Mtls { fingerprint: [7; 32] };
    refused(&ask(&own).with(|scene| scene.method = by_certificate), Reason::MintForbidden);
    let machine = ask(&own).with(|scene| scene.kind = Kind::Pipeline);
    refused(&machine, Reason::MachinesNeverAdminister);
}

#[test]
fn what_wants_less_of_a_login_is_not_passed_on() {
    let terms = |age_s: Option<u64>, amr: &[&str], groups: &[&str]| LoginTerms {
        max_auth_age_s: age_s,
        amr: texts(amr),
        groups: texts(groups),
    };
    let held = terms(Some(600), &["otp", "hwk"], &["dba"]);
    for (narrow, fits) in [
        (held.clone(), true),
        (terms(Some(60), &["hwk"], &["dba"]), true),
        (terms(Some(601), &["hwk"], &["dba"]), false),
        (terms(None, &["hwk"], &["dba"]), false),
        (terms(Some(60), &[], &["dba"]), false),
        (terms(Some(60), &["hwk", "pwd"], &["dba"]), false),
        (terms(Some(60), &["hwk"], &[]), false),
    ] {
        assert_eq!(narrow.is_within(&held), fits, "{narrow:?}");
        assert!(narrow.is_within(&LoginTerms::default()));
    }
}
