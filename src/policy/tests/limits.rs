//! What happens when a policy fails: nothing is allowed.

use std::time::Instant;

use super::*;
use crate::types::{FactorId, FactorKind, VERBS};

const CREDS: &str = "database.credentials";
const READER: &str = "database/analytics/reader";

fn policy(rules: &str) -> Policy {
    let source = format!("package strongroom\nimport rego.v1\n{rules}\n");
    Policy::from_source(&source, machine::TIME_LIMIT).unwrap()
}

#[test]
fn what_means_nothing_is_a_refusal_that_is_not_kept() {
    for rules in [
        "decision := {\"rule\": \"self\"} if input.nowhere == 1",
        "decision := true",
        "decision := \"allow\"",
        "decision := {}",
        "decision := {\"allow\": true}",
        "decision := {\"rule\": \"self\", \"grants\": [0]}",
        "decision := {\"rule\": \"no such rule\"}",
        "decision := {\"rule\": \"system\"}",
        "decision := {\"rule\": [\"self\"]}",
        "decision := {\"refuse\": \"no such reason\"}",
        "decision := {\"refuse\": \"allowed\"}",
        "decision := {\"grants\": []}",
        "decision := {\"grants\": [1]}",
        "decision := {\"grants\": [-1]}",
        "decision := {\"grants\": [0, 0]}",
        "decision := {\"grants\": [0.5]}",
        "decision := {\"grants\": \"0\"}",
        "decision := {\"rule\": \"self\"} if to_number(input.action) == 1",
        "decision := {\"rule\": \"self\"} if input.nowhere != 1",
        "decision := {\"rule\": input.nowhere}",
    ] {
        let verdict = pipeline(CREDS, thing(READER))
            .granted(given(9, CREDS, READER))
            .decide_by(&policy(rules));
        assert!(!verdict.allow, "{rules}");
        assert_eq!(verdict.reason, Reason::PolicyFailed, "{rules}");
        assert_eq!(verdict.valid_until, Some(NOW), "{rules}");
    }
}

#[test]
fn what_does_not_compile_is_refused_at_the_door() {
    for source in [
        "",
        "package strongroom",
        "package other\nimport rego.v1\ndecision := {\"rule\": \"self\"}",
        "package strongroom\nimport rego.v1\ndecision := {\"rule\": nobody}",
        "package strongroom\nimport rego.v1\ndecision := no.such.function(1)",
        "package strongroom\nimport rego.v1\ndecision := http.send({})",
        "package strongroom\nimport rego.v1\ndecision := opa.runtime()",
        "package strongroom\nimport rego.v1\ndecision := input with input.x as 1",
    ] {
        assert!(Policy::from_source(source, machine::TIME_LIMIT).is_err(), "{source:?}");
    }
}

#[test]
fn a_policy_that_never_ends_is_cut_by_the_time_limit() {
    let endless = policy(
        "decision := {\"rule\": \"self\"} if {
            some a in numbers.range(1, 1000)
            some b in numbers.range(1, 1000)
            some c in numbers.range(1, 1000)
            a + b + c == 0
        }",
    );
    let began = Instant::now();
    let verdict = pipeline(CREDS, thing(READER)).decide_by(&endless);
    assert_eq!(verdict.reason, Reason::PolicyFailed);
    assert!(began.elapsed().as_secs() < 5, "took {:?}", began.elapsed());
    assert!(matches!(
        endless.machine.run(Value::new_object()),
        Err(machine::Fault::Stopped(regorus::rvm::vm::VmError::TimeLimitExceeded { .. }))
    ));
}

