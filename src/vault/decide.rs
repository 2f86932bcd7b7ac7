//! Deciding: facts in, one verdict out, and the fence that it stands on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::core::Core;
use super::subject::Kin;
use super::{Resource, Subject, Under};
use crate::error::{Error, Result};
use crate::policy::{Basis, CallerFacts, Facts, Policy, ResourceFacts, Verdict};
use crate::store::lifecycles::LifecycleRow;
use crate::store::{Fence, RowRef};
use crate::types::{
    AuthMethod, Authenticated, Caller, CredentialId, ElevationId, IdentityId, RequestContext,
    ResourceName, UnixMillis, Verb,
};

/// How long an unmoved epoch stands for unmoved rows, in milliseconds.
const COMPARED_MS: i64 = 1_000;
/// No commit has this epoch.
const NO_EPOCH: i64 = -1;
/// Decisions kept.
const KEPT: usize = 50_000;

/// A decision, with everything that it stood on.
#[derive(Debug)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Who asked; none for the vault's own workers.
    pub subject: Option<Arc<Subject>>,
    /// What is touched.
    pub resources: Vec<Resource>,
    /// The rows behind it.
    rows: Arc<[RowRef]>,
    /// The authority epoch at which all of that was last known to stand.
    epoch: AtomicI64,
    /// When its rows were last compared, Unix milliseconds.
    compared: AtomicI64,
}

impl Decision {
    /// What the commit has to find unchanged.
    ///
    /// At least once a second the rows are compared whatever the epoch says, because the epoch is
    /// a plain row: one that somebody set back must not keep a decision alive.
    #[must_use]
    pub fn fence(&self, now: UnixMillis) -> Fence {
        let compared = self.compared.load(Ordering::Acquire);
        let epoch = if now.0.saturating_sub(compared) >= COMPARED_MS {
            self.compared.store(now.0, Ordering::Release);
            NO_EPOCH
        } else {
            self.known_at()
        };
        Fence { epoch, rows: Arc::clone(&self.rows) }
    }

