//! What a token may do: its row's detail, and that nothing it passes on exceeds it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::session::Origin;
use crate::error::{Error, Result};
use crate::policy::Cidr;
use crate::types::{ResourcePattern, UnixMillis, Verb};

/// The detail of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenDetail {
    /// Whether it is of the single-use type.
    pub single_use: bool,
    /// Uses left; none where they are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// How often policy refused it, where uses are counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    /// Where it may be used from; anywhere when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Cidr>,
    /// Names of the nodes that accept it; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// What it may be used for; all that its identity may when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<Scope>,
    /// The client certificate that it must come with: SHA-256 of its DER in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The vault's restore epoch when it was made; void under another.
    pub restore_epoch: i64,
    /// What a renewal that names no span gets, in seconds.
    pub ttl_s: u64,
    /// Who made it: an identity's id.
    pub created_by: String,
    /// How its last use was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
    /// What its newest uses paid for, of calls that can be repeated. A repeated call finds what it
    /// made by a row that is not sealed: it goes on with nothing that does not stand here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paid: Vec<String>,
    /// How it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
    /// The issuer's token that it was got for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Origin>,
}

/// How the last use of a token was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// When, in Unix milliseconds.
    pub at: i64,
    /// From where; empty where that is unknown.
    pub source: String,
    /// With which client certificate: SHA-256 of its DER in hexadecimal; empty without one.
    pub certificate: String,
}

/// How a token was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// When, in Unix milliseconds.
    pub at: i64,
    /// Who: an identity's id, or the name of a worker.
    pub by: String,
}

/// Uses of which it is known what they paid for: older ones show what they made, and make no other.
const PAID: usize = 16;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One thing that a token may be used for: a resource pattern, and perhaps one action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    resource: ResourcePattern,
    action: Option<String>,
}

impl Scope {
    /// Tells whether it lets a token do something; a wildcard never lets it administer, nor does
    /// an action that is not named.
    #[must_use]
    pub fn allows(&self, action: &str, administrative: bool, resource: &str) -> bool {
        let named = self.action.as_ref().map_or(!administrative, |one| one == action);
        named
            && self.resource.matches(resource)
            && !(administrative && self.resource.has_wildcard())
    }

    /// Tells whether whoever has this may pass the other on. What administers is passed on as it
    /// is or not at all: neither a wildcard nor an action that is not named ever administered.
    fn covers(&self, other: &Self) -> bool {
        self == other
            || (!other.administers()
                && self.resource.covers(&other.resource)
                && (self.action.is_none() || self.action == other.action))
    }

    fn administers(&self) -> bool {
        let named = self.action.as_deref().and_then(Verb::lookup);
        named.is_some_and(|verb| verb.administrative)
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (resource, action) = match text.split_once(':') {
            Some((resource, action)) => (resource, Some(action)),
            None => (text, None),
        };
        let known = |action: &str| {
            Verb::lookup(action).map(|verb| verb.action.to_owned()).ok_or_else(|| {
                Error::invalid(
                    "a scope is RESOURCE or RESOURCE:ACTION; `strongroom actions` lists both",
                )
            })
        };
        Ok(Self { resource: resource.parse()?, action: action.map(known).transpose()? })
    }
}

impl TryFrom<String> for Scope {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.resource)?;
        self.action.as_ref().map_or(Ok(()), |action| write!(f, ":{action}"))
    }
}

impl TokenDetail {
    /// Reads it from a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }

    /// Writes it for a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when it cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::internal)
    }

    /// Tells whether it lets its bearer do something. What a person got by signing in is a login as a
    /// certificate is, and not something that was handed on: it administers.
    #[must_use]
    pub fn allows(&self, action: &str, administrative: bool, resource: &str) -> bool {
        let login = self.session.as_ref().is_some_and(|session| session.sign_in.is_some());
        (self.scope.is_empty() && (!administrative || login))
            || self.scope.iter().any(|one| one.allows(action, administrative, resource))
    }

    /// Takes over from a parent what a child leaves open, and checks that the rest is within it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what would exceed the parent; [`Error::Precondition`] for a parent
    /// that has no children.
    pub fn under(mut self, parent: &Self) -> Result<Self> {
        if parent.uses_left.is_some() {
            return Err(Error::precondition("a token whose uses are counted makes no other"));
        }
        if self.sources.is_empty() {
            self.sources.clone_from(&parent.sources);
        }
        if self.audience.is_empty() {
            self.audience.clone_from(&parent.audience);
        }
        if self.scope.is_empty() {
            self.scope.clone_from(&parent.scope);
        }
        let (sources, audience, scope) = (&parent.sources, &parent.audience, &parent.scope);
        let within = |name, fits: bool| {
            fits.then_some(()).ok_or_else(|| {
                Error::invalid(format!("{name} would exceed that of the token that asks"))
            })
        };
        let from = |one: &Cidr| sources.iter().any(|wide| wide.covers(one));
        within("the network", sources.is_empty() || self.sources.iter().all(from))?;
        let at = |one: &String| audience.contains(one);
        within("the audience", audience.is_empty() || self.audience.iter().all(at))?;
        let to = |one: &Scope| {
            (scope.is_empty() && !one.administers()) || scope.iter().any(|wide| wide.covers(one))
        };
        within("the scope", self.scope.iter().all(to))?;
        // A binding can be added, not changed: the child is as bound as its parent.
        self.certificate = self.certificate.or_else(|| parent.certificate.clone());
        let bound = parent.certificate.is_none() || self.certificate == parent.certificate;
        within("the binding", bound)?;
        Ok(self)
    }

    /// Takes one use, for what a call that can be repeated makes; false when there is none.
    pub(super) fn take_use(&mut self, spent: Spent, made: Option<&str>) -> bool {
        let Some(left) = self.uses_left else { return true };
        let Some(rest) = left.checked_sub(1) else { return false };
        self.uses_left = Some(rest);
        if rest == 0 {
            self.spent = Some(spent);
        }
        if let Some(made) = made {
            self.paid.push(made.to_owned());
            let over = self.paid.len().saturating_sub(PAID);
            drop(self.paid.drain(..over));
        }
        true
    }

    /// Says that what a use paid for was replaced by another; false when no use paid for it.
    pub(super) fn pays_for(&mut self, earlier: &str, made: &str) -> bool {
        let paid = self.paid.iter_mut().find(|paid| *paid == earlier);
        paid.map(|paid| made.clone_into(paid)).is_some()
    }

    /// Notes that it was revoked.
    pub fn revoke(&mut self, at: UnixMillis, by: String) {
        self.revoked.get_or_insert(Revoked { at: at.0, by });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::SignIn;

    fn detail() -> TokenDetail {
        TokenDetail {
            single_use: false,
            uses_left: None,
            refusals: 0,
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            audience: vec!["a.test".to_owned(), "b.test".to_owned()],
            scope: vec![
                "database/analytics/*".parse().unwrap(),
                "pki/web:pki.sign".parse().unwrap(),
            ],
            certificate: None,
            restore_epoch: 0,
            ttl_s: 900,
            created_by: "x".to_owned(),
            spent: None,
            paid: vec![],
            revoked: None,
            session: None,
        }
    }

    #[test]
    fn a_detail_comes_back_as_it_was_written_and_what_nobody_checks_is_refused() {
        let one = detail();
        assert_eq!(TokenDetail::decode(&one.encode().unwrap()), Ok(one.clone()));
        let text = String::from_utf8(one.encode().unwrap()).unwrap();
        let bad = text.replace("\"ttl_s\"", "\"weekday\":1,\"ttl_s\"");
        assert_eq!(TokenDetail::decode(bad.as_bytes()), Err(Error::Internal));
    }

    #[test]
    fn a_child_has_at_the_most_what_its_parent_has() {
        let parent = detail();
        let bare = TokenDetail { sources: vec![], audience: vec![], scope: vec![], ..detail() };
        let child = bare.clone().under(&parent).unwrap();
        assert_eq!((&child.sources, &child.scope), (&parent.sources, &parent.scope));
        assert_eq!(child.audience, parent.audience);
        let narrow = |change: &dyn Fn(&mut TokenDetail)| {
            let mut one = bare.clone();
            change(&mut one);
            one.under(&parent)
        };
        let scope = |text: &str| narrow(&|one| one.scope = vec![text.parse().unwrap()]);
        for good in ["database/analytics/reader", "database/analytics/reader:database.credentials"]
        {
            assert!(scope(good).is_ok(), "{good}");
        }
        for wide in
            ["database/**", "database/*/reader", "pki/web", "pki/web:pki.issue", "secrets/a"]
        {
            assert!(matches!(scope(wide), Err(Error::Invalid(_))), "{wide}");
        }
        let from = |text: &str| narrow(&|one| one.sources = vec![text.parse().unwrap()]);
        assert!(from("10.1.0.0/16").is_ok());
        assert!(from("0.0.0.0/0").is_err() && from("11.0.0.0/8").is_err());
        assert!(narrow(&|one| one.audience = vec!["b.test".to_owned()]).is_ok());
        assert!(narrow(&|one| one.audience = vec!["c.test".to_owned()]).is_err());
        let bound = TokenDetail { certificate: Some("aa".to_owned()), ..detail() };
        assert_eq!(bare.clone().under(&bound).unwrap().certificate, bound.certificate);
        let other = TokenDetail { certificate: Some("bb".to_owned()), ..bare.clone() };
        assert!(other.under(&bound).is_err());
        let counted = TokenDetail { uses_left: Some(9), ..detail() };
        assert!(matches!(bare.under(&counted), Err(Error::Precondition(_))));
    }

    #[test]
    fn what_the_newest_uses_paid_for_is_known_and_moves_on() {
        let mut token = TokenDetail { uses_left: Some(20), ..detail() };
        let spent = Spent { at: 1, source: String::new(), certificate: String::new() };
        assert!(token.take_use(spent.clone(), None) && token.paid.is_empty());
        for n in 0..19 {
            assert!(token.take_use(spent.clone(), Some(&n.to_string())));
        }
        assert!(!token.take_use(spent, Some("more")) && token.spent.is_some());
        assert_eq!(token.paid.len(), PAID);
        assert!(!token.pays_for("2", "x"), "it is too old");
        assert!(token.pays_for("3", "x") && !token.pays_for("3", "y") && token.pays_for("x", "z"));
    }

    #[test]
    fn what_administers_is_passed_on_as_it_is_or_not_at_all() {
        let scoped = |texts: &[&str]| {
            let scope = texts.iter().map(|text| text.parse().unwrap()).collect();
            TokenDetail { scope, sources: vec![], audience: vec![], ..detail() }
        };
        let exact = "groups/team:groups.create";
        for (parent, fits) in [
            (&[][..], false),
            (&["groups/team"], false),
            (&["groups/**"], false),
            (&["groups/*:groups.create"], false),
            (&["groups/team:groups.add"], false),
            (&["pki/web", exact], true),
        ] {
            for child in [&[exact][..], &["pki/web", exact]] {
                let made = scoped(child).under(&scoped(parent));
                let whole = child.len() == 1 || parent.contains(&"pki/web");
                assert_eq!(made.is_ok(), fits && whole, "{child:?} of {parent:?}");
            }
        }
        let wide = "groups/*:groups.create";
        assert!(scoped(&[wide]).under(&scoped(&["groups/**"])).is_err());
        assert!(scoped(&["pki/web:pki.sign"]).under(&scoped(&[])).is_ok());
    }

    #[test]
    fn neither_wildcards_nor_unnamed_actions_let_a_token_administer() {
        let exact: Scope = "identities/a:identities.suspend".parse().unwrap();
        assert!(exact.allows("identities.suspend", true, "identities/a"));
        assert!(!exact.allows("identities.resume", true, "identities/a"));
        for wide in ["identities/a", "identities/*:identities.suspend", "identities/**"] {
            let wide: Scope = wide.parse().unwrap();
            assert!(!wide.allows("identities.suspend", true, "identities/a"), "{wide}");
        }
        assert!("identities/a:no.action".parse::<Scope>().is_err());
        let all = TokenDetail { scope: vec![], ..detail() };
        assert!(all.allows("pki.sign", false, "pki/web"));
        assert!(!all.allows("identities.suspend", true, "identities/a"));
    }

    #[test]
    fn what_somebody_signed_in_for_administers_and_what_is_made_with_it_does_not() {
        let origin = |sign_in| Origin {
            issuer: "i".to_owned(),
            rule: "r".to_owned(),
            epoch: 1,
            used: "u".to_owned(),
            sign_in,
        };
        let said = SignIn {
            issuer: "corp".to_owned(),
            sub: "s".to_owned(),
            groups: vec![],
            amr: vec![],
            auth_time_ms: None,
        };
        let may = |one: &TokenDetail| one.allows("identities.suspend", true, "identities/a");
        let bare = TokenDetail { scope: vec![], sources: vec![], audience: vec![], ..detail() };
        let session = TokenDetail { session: Some(origin(Some(said))), ..bare.clone() };
        assert!(may(&session));
        assert!(!may(&TokenDetail { session: Some(origin(None)), ..bare.clone() }));
        assert!(!may(&bare.under(&session).unwrap()));
        let scoped = scope_of("identities/a:identities.suspend");
        assert!(scoped.under(&session).is_err(), "it passes on nothing that administers");
    }

    fn scope_of(text: &str) -> TokenDetail {
        TokenDetail {
            scope: vec![text.parse().unwrap()],
            sources: vec![],
            audience: vec![],
            ..detail()
        }
    }
}
