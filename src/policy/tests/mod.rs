//! The rules as tables: who asks, for what, on what, and what comes of it.

mod documented;
mod grants;
mod limits;
mod logins;
mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use regorus::{CompiledPolicy, PolicyModule, Value, compile_policy_with_entrypoint};

use super::*;
use crate::types::{
    AuthMethod, GrantId, GroupId, Id, IdentityId, IdentityName, IdentityState, Kind, Owner,
    ResourceName, ResourcePattern, Segment, Tier,
};

/// The time of every scene.
const NOW: UnixMillis = UnixMillis(1_000_000);
const CALLER: IdentityId = IdentityId(id(1));
const OTHER: IdentityId = IdentityId(id(2));
const TEAM: GroupId = GroupId(id(50));
const NO_LABELS: &BTreeMap<String, String> = &BTreeMap::new();

const fn id(n: u8) -> Id {
    Id::from_bytes([n; 16])
}

const fn at(ms: i64) -> UnixMillis {
    UnixMillis(NOW.0 + ms)
}

/// One grant of a scene.
#[derive(Debug, Clone)]
struct Given {
    id: u8,
    subject: GrantSubject,
    action: &'static str,
    pattern: ResourcePattern,
    not_before: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
    conditions: Conditions,
}

fn given(id: u8, action: &'static str, pattern: &str) -> Given {
    Given {
        id,
        subject: GrantSubject::Identity(CALLER),
        action,
        pattern: pattern.parse().unwrap(),
        not_before: None,
        expires_at: None,
        conditions: Conditions::default(),
    }
}

impl Given {
    fn to(mut self, subject: GrantSubject) -> Self {
        self.subject = subject;
        self
    }

    fn from(mut self, not_before: UnixMillis) -> Self {
        self.not_before = Some(not_before);
        self
    }

    fn until(mut self, expires_at: UnixMillis) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    fn ttl(mut self, max_ttl_s: u64) -> Self {
        self.conditions.max_ttl_s = Some(max_ttl_s);
        self
    }

    fn masking(mut self, field: &str, how: &str) -> Self {
        self.conditions.masks.push(Mask::parse(field, how).unwrap());
        self
    }

    fn within(mut self, cidr: &str) -> Self {
        self.conditions.sources.push(cidr.parse().unwrap());
        self
    }

    fn facts(&self) -> GrantFacts<'_> {
        GrantFacts {
            id: GrantId(id(self.id)),
            subject: self.subject,
            action: self.action,
            resource: &self.pattern,
            not_before: self.not_before,
            expires_at: self.expires_at,
            conditions: &self.conditions,
            granted_by: OTHER,
            origin: GrantOrigin::Given,
        }
    }
}

/// One resource of a scene.
#[derive(Debug, Clone)]
struct Thing {
    name: ResourceName,
    owner: Option<Owner>,
    holder: Option<IdentityId>,
    subject: Option<SubjectFacts>,
}

fn thing(name: &str) -> Thing {
    Thing { name: name.parse().unwrap(), owner: None, holder: None, subject: None }
}

impl Thing {
    fn owned(mut self, by: impl Into<Owner>) -> Self {
        self.owner = Some(by.into());
        self
    }

    fn held(mut self, by: IdentityId) -> Self {
        self.holder = Some(by);
        self
    }

    fn is(mut self, change: impl FnOnce(&mut SubjectFacts)) -> Self {
        let mut subject = SubjectFacts {
            id: Some(OTHER),
            kind: Kind::Human,
            administrator: false,
            registered_by: Some(OTHER),
            has_certificate: false,
            owner_active: true,
            owner_expires_at: None,
        };
        change(&mut subject);
        self.subject = Some(subject);
        self
    }
}

/// Who asks for what on what; every part can be changed.
#[derive(Debug, Clone)]
struct Scene {
    kind: Kind,
    state: IdentityState,
    administrator: bool,
    owner_active: bool,
    owner_expires_at: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
    credential_expires_at: Option<UnixMillis>,
    member: bool,
    action: &'static str,
    things: Vec<Thing>,
    given: Vec<Given>,
    source: Option<IpAddr>,
    method: AuthMethod,
    auth_time: UnixMillis,
    factors: Vec<FactorFacts>,
    /// The methods and groups of who signed in.
    sign_in: Option<(Vec<String>, Vec<String>)>,
}

fn scene(kind: Kind, action: &'static str, thing: Thing) -> Scene {
    Scene {
        kind,
        state: IdentityState::Active,
        administrator: false,
        owner_active: true,
        owner_expires_at: None,
        expires_at: None,
        credential_expires_at: None,
        member: true,
        action,
        things: vec![thing],
        given: Vec::new(),
        source: Some("10.1.2.3".parse().unwrap()),
        method: AuthMethod::Mtls { fingerprint: [7; 32] },
        auth_time: NOW,
        factors: Vec::new(),
        sign_in: None,
    }
}