    /// The authority epoch at which it was last known to stand.
    pub(super) fn known_at(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes notice that all of it stood at a commit's epoch.
    pub(super) fn stood_at(&self, epoch: i64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// The first resource: what most operations have one of.
    ///
    /// # Errors
    /// [`Error::Internal`] when there is none, which deciding excludes.
    pub fn resource(&self) -> Result<&Resource> {
        self.resources.first().ok_or_else(|| Error::internal("a decision on nothing"))
    }

    /// When what is issued for an action ends at the latest: with its caller, and with the grants
    /// that this decision stood on.
    #[must_use]
    pub fn end(&self, action: &str) -> Option<UnixMillis> {
        let subject = self.subject.as_ref()?;
        let grants = match &self.verdict.by {
            Basis::Grants(grants) => grants.as_slice(),
            Basis::Rule(_) => &[],
        };
        let ends = subject.grants(action).filter(|held| grants.contains(&held.row.id));
        let under = self.under().end();
        let ends = ends.filter_map(|held| held.row.expires_at);
        ends.chain(subject.identity.row.expires_at).chain(under).min()
    }

    /// The elevations that what is made ends with: those of the credential that asks, and the one
    /// that allowed it.
    #[must_use]
    pub fn under(&self) -> Under {
        let mut under = Under::default();
        let Some(subject) = self.subject.as_ref() else { return under };
        under.add(subject.under());
        if let (Basis::Grants(grants), Some(elevation)) = (&self.verdict.by, &subject.elevation) {
            under.add(grants.iter().any(|id| elevation.is(*id)).then(|| elevation.end()));
        }
        under
    }

    /// As [`Decision::under`], as the row of a credential holds them.
    ///
    /// # Errors
    /// As [`Under::ids`].
    pub fn elevations(&self) -> Result<[Option<ElevationId>; 2]> {
        self.under().ids([None, None])
    }

    /// Caps how long something lives by the obligations.
    #[must_use]
    pub fn oblige_ttl_s(&self, ttl_s: u64) -> u64 {
        self.verdict.obligations.max_ttl_s.map_or(ttl_s, |most| ttl_s.min(most))
    }

    /// Caps a time to live by the obligations, and by how the identities of the caller's kind live.
    #[must_use]
    pub fn cap_ttl_s(&self, ttl_s: u64) -> u64 {
        self.cap(ttl_s, |lifecycle| lifecycle.max_ttl_s)
    }

    /// Caps how long something may live however often it is renewed, by the same.
    #[must_use]
    pub fn cap_age_s(&self, age_s: u64) -> u64 {
        self.cap(age_s, |lifecycle| lifecycle.max_age_s)
    }

    fn cap(&self, span_s: u64, most_s: impl Fn(&LifecycleRow) -> i64) -> u64 {
        let most_s = self.subject.as_ref().map(|subject| most_s(&subject.lifecycle.row));
        let most_s = most_s.and_then(|most_s| u64::try_from(most_s).ok());
        self.oblige_ttl_s(most_s.map_or(span_s, |most_s| span_s.min(most_s)))
    }
}

/// Decides, from what was kept where everything that was read is the same.
pub(super) fn decide(
    core: &Core,
    ctx: &RequestContext,
    action: &'static str,
    subject: Option<Arc<Subject>>,
    resources: Vec<Resource>,
    epoch: i64,
    spending: bool,
) -> Result<Arc<Decision>> {
    let credential = ctx.authenticated().map(|caller| caller.credential);
    if let (Some(credential), [resource]) = (credential, resources.as_slice())
        && let Some(kept) = core.decisions.lookup(ctx, credential, action, resource)
        // One who was loaded again since, because something moved, is decided on again: what a
        // decision stood on and what its call looks at is one caller.
        && same(kept.subject.as_ref(), subject.as_ref())
    {
        return Ok(kept);
    }
    let verdict = verdict(core, ctx, action, subject.as_deref(), &resources)?;
    let epoch = subject.as_ref().map_or(epoch, |subject| subject.epoch.min(epoch));
    let rows = subject.iter().flat_map(|subject| subject.rows.iter());
    let rows = rows.chain(resources.iter().flat_map(|resource| &resource.rows)).cloned();
    // Whoever takes a use from the credential's row compares that one itself.
    let own = subject.as_ref().filter(|_| !spending).map(|one| one.credential.fence());
    let rows = rows.chain(own).collect();
    let decision = Arc::new(Decision {
        verdict,
        subject,
        resources,
        rows,
        epoch: AtomicI64::new(epoch),
        compared: AtomicI64::new(ctx.now.0),
    });
    if let (Some(credential), [resource]) = (credential, decision.resources.as_slice()) {
        core.decisions.keep((credential, action, resource.name.clone()), &decision);
    }
    Ok(decision)
}

fn same(one: Option<&Arc<Subject>>, other: Option<&Arc<Subject>>) -> bool {
    one.zip(other).is_some_and(|(one, other)| Arc::ptr_eq(one, other))
}

/// What policy says, and what a token may not do whatever policy says.
fn verdict(
    core: &Core,
    ctx: &RequestContext,
    action: &'static str,
    subject: Option<&Subject>,
    resources: &[Resource],
) -> Result<Verdict> {
    let administrative = Verb::lookup(action).is_none_or(|verb| verb.administrative);
    let asks = subject.zip(ctx.authenticated());
    let evaluate = || evaluate(&core.policy, ctx, (action, administrative), asks, resources);
    let verdict = if let (Some((subject, caller)), [resource]) = (asks, resources) {
        let asked = (subject, caller.method, action, resource);
        match core.decisions.of_kin(ctx.now, asked) {
            Some(verdict) => Ok(verdict),
            None => evaluate().inspect(|verdict| core.decisions.keep_for_kin(asked, verdict)),
        }
    } else {
        evaluate()
    }?;
    let objection = asks.filter(|_| verdict.allow).and_then(|(subject, caller)| {
        subject.objection(caller.method, action, administrative, resources)
    });
    Ok(match objection {
        Some(reason) => Verdict::refuse(reason, verdict.valid_until),
        None => verdict,
    })
}

/// Tells whether a caller may do something to one thing, from nothing that was kept.
pub(super) fn may(
    core: &Core,
    ctx: &RequestContext,
    action: &'static str,
    subject: &Subject,
    resource: &Resource,
) -> Result<bool> {
    let administrative = Verb::lookup(action).is_none_or(|verb| verb.administrative);
    let caller = ctx.authenticated().ok_or_else(|| Error::internal("nobody asks"))?;
    let (asks, resources) = (Some((subject, caller)), std::slice::from_ref(resource));
    // What a token may not do whatever policy says costs less to ask.
    if subject.objection(caller.method, action, administrative, resources).is_some() {
        return Ok(false);
    }
    Ok(evaluate(&core.policy, ctx, (action, administrative), asks, resources)?.allow)
}

fn evaluate(
    policy: &Policy,
    ctx: &RequestContext,
    (action, administrative): (&'static str, bool),
    asks: Option<(&Subject, &Authenticated)>,
    resources: &[Resource],
) -> Result<Verdict> {
    let facts: Vec<_> = resources
        .iter()
        .map(|resource| ResourceFacts {
            name: &resource.name,
            owner: resource.owner,
            holder: resource.holder,
            labels: &resource.labels,
            identity: resource.identity,
        })
        .collect();
    let subject = asks.map(|(subject, _)| subject);
    let groups = subject.map(Subject::group_facts).unwrap_or_default();
    let identity = subject.map(|subject| subject.facts(&groups, ctx.now));
    let grants = subject.map(|subject| subject.grant_facts(action)).unwrap_or_default();
    let factors = subject.map(Subject::factor_facts).unwrap_or_default();
    let caller = match (&ctx.caller, subject, &identity) {
        (Caller::System(worker), _, _) => CallerFacts::System(worker),
        (Caller::Identity(caller), Some(subject), Some(identity)) => {
            let credential = subject.credential_facts(caller.method, &factors);
            CallerFacts::Identity { identity, credential }
        }
        (Caller::Identity(_), _, _) => return Err(Error::internal("a caller without its facts")),
    };
    Ok(policy.evaluate(&Facts {
        caller,
        action,
        administrative,
        resources: &facts,
        grants: &grants,
        now: ctx.now,
        source: ctx.source,
    }))
}

type Key = (CredentialId, &'static str, ResourceName);
type KinKey = (IdentityId, &'static str, &'static str, ResourceName);
/// Who asks by what, for what, on what.
type Asked<'a> = (&'a Subject, AuthMethod, &'static str, &'a Resource);

/// What policy said, with the reading of the identity and the resource that it was said of.
type OfKin = (Arc<Kin>, Resource, Verdict);

/// Decisions kept, each only under everything that it read.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_credential: Mutex<HashMap<Key, Arc<Decision>>>,
    /// What policy said to one token of an identity holds for its others, which differ in nothing
    /// that policy reads but their end, where no factor was proven with them and nobody signed in
    /// for them: whoever shows a new token with each call is not evaluated anew each time. When each
    /// was issued, its `auth_time`, is told to policy and read by none but the conditions of a grant,
    /// of which the verdict says that it depends on the login: there is the built-in policy alone,
    /// and its tests hold it to that. A policy that reads it needs it in the key.
    by_kin: Mutex<HashMap<KinKey, OfKin>>,
}

impl Decisions {
    fn lookup(
        &self,
        ctx: &RequestContext,
        credential: CredentialId,
        action: &'static str,
        resource: &Resource,
    ) -> Option<Arc<Decision>> {
        let key = (credential, action, resource.name.clone());
        let kept = self.by_credential.lock().get(&key).cloned()?;
        let same = kept.resources.first() == Some(resource)
            && kept.verdict.valid_until.is_none_or(|until| until > ctx.now);
        same.then_some(kept)
    }

    fn keep(&self, key: Key, decision: &Arc<Decision>) {
        let unkept = |subject: &Arc<Subject>| subject.is_large() || subject.is_counted();
        let large = decision.subject.as_ref().is_some_and(unkept);
        if !is_lasting(&decision.verdict) || large {
            return;
        }
        put(&mut self.by_credential.lock(), key, Arc::clone(decision));
    }

    /// What policy said to the same identity, as of the same reading, on the same resource.
    fn of_kin(&self, now: UnixMillis, asked: Asked<'_>) -> Option<Verdict> {
        let (subject, .., resource) = asked;
        let kept = self.by_kin.lock();
        let (kin, on, verdict) = kept.get(&kin_key(asked))?;
        let plain = is_plain(subject);
        let same = plain && Arc::ptr_eq(kin, subject.kin()) && on == resource;
        let stands = verdict.valid_until.is_none_or(|until| until > now);
        // Its own end is not later than what it may be kept for.
        let end = subject.credential.row.expires_at;
        let until = verdict.valid_until.map_or(end, |until| until.min(end));
        (same && stands).then(|| Verdict { valid_until: Some(until), ..verdict.clone() })
    }

    fn keep_for_kin(&self, asked: Asked<'_>, verdict: &Verdict) {
        let (subject, .., resource) = asked;
        let plain = is_plain(subject);
        if plain && is_lasting(verdict) && !subject.is_large() {
            let kept = (Arc::clone(subject.kin()), resource.clone(), verdict.clone());
            put(&mut self.by_kin.lock(), kin_key(asked), kept);
        }
    }

    pub(super) fn clear(&self) {
        self.by_credential.lock().clear();
        self.by_kin.lock().clear();
    }
}

/// Tells whether policy reads nothing of a credential that another token of its identity has not.
fn is_plain(subject: &Subject) -> bool {
    subject.token.is_some() && subject.proven.is_empty() && subject.signed_in().is_none()
}

fn kin_key((subject, method, action, resource): Asked<'_>) -> KinKey {
    (subject.identity.row.id, method.as_str(), action, resource.name.clone())
}

/// A refusal is decided anew each time, so that a new grant is seen at once.
const fn is_lasting(verdict: &Verdict) -> bool {
    verdict.allow && !verdict.depends_on_source && !verdict.depends_on_login
}

fn put<K: Eq + Hash, V>(kept: &mut HashMap<K, V>, key: K, value: V) {
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(key, value);
}
