//! What a decision may stand on: typed facts, gathered by whoever asks.
//!
//! Knows neither the rows they come from nor the policy that reads them. Names are canonical by
//! their types, so no variant of case or whitespace can reach a decision.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Cidr, Mask};
use crate::types::{
    AuthMethod, FactorId, FactorKind, GrantId, GroupId, IdentityId, IdentityName, IdentityState,
    Kind, Owner, ResourceName, ResourcePattern, Segment, Tier, UnixMillis,
};

/// Everything that one decision may stand on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks.
    pub caller: CallerFacts<'a>,
    /// The action, as in [`crate::types::VERBS`].
    pub action: &'a str,
    /// Whether the action is administrative. The table of verbs is asked as well, and one yes is
    /// enough.
    pub administrative: bool,
    /// Everything that the action touches; all of it must be allowed, and nothing is refused.
    pub resources: &'a [ResourceFacts<'a>],
    /// The grants to the caller and to its groups for this action, selected by index.
    pub grants: &'a [GrantFacts<'a>],
    /// The time, fixed once for the request.
    pub now: UnixMillis,
    /// Where the request came from, where that is known.
    pub source: Option<IpAddr>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum CallerFacts<'a> {
    /// Somebody or something with an identity.
    Identity {
        /// The identity.
        identity: &'a IdentityFacts<'a>,
        /// The credential that proved it on this request.
        credential: CredentialFacts<'a>,
    },
    /// The vault itself, by the worker's name.
    System(&'a str),
}

/// What is known about the identity that asks.
#[derive(Debug, Clone, Copy)]
pub struct IdentityFacts<'a> {
    /// Its id, for ever.
    pub id: IdentityId,
    /// Its name.
    pub name: &'a IdentityName,
    /// What stands behind it.
    pub kind: Kind,
    /// Where it is in its life.
    pub state: IdentityState,
    /// The human or group that answers for it; a human answers for itself.
    pub owner: Owner,
    /// Whether that owner is active.
    pub owner_active: bool,
    /// When that owner ends, if ever; from then on it is not active.
    pub owner_expires_at: Option<UnixMillis>,
    /// How much harm its misuse could do.
    pub tier: Tier,
    /// When it ends, if ever.
    pub expires_at: Option<UnixMillis>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The groups that it is in.
    pub groups: &'a [GroupFacts<'a>],
    /// Whether it is in the built-in group `administrators`.
    pub administrator: bool,
}

/// A group that the caller is in.
#[derive(Debug, Clone, Copy)]
pub struct GroupFacts<'a> {
    /// Its id, for ever.
    pub id: GroupId,
    /// Its name.
    pub name: &'a Segment,
}

/// The credential of a request; its state was checked when it was accepted.
#[derive(Debug, Clone, Copy)]
pub struct CredentialFacts<'a> {
    /// How the caller proved its identity.
    pub method: AuthMethod,
    /// The first moment at which the credential is dead.
    pub expires_at: Option<UnixMillis>,
    /// When whoever holds it was last seen to be who it names: the newest factor that was proven
    /// with it; where none was, when a provider says so, or its issue, where none was asked.
    pub auth_time: UnixMillis,
    /// The factors that were proven with it.
    pub factors: &'a [FactorFacts],
    /// What a provider said of the person who signed in for it.
    pub sign_in: Option<SignInFacts<'a>>,
}

/// What a provider said of a person who signed in by it.
#[derive(Debug, Clone, Copy)]
pub struct SignInFacts<'a> {
    /// The issuer's name.
    pub issuer: &'a str,
    /// What it calls the person.
    pub sub: &'a str,
    /// The groups that it says the person is in.
    pub groups: &'a [String],
    /// How the person proved who they are.
    pub amr: &'a [String],
}

/// A factor that was proven with the calling credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactorFacts {
    /// Its id, for ever.
    pub id: FactorId,
    /// By what it proves.
    pub kind: FactorKind,
    /// When it was proven last.
    pub proven_at: UnixMillis,
    /// When it was enrolled.
    pub enrolled_at: UnixMillis,
    /// The administrator whose invitation the enrolment goes back to.
    pub vouched_by: Option<IdentityId>,
}

/// One thing that the action touches. What does not exist has a name and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct ResourceFacts<'a> {
    /// Its full name.
    pub name: &'a ResourceName,
    /// Who owns it. An identity's owner, where the resource is an identity.
    pub owner: Option<Owner>,
    /// Who holds it, where it is a lease or a certificate.
    pub holder: Option<IdentityId>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What is known about it as an identity, where it is one or is to become one.
    pub identity: Option<SubjectFacts>,
}

/// An identity as the object of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectFacts {
    /// Its id; `None` where it is being registered.
    pub id: Option<IdentityId>,
    /// What stands behind it.
    pub kind: Kind,
    /// Whether it is, or is being made, a member of `administrators`.
    pub administrator: bool,
    /// Who registered it; `None` where it is being registered.
    pub registered_by: Option<IdentityId>,
    /// Whether a login certificate was ever issued for it.
    pub has_certificate: bool,
    /// Whether its owner is active; a human is its own owner.
    pub owner_active: bool,
    /// When that owner ends, if ever; from then on it is not active.
    pub owner_expires_at: Option<UnixMillis>,
}

