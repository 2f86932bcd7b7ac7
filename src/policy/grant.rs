//! Which grants may exist, and who may give them: pure checks, before anything is written.
//!
//! A decision does not rely on them: a grant that should not exist still covers no administrative
//! action by wildcard, and gives a machine none.

use super::facts::{Conditions, GrantFacts, IdentityFacts};
use super::mask::hides_as_much;
use crate::error::{Error, Result};
use crate::types::{IdentityName, Kind, ResourcePattern, Segment, UnixMillis, Verb};

/// What cannot be granted: every identity asks who it is, and has its own factors; by a login
/// certificate, an enrolment or an invitation somebody is known, so they are for administrators, and
/// the first two for a machine's owner, alone.
const NEVER_GRANTED: &[&str] = &[
    "identities.whoami",
    "identities.issue-cert",
    "enrolments.create",
    "factors.invite",
    "factors.enrol",
    "factors.confirm",
    "factors.recovery-codes",
    "factors.verify",
    "factors.remove",
];

/// Who would receive a grant.
#[derive(Debug, Clone, Copy)]
pub enum Receiver<'a> {
    /// One identity.
    Identity {
        /// Its name.
        name: &'a IdentityName,
        /// What stands behind it.
        kind: Kind,
    },
    /// Every member of a group, by its name. Machines in it gain no administrative action.
    Group(&'a Segment),
}

/// A grant that somebody wants to give.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// Who would receive it.
    pub receiver: Receiver<'a>,
    /// The action.
    pub action: &'a str,
    /// What the action would be allowed on.
    pub resource: &'a ResourcePattern,
    /// The first moment at which it would hold.
    pub not_before: Option<UnixMillis>,
    /// The first moment at which it would hold no more.
    pub expires_at: Option<UnixMillis>,
    /// Its conditions.
    pub conditions: &'a Conditions,
    /// The time, fixed once for the request.
    pub now: UnixMillis,
}

/// Who wants to give it. That the giver may call `grants.add` was decided before.
#[derive(Debug, Clone, Copy)]
pub struct Granter<'a> {
    /// The identity that asks.
    pub identity: &'a IdentityFacts<'a>,
    /// The grants to it and to its groups for the action of the proposal.
    pub held: &'a [GrantFacts<'a>],
}

impl Proposal<'_> {
    /// Checks that the grant may exist at all.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the action is unknown or never granted, when the pattern cannot fit
    /// it, when a wildcard or a machine meets an administrative action, when it would never hold.
    pub fn validate(&self) -> Result<&'static Verb> {
        let verb = Verb::lookup(self.action).ok_or_else(|| {
            Error::invalid("there is no such action; `strongroom actions` lists them all")
        })?;
        if NEVER_GRANTED.contains(&verb.action) {
            return Err(Error::invalid(format!(
                "{} cannot be granted: every identity may ask who it is and has its own factors, \
                 and login certificates and invitations are issued by administrators and, for a \
                 machine, by its owner",
                verb.action
            )));
        }
        self.check_pattern(verb)?;
        if verb.administrative {
            self.check_administrative(verb)?;
        }
        let begins = self.not_before.unwrap_or(self.now).max(self.now);
        if self.expires_at.is_some_and(|end| end <= begins) {
            return Err(Error::invalid("a grant must end after it begins, and in the future"));
        }
        if !self.conditions.masks.is_empty() && verb.action != "secrets.get" {
            return Err(Error::invalid("a mask is for what secrets.get gives, and nothing else"));
        }
        if self.conditions.max_ttl_s == Some(0) {
            return Err(Error::invalid("the maximum time to live must be at least one second"));
        }
        if self.conditions.login.max_auth_age_s == Some(0) {
            return Err(Error::invalid("the maximum age of a login must be at least one second"));
        }
        Ok(verb)
    }

    fn check_pattern(&self, verb: &Verb) -> Result<()> {
        let noun = |text: &str| text.split('/').next().map(str::to_owned);
        let fixed = !verb.resource.contains('<');
        let pattern = self.resource.as_str();
        let fits = noun(pattern) == noun(verb.resource)
            && if fixed { self.resource.matches(verb.resource) } else { pattern.contains('/') };
        if fits {
            return Ok(());
        }
        Err(Error::invalid(format!("{} is granted on {}", verb.action, verb.resource)))
    }

    fn check_administrative(&self, verb: &Verb) -> Result<()> {
        if self.resource.has_wildcard() {
            return Err(Error::invalid(format!(
                "{} is administrative: name each resource, wildcards never cover it",
                verb.action
            )));
        }
        match self.receiver {
            Receiver::Identity { kind: Kind::Human, .. } | Receiver::Group(_) => Ok(()),
            Receiver::Identity { .. } => Err(Error::invalid(format!(
                "{} is administrative: only humans may hold it",
                verb.action
            ))),
        }
    }

    /// Checks that this giver may give it: administrators anything; other humans to those of
    /// their own prefix, and no more than a grant that they hold now.
    ///
    /// # Errors
    /// [`Error::Denied`] when the giver may not.
    pub fn check_granter(&self, granter: &Granter<'_>) -> Result<()> {
        let identity = granter.identity;
        if identity.kind != Kind::Human {
            return Err(Error::Denied("only humans grant; ask a human administrator".into()));
        }
        if identity.administrator {
            return Ok(());
        }
        let near = match self.receiver {
            Receiver::Identity { name, .. } => shares_prefix(identity.name, name),
            Receiver::Group(_) => false,
        };
        if near && granter.held.iter().any(|held| self.is_within(held)) {
            return Ok(());
        }
        Err(Error::Denied(
            "you may grant to identities under your own prefix, and no more than you hold; ask \
             an administrator for more"
                .into(),
        ))
    }

    /// Tells whether everything that the proposal would allow is allowed by a grant.
    fn is_within(&self, held: &GrantFacts<'_>) -> bool {
        let ends_in_time = match (self.expires_at, held.expires_at) {
            (_, None) => true,
            (Some(end), Some(most)) => end <= most,
            (None, Some(_)) => false,
        };
        let lives_no_longer = match (self.conditions.max_ttl_s, held.conditions.max_ttl_s) {
            (_, None) => true,
            (Some(ttl_s), Some(most_s)) => ttl_s <= most_s,
            (None, Some(_)) => false,
        };
        held.action == self.action
            && held.in_force(self.now)
            && held.resource.covers(self.resource)
            && ends_in_time
            && lives_no_longer
            && sources_within(self.conditions, held.conditions)
            && self.conditions.login.is_within(&held.conditions.login)
            && hides_as_much(&self.conditions.masks, &held.conditions.masks)
    }
}