fn pipeline(action: &'static str, thing: Thing) -> Scene {
    scene(Kind::Pipeline, action, thing)
}

fn human(action: &'static str, thing: Thing) -> Scene {
    scene(Kind::Human, action, thing)
}

fn administrator(action: &'static str, thing: Thing) -> Scene {
    human(action, thing).with(|scene| scene.administrator = true)
}

impl Scene {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn granted(self, given: Given) -> Self {
        self.with(|scene| scene.given.push(given))
    }

    fn decide(&self) -> Verdict {
        static BUILTIN: LazyLock<Policy> = LazyLock::new(|| Policy::builtin().unwrap());
        self.decide_by(&BUILTIN)
    }

    fn decide_by(&self, policy: &Policy) -> Verdict {
        let name: IdentityName = "ci/nightly-etl".parse().unwrap();
        let group: Segment = "team".parse().unwrap();
        let groups = [GroupFacts { id: TEAM, name: &group }];
        let identity = IdentityFacts {
            id: CALLER,
            name: &name,
            kind: self.kind,
            state: self.state,
            owner: OTHER.into(),
            owner_active: self.owner_active,
            owner_expires_at: self.owner_expires_at,
            tier: Tier::Medium,
            expires_at: self.expires_at,
            labels: NO_LABELS,
            groups: if self.member { &groups } else { &[] },
            administrator: self.administrator,
        };
        let credential = CredentialFacts {
            method: self.method,
            expires_at: self.credential_expires_at,
            auth_time: self.auth_time,
            factors: &self.factors,
            sign_in: self.sign_in.as_ref().map(|(amr, groups)| SignInFacts {
                issuer: "corp",
                sub: "248289761001",
                groups,
                amr,
            }),
        };
        self.decide_as(policy, CallerFacts::Identity { identity: &identity, credential })
    }

    fn decide_as(&self, policy: &Policy, caller: CallerFacts<'_>) -> Verdict {
        let resources: Vec<_> = self
            .things
            .iter()
            .map(|thing| ResourceFacts {
                name: &thing.name,
                owner: thing.owner,
                holder: thing.holder,
                labels: NO_LABELS,
                identity: thing.subject,
            })
            .collect();
        let grants: Vec<_> = self.given.iter().map(Given::facts).collect();
        let facts = Facts {
            caller,
            action: self.action,
            administrative: false,
            resources: &resources,
            grants: &grants,
            now: NOW,
            source: self.source,
        };
        interpreter_agrees(&facts);
        policy.evaluate(&facts)
    }
}

/// The register VM and the interpreter are two implementations of one language, and differ where
/// a value is undefined; the built-in policy must mean the same to both, in every scene.
fn interpreter_agrees(facts: &Facts<'_>) {
    static BUILTIN: LazyLock<(Policy, CompiledPolicy)> = LazyLock::new(|| {
        let source = include_str!("../builtin.rego");
        let modules = [PolicyModule { id: "builtin.rego".into(), content: source.into() }];
        let entry_point = "data.strongroom.decision".into();
        let compiled = compile_policy_with_entrypoint(Value::new_object(), &modules, entry_point);
        (Policy::builtin().unwrap(), compiled.unwrap())
    });
    let CallerFacts::Identity { identity, credential } = facts.caller else { return };
    let Some(verb) = Verb::lookup(facts.action) else { return };
    let candidates = input::candidates(facts, identity);
    let input = input::build(facts, verb.administrative, identity, credential, &candidates);
    let (policy, compiled) = &*BUILTIN;
    let interpreted = machine::read(&compiled.eval_with_input(input.clone()).unwrap());
    assert_eq!(policy.machine.run(input).ok(), interpreted, "{facts:?}");
}

#[track_caller]
fn allowed_by(scene: &Scene, rule: &'static str) {
    let verdict = scene.decide();
    assert!(verdict.allow, "{} is refused: {}", scene.action, verdict.reason);
    assert_eq!(verdict.by, Basis::Rule(rule), "{}", scene.action);
    assert_eq!(verdict.reason, Reason::Allowed);
}

#[track_caller]
fn allowed_by_grant(scene: &Scene, grants: &[u8]) {
    let verdict = scene.decide();
    assert!(verdict.allow, "{} is refused: {}", scene.action, verdict.reason);
    let ids = grants.iter().map(|n| GrantId(id(*n))).collect();
    assert_eq!(verdict.by, Basis::Grants(ids), "{}", scene.action);
}

#[track_caller]
fn refused(scene: &Scene, reason: Reason) {
    let verdict = scene.decide();
    assert!(!verdict.allow, "{} is allowed by {}", scene.action, verdict.by);
    assert_eq!(verdict.reason, reason, "{}", scene.action);
    assert_eq!(verdict.by, Basis::Rule(reason.as_str()));
}