#[test]
fn no_policy_lifts_what_stands_in_code() {
    let everything = policy("decision := {\"rule\": \"administrator\"}");
    let seal = |kind| scene(kind, "system.seal", thing("system/seal"));
    let wide = given(9, "system.seal", "system/*");
    for (scene, reason) in [
        (seal(Kind::Pipeline), Reason::MachinesNeverAdminister),
        (seal(Kind::Agent), Reason::MachinesNeverAdminister),
        (seal(Kind::Bootstrap), Reason::BootstrapLimited),
        (
            seal(Kind::Human).with(|scene| scene.state = IdentityState::Suspended),
            Reason::IdentitySuspended,
        ),
        (seal(Kind::Human).with(|scene| scene.expires_at = Some(NOW)), Reason::IdentityExpired),
        (
            seal(Kind::Human).with(|scene| scene.credential_expires_at = Some(NOW)),
            Reason::CredentialExpired,
        ),
        (seal(Kind::Human).with(|scene| scene.things.clear()), Reason::NothingAsked),
    ] {
        let verdict = scene.decide_by(&everything);
        assert_eq!((verdict.allow, verdict.reason), (false, reason));
    }
    // A policy cannot make a wildcard, an ended grant or a foreign address count either.
    let first = policy("decision := {\"grants\": [0]}");
    let ended = given(9, CREDS, READER).until(NOW);
    let early = given(9, CREDS, READER).from(at(1));
    let elsewhere = given(9, CREDS, READER).within("192.0.2.0/24");
    let other = given(9, CREDS, "database/analytics/writer");
    for scene in [
        seal(Kind::Human).granted(wide),
        pipeline(CREDS, thing(READER)).granted(ended),
        pipeline(CREDS, thing(READER)).granted(early),
        pipeline(CREDS, thing(READER)).granted(elsewhere),
        pipeline(CREDS, thing(READER)).granted(other),
    ] {
        let verdict = scene.decide_by(&first);
        assert_eq!((verdict.allow, verdict.reason), (false, Reason::PolicyFailed));
    }
    let exact = pipeline(CREDS, thing(READER)).granted(given(9, CREDS, READER));
    assert!(exact.decide_by(&first).allow, "the same policy on a grant that holds");
}

#[test]
fn every_reason_says_what_to_do_in_the_style_of_errors() {
    let page = include_str!("../../../docs/authorization.md");
    for reason in Reason::ALL {
        let row = format!("| `{reason}` | {} |", reason.advice("ACTION"));
        assert!(*reason == Reason::Allowed || page.contains(&row), "the page lacks {row}");
        let advice = reason.advice(CREDS);
        assert!(advice.starts_with(char::is_lowercase), "{advice}");
        assert!(!advice.ends_with('.'), "{advice}");
        assert_eq!(Reason::lookup_refusal(reason.as_str()).is_some(), *reason != Reason::Allowed);
        assert_eq!(reason.refusal(CREDS), crate::Error::Denied(advice));
    }
    assert_eq!(
        Reason::NoGrant.advice(CREDS),
        "ask an administrator or the owner of the resource for a grant of database.credentials on \
         what you asked for"
    );
}

/// A factor that was proven and enrolled long ago.
fn factor() -> FactorFacts {
    FactorFacts {
        id: FactorId(id(9)),
        kind: FactorKind::Totp,
        proven_at: at(-500),
        enrolled_at: at(-1_000),
        vouched_by: Some(OTHER),
    }
}

#[test]
fn the_built_in_policy_reads_neither_when_nor_by_what_a_caller_was_proven() {
    // Verdicts are kept for all tokens of an identity because of it.
    let me = thing("identities/ci/nightly-etl").is(|subject| subject.id = Some(CALLER));
    for verb in VERBS {
        for kind in [Kind::Human, Kind::Pipeline] {
            for administers in [false, true] {
                let one = scene(kind, verb.action, me.clone().held(CALLER).owned(CALLER))
                    .granted(given(1, verb.action, "identities/**"))
                    .with(|scene| scene.administrator = administers);
                let other = one.clone().with(|scene| {
                    scene.auth_time = UnixMillis(1);
                    scene.factors = vec![factor()];
                });
                assert_eq!(one.decide(), other.decide(), "{kind} {}", verb.action);
            }
        }
    }
}

#[test]
fn a_policy_that_reads_them_is_told() {
    let fresh = policy(
        "default decision := {\"refuse\": \"no_grant\"}\n\
         decision := {\"rule\": \"everybody\"} if {\n\
         input.credential.auth_time > input.now - 300000\n\
         some factor in input.credential.factors\n\
         factor.kind == \"totp\"\n}",
    );
    let proven =
        pipeline("pki.ca", thing("pki/authorities")).with(|scene| scene.factors = vec![factor()]);
    assert!(proven.decide_by(&fresh).allow);
    let old = proven.clone().with(|scene| scene.auth_time = at(-300_001));
    assert!(!old.decide_by(&fresh).allow);
    let bare = proven.with(|scene| scene.factors.clear());
    assert!(!bare.decide_by(&fresh).allow);
}