/// Tells whether an identity lies under a giver's prefix: its name without the last segment. A
/// name of one segment has no prefix, so nobody lies under it.
fn shares_prefix(giver: &IdentityName, receiver: &IdentityName) -> bool {
    giver.as_str().rsplit_once('/').is_some_and(|(prefix, _)| {
        receiver.as_str().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    })
}

fn sources_within(narrow: &Conditions, wide: &Conditions) -> bool {
    wide.sources.is_empty()
        || !narrow.sources.is_empty()
            && narrow.sources.iter().all(|one| wide.sources.iter().any(|many| many.covers(one)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::{Cidr, GrantOrigin, GrantSubject};
    use crate::types::{GrantId, Id, IdentityId, IdentityState, Tier};

    const NOW: UnixMillis = UnixMillis(1_000);
    const CREDS: &str = "database.credentials";

    fn conditions(sources: &[&str], max_ttl_s: Option<u64>) -> Conditions {
        let sources = sources.iter().map(|text| text.parse::<Cidr>().unwrap()).collect();
        Conditions { sources, max_ttl_s, ..Conditions::default() }
    }

    /// Checks a grant of an action on a pattern to an identity of a kind.
    fn validate(action: &str, pattern: &str, kind: Kind) -> Result<&'static Verb> {
        let (name, resource) = ("data/etl".parse().unwrap(), pattern.parse().unwrap());
        let receiver = Receiver::Identity { name: &name, kind };
        propose(receiver, action, &resource, &Conditions::default()).validate()
    }

    fn propose<'a>(
        receiver: Receiver<'a>,
        action: &'a str,
        resource: &'a ResourcePattern,
        conditions: &'a Conditions,
    ) -> Proposal<'a> {
        let (not_before, expires_at) = (None, None);
        Proposal { receiver, action, resource, not_before, expires_at, conditions, now: NOW }
    }

    #[test]
    fn only_grants_that_can_ever_mean_something_may_exist() {
        use Kind::{Agent, Bootstrap, Human, Pipeline};
        for (action, pattern, kind, good) in [
            (CREDS, "database/analytics/reader", Pipeline, true),
            (CREDS, "database/**", Agent, true),
            (CREDS, "secrets/analytics/reader", Pipeline, false),
            ("database.*", "database/a/b", Pipeline, false),
            ("database.Credentials", "database/a/b", Pipeline, false),
            (" database.credentials", "database/a/b", Pipeline, false),
            ("", "database/a/b", Pipeline, false),
            ("groups.add", "groups/team", Human, true),
            ("groups.add", "groups/*", Human, false),
            ("groups.add", "groups/**", Human, false),
            ("groups.add", "groups/team", Pipeline, false),
            ("groups.add", "groups/team", Bootstrap, false),
            ("system.seal", "system/seal", Human, true),
            ("system.seal", "system/other", Human, false),
            ("records.list", "records/log", Human, true),
            ("records.list", "records/log", Agent, false),
            ("pki.ca", "pki/authorities", Pipeline, true),
            ("pki.ca", "pki/web", Pipeline, false),
            ("identities.list", "identities", Human, true),
            ("identities.list", "identities/data", Human, false),
            ("identities.show", "identities", Human, false),
            ("identities.whoami", "identities/data/etl", Pipeline, false),
            ("identities.issue-cert", "identities/data/etl", Human, false),
            ("enrolments.create", "enrolments/data/etl", Human, false),
            ("enrolments.list", "enrolments/data/etl", Human, true),
        ] {
            assert_eq!(validate(action, pattern, kind).is_ok(), good, "{action} {pattern} {kind}");
        }
    }

    #[test]
    fn every_administrative_action_refuses_wildcards_and_machines() {
        for verb in crate::types::VERBS.iter().filter(|verb| verb.administrative) {
            let noun = verb.resource.split('/').next().unwrap();
            for kind in Kind::ALL {
                let wide = validate(verb.action, &format!("{noun}/**"), *kind);
                assert!(wide.is_err(), "{} for {kind}", verb.action);
                let fixed = !verb.resource.contains('<');
                let name = if fixed { verb.resource.to_owned() } else { format!("{noun}/x") };
                let exact = validate(verb.action, &name, *kind);
                let granted = *kind == Kind::Human && !NEVER_GRANTED.contains(&verb.action);
                assert_eq!(exact.is_ok(), granted, "{} on {name} for {kind}", verb.action);
            }
        }
    }

    #[test]
    fn a_grant_must_end_after_it_begins_and_in_the_future() {
        let (name, resource) = ("etl".parse().unwrap(), "database/a/b".parse().unwrap());
        let receiver = Receiver::Identity { name: &name, kind: Kind::Pipeline };
        let ms = |ms| Some(UnixMillis(ms));
        for (not_before, expires_at, good) in [
            (None, None, true),
            (None, ms(1_001), true),
            (None, ms(1_000), false),
            (ms(1), ms(999), false),
            (ms(2_000), ms(2_001), true),
            (ms(2_000), ms(2_000), false),
            (ms(2_000), None, true),
        ] {
            let none = Conditions::default();
            let proposal = propose(receiver, CREDS, &resource, &none);
            let proposal = Proposal { not_before, expires_at, ..proposal };
            assert_eq!(proposal.validate().is_ok(), good, "{not_before:?} {expires_at:?}");
        }
        let zero = conditions(&[], Some(0));
        assert!(propose(receiver, CREDS, &resource, &zero).validate().is_err());
    }

    struct Giver {
        name: &'static str,
        kind: Kind,
        administrator: bool,
    }

    const CAROL: Giver = Giver { name: "data/carol", kind: Kind::Human, administrator: false };

    /// Checks whether a giver that holds one grant may give another one.
    fn may_grant(
        giver: &Giver,
        held: (&str, &Conditions),
        to: &str,
        give: (&str, &Conditions),
    ) -> bool {
        let id = Id::from_bytes([1; 16]);
        let name = giver.name.parse().unwrap();
        let labels = BTreeMap::new();
        let identity = IdentityFacts {
            id: IdentityId(id),
            name: &name,
            kind: giver.kind,
            state: IdentityState::Active,
            owner: IdentityId(id).into(),
            owner_active: true,
            owner_expires_at: None,
            tier: Tier::Low,
            expires_at: None,
            labels: &labels,
            groups: &[],
            administrator: giver.administrator,
        };
        let pattern = held.0.parse().unwrap();
        let held = [GrantFacts {
            id: GrantId(id),
            subject: GrantSubject::Identity(IdentityId(id)),
            action: CREDS,
            resource: &pattern,
            not_before: None,
            expires_at: Some(UnixMillis(5_000)),
            conditions: held.1,
            granted_by: IdentityId(id),
            origin: GrantOrigin::Given,
        }];
        let (to, resource) = (to.parse().unwrap(), give.0.parse().unwrap());
        let receiver = Receiver::Identity { name: &to, kind: Kind::Pipeline };
        let proposal = propose(receiver, CREDS, &resource, give.1);
        let proposal = Proposal { expires_at: Some(UnixMillis(5_000)), ..proposal };
        let granter = Granter { identity: &identity, held: &held };
        let answer = proposal.check_granter(&granter).is_ok();
        // One millisecond longer than what is held is too long, for all but administrators.
        let longer = Proposal { expires_at: Some(UnixMillis(5_001)), ..proposal };
        assert_eq!(longer.check_granter(&granter).is_ok(), giver.administrator);
        let unbounded = Proposal { expires_at: None, ..proposal };
        assert_eq!(unbounded.check_granter(&granter).is_ok(), giver.administrator);
        answer
    }

    #[test]
    fn others_grant_within_their_prefix_and_what_they_hold() {
        let free = &conditions(&[], None);
        for (held, to, give, good) in [
            ("database/a/r", "data/etl", "database/a/r", true),
            ("database/a/*", "data/etl", "database/a/r", true),
            ("database/**", "data/x/y", "database/a/*", true),
            ("database/**", "data/etl", "database/**", true),
            ("database/a*/r", "data/etl", "database/ab*/r", true),
            ("database/a/r", "data/etl", "database/a/w", false),
            ("database/a/r", "data/etl", "database/a/*", false),
            ("database/*", "data/etl", "database/**", false),
            ("database/a*/r", "data/etl", "database/*/r", false),
            ("database/a/**", "data/etl", "database/**", false),
            ("database/*/**", "data/etl", "database/**", false),
            ("database/a/r", "ops/etl", "database/a/r", false),
            ("database/a/r", "data", "database/a/r", false),
            ("database/a/r", "database/etl", "database/a/r", false),
        ] {
            let answer = may_grant(&CAROL, (held, free), to, (give, free));
            assert_eq!(answer, good, "{held} held, {give} to {to}");
        }
        let flat = Giver { name: "carol", ..CAROL };
        assert!(!may_grant(&flat, ("database/**", free), "carol/x", ("database/a/r", free)));
        let machine = Giver { kind: Kind::Pipeline, ..CAROL };
        assert!(!may_grant(&machine, ("database/**", free), "data/x", ("database/a/r", free)));
        let admin = Giver { name: "root", administrator: true, ..CAROL };
        assert!(may_grant(&admin, ("database/a/r", free), "ops/x", ("database/**", free)));
    }

    #[test]
    fn a_given_grant_keeps_the_conditions_of_the_held_one() {
        let reader = "database/a/r";
        for (held, give, good) in [
            (conditions(&["10.0.0.0/8"], None), conditions(&["10.1.0.0/16"], None), true),
            (conditions(&["10.0.0.0/8"], None), conditions(&[], None), false),
            (conditions(&["10.0.0.0/8"], None), conditions(&["10.1.0.0/16", "::/0"], None), false),
            (conditions(&[], None), conditions(&["::/0"], None), true),
            (conditions(&[], Some(60)), conditions(&[], Some(60)), true),
            (conditions(&[], Some(60)), conditions(&[], Some(61)), false),
            (conditions(&[], Some(60)), conditions(&[], None), false),
            (conditions(&[], None), conditions(&[], Some(60)), true),
        ] {
            let text = format!("{held:?} held, {give:?}");
            assert_eq!(
                may_grant(&CAROL, (reader, &held), "data/etl", (reader, &give)),
                good,
                "{text}"
            );
        }
    }

    #[test]
    fn nobody_but_administrators_grants_to_groups() {
        let (group, resource) = ("team".parse().unwrap(), "database/a/r".parse().unwrap());
        let none = Conditions::default();
        let proposal = propose(Receiver::Group(&group), CREDS, &resource, &none);
        assert!(proposal.validate().is_ok());
        let name: IdentityName = "data/carol".parse().unwrap();
        let id = IdentityId(Id::from_bytes([1; 16]));
        let labels = BTreeMap::new();
        let carol = IdentityFacts {
            id,
            name: &name,
            kind: Kind::Human,
            state: IdentityState::Active,
            owner: id.into(),
            owner_active: true,
            owner_expires_at: None,
            tier: Tier::Low,
            expires_at: None,
            labels: &labels,
            groups: &[],
            administrator: false,
        };
        let granter = |identity| proposal.check_granter(&Granter { identity, held: &[] });
        assert!(matches!(granter(&carol), Err(Error::Denied(_))));
        assert_eq!(granter(&IdentityFacts { administrator: true, ..carol }), Ok(()));
    }
}