/// Who a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantSubject {
    /// One identity.
    Identity(IdentityId),
    /// Every member of a group.
    Group(GroupId),
}

/// Where a grant comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantOrigin {
    /// Somebody gave it.
    Given,
    /// An elevation in force, which others approved.
    Elevation {
        /// Whether it may make what stands by itself.
        standing: bool,
    },
}

/// One grant.
#[derive(Debug, Clone, Copy)]
pub struct GrantFacts<'a> {
    /// Its id, for ever.
    pub id: GrantId,
    /// Who it is for.
    pub subject: GrantSubject,
    /// The one action that it allows.
    pub action: &'a str,
    /// What it allows the action on.
    pub resource: &'a ResourcePattern,
    /// The first moment at which it holds.
    pub not_before: Option<UnixMillis>,
    /// The first moment at which it holds no more.
    pub expires_at: Option<UnixMillis>,
    /// What else must be true, and what follows.
    pub conditions: &'a Conditions,
    /// Who gave it.
    pub granted_by: IdentityId,
    /// Where it comes from.
    pub origin: GrantOrigin,
}

/// The conditions of a grant. The default has none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Where it may be used from; anywhere when empty. An unknown source satisfies no range.
    pub sources: Vec<Cidr>,
    /// How long, in seconds, what is issued under it may live at most.
    pub max_ttl_s: Option<u64>,
    /// Which fields of a JSON secret are hidden, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<Mask>,
    /// How whoever uses it has to have logged in.
    #[serde(default, skip_serializing_if = "LoginTerms::is_none")]
    pub login: LoginTerms,
}

/// How whoever uses a grant has to have logged in; what is left out holds. Only what a provider said
/// of a person who signed in by it satisfies methods and groups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginTerms {
    /// How long ago, in seconds, they may have been seen to be who they are at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_auth_age_s: Option<u64>,
    /// The methods of which they have to have used one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// The provider's groups of which they have to be in one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl LoginTerms {
    /// Tells whether anybody satisfies them.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Tells whether a credential satisfies them at a moment. The handle of a lease shows nobody.
    #[must_use]
    pub fn fit(&self, credential: &CredentialFacts<'_>, now: UnixMillis) -> bool {
        const NOBODY: &[String] = &[];
        let one_of = |wanted: &[String], said: &[String]| {
            wanted.is_empty() || wanted.iter().any(|one| said.contains(one))
        };
        let said = credential.sign_in;
        let (amr, groups) = said.map_or((NOBODY, NOBODY), |said| (said.amr, said.groups));
        self.is_none()
            || credential.method != AuthMethod::Handle
                && self.ends(credential.auth_time).is_none_or(|end| end > now)
                && one_of(&self.amr, amr)
                && one_of(&self.groups, groups)
    }

    /// The first moment at which somebody who was seen at one was seen too long ago.
    pub(super) fn ends(&self, auth_time: UnixMillis) -> Option<UnixMillis> {
        let age_ms = i64::try_from(self.max_auth_age_s?.saturating_mul(1_000)).unwrap_or(i64::MAX);
        Some(UnixMillis(auth_time.0.saturating_add(age_ms)))
    }

    /// Tells whether whoever satisfies these satisfies others.
    pub(super) fn is_within(&self, wide: &Self) -> bool {
        let age = match (self.max_auth_age_s, wide.max_auth_age_s) {
            (_, None) => true,
            (Some(age_s), Some(most_s)) => age_s <= most_s,
            (None, Some(_)) => false,
        };
        let among = |narrow: &[String], wide: &[String]| {
            wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|one| wide.contains(one))
        };
        age && among(&self.amr, &wide.amr) && among(&self.groups, &wide.groups)
    }
}

impl IdentityFacts<'_> {
    /// Tells whether it acts as an owner: as itself, or as a human of the group.
    #[must_use]
    pub fn owns(&self, owner: Owner) -> bool {
        match owner {
            Owner::Identity(id) => id == self.id,
            Owner::Group(id) => {
                self.kind == Kind::Human && self.groups.iter().any(|group| group.id == id)
            }
        }
    }
}

impl Conditions {
    /// Tells whether a request from this source may use the grant.
    #[must_use]
    pub fn source_fits(&self, source: Option<IpAddr>) -> bool {
        self.sources.is_empty()
            || source.is_some_and(|address| self.sources.iter().any(|cidr| cidr.contains(address)))
    }
}

impl GrantFacts<'_> {
    /// Tells whether the grant holds at a moment.
    #[must_use]
    pub fn in_force(&self, now: UnixMillis) -> bool {
        self.not_before.is_none_or(|from| from <= now) && is_ahead(self.expires_at, now)
    }
}

/// Tells whether an end, if there is one, lies ahead.
pub(super) fn is_ahead(end: Option<UnixMillis>, now: UnixMillis) -> bool {
    end.is_none_or(|end| end > now)
}
