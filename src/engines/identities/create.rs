//! Registers an identity.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::administrators::administrators;
use super::labels::{check_labels, write_labels};
use super::owner::{check_team, decided_owner, find_owner};
use super::text::check_purpose;
use super::{Described, LONG, check_text};
use crate::error::{Error, Result};
use crate::policy::SubjectFacts;
use crate::store::identities::{IdentityRow, MemberRow};
use crate::store::{Needs, Tx};
use crate::types::{
    Id, IdentityId, IdentityName, IdentityState, Kind, Owner, OwnerName, RequestContext,
    ResourceName, Segment, Tier, UnixMillis,
};
use crate::vault::{Answerable, Decision, GOVERNS, Operation, Resource, RetryKey, Verb, View};

/// How long a machine lives where nobody says.
const MACHINE_LASTS: Duration = Duration::from_hours(90 * 24);
/// The longest that a machine may be given at once.
const MACHINE_MOST: Duration = Duration::from_hours(365 * 24);

/// Registers an identity. One that the bootstrap certificate registers is an administrator from
/// the same commit on.
#[derive(Debug, Clone)]
pub struct CreateIdentity {
    /// Its name, never used before.
    pub name: IdentityName,
    /// What stands behind it.
    pub kind: Kind,
    /// Who answers for it; a human for itself.
    pub owner: Option<OwnerName>,
    /// Of a human: which person it is; an id of its own where this is left out.
    pub person: Option<Segment>,
    /// What it is for.
    pub purpose: String,
    /// What it has to reach, in words.
    pub needs: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How much harm its misuse could do.
    pub tier: Tier,
    /// How long it lives; a machine for 90 days where this is left out, a human for ever.
    pub ttl: Option<Duration>,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

/// What is to be registered.
#[derive(Debug)]
pub struct Prepared {
    id: IdentityId,
    owner: Owner,
    person: Option<Segment>,
    labels: String,
    member: Id,
    expires_at: Option<UnixMillis>,
}

impl CreateIdentity {
    /// Finds who is to answer for a machine.
    async fn owner(&self, view: &View) -> Result<Option<Answerable>> {
        match self.owner.as_ref().filter(|_| self.kind.is_machine()) {
            Some(name) => find_owner(view, name).await,
            None => Ok(None),
        }
    }

    /// Checks the request by itself.
    fn check(&self) -> Result<()> {
        check_purpose(&self.purpose)?;
        check_text("what it needs", &self.needs, LONG)?;
        check_labels(&self.labels)?;
        if self.kind == Kind::Bootstrap {
            return Err(Error::invalid(
                "the bootstrap identity is made with the vault, and only then",
            ));
        }
        if self.kind.is_machine() {
            if self.owner.is_none() {
                return Err(Error::invalid("a machine has an owner: name a human or a group"));
            }
            if self.person.is_some() {
                return Err(Error::invalid("a machine is no person"));
            }
            return check_machine_ttl(self.ttl);
        }
        let own = OwnerName::Identity(self.name.clone());
        if self.owner.as_ref().is_some_and(|owner| *owner != own) {
            return Err(Error::invalid("a human is their own owner"));
        }
        Ok(())
    }
}

/// Checks how long a machine is to live.
///
/// # Errors
/// [`Error::Invalid`] when it is too long.
pub(super) fn check_machine_ttl(ttl: Option<Duration>) -> Result<()> {
    if ttl.is_some_and(|ttl| ttl > MACHINE_MOST) {
        return Err(Error::invalid("a machine ends within 365 days; its end can be moved later"));
    }
    Ok(())
}

#[async_trait]
impl Verb for CreateIdentity {
    const ACTION: &'static str = "identities.create";
    type Prepared = Prepared;
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let name = ResourceName::join("identities", &[self.name.as_str()])?;
        let mut resource = Resource::named(name);
        let owner = self.owner(view).await?;
        let by_bootstrap = view.subject()?.identity.row.kind == Kind::Bootstrap;
        resource.identity = Some(SubjectFacts {
            id: None,
            kind: self.kind,
            administrator: by_bootstrap && self.kind == Kind::Human,
            registered_by: None,
            has_certificate: false,
            owner_active: match &owner {
                Some(owner) => owner.is_active(view.now()),
                None => !self.kind.is_machine(),
            },
            owner_expires_at: owner.as_ref().and_then(Answerable::expires_at),
        });
        if let Some(owner) = owner {
            resource.owner = Some(owner.owner);
            resource.rows.extend(owner.fence());
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        self.check()?;
        let id = IdentityId(view.new_id()?);
        let (owner, person) = match self.owner.as_ref().filter(|_| self.kind.is_machine()) {
            Some(name) => (decided_owner(view, decision, name).await?.owner, None),
            None => (Owner::Identity(id), Some(self.person.clone())),
        };
        let own = || id.to_string().parse();
        let person = person.map(|given| given.map_or_else(own, Ok)).transpose()?;
        let usual = self.kind.is_machine().then_some(MACHINE_LASTS);
        let expires_at = self.ttl.or(usual).map(|ttl| view.now().plus(ttl)).transpose()?;
        let labels = write_labels(&self.labels)?;
        Ok(Prepared { id, owner, person, labels, member: view.new_id()?, expires_at })
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Described> {
        let (id, now) = (made.parse()?, view.now());
        view.read(move |tx| Described::find(tx, id, now).boxed()).await
    }
}

#[async_trait]
impl Operation for CreateIdentity {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        decision: &Decision,
    ) -> Result<Described> {
        let by = ctx.actor();
        check_team(tx, prepared.owner).await?;
        tx.insert(&IdentityRow {
            id: prepared.id,
            name: self.name.clone(),
            kind: self.kind,
            state: IdentityState::Registered,
            owner: prepared.owner,
            owned_since: ctx.now,
            former_owners: "[]".to_owned(),
            person: prepared.person.clone(),
            purpose: self.purpose.clone(),
            needs: self.needs.clone(),
            tier: self.tier,
            labels: prepared.labels.clone(),
            expires_at: prepared.expires_at,
            revocation_epoch: 1,
            authority_rev: 1,
            created_at: ctx.now,
            created_by: by.clone(),
            changed_at: ctx.now,
            changed_by: by.clone(),
            changers: String::new(),
        })
        .await?;
        if decision.resource()?.identity.is_some_and(|subject| subject.administrator) {
            let group = administrators(tx).await?;
            tx.insert(&MemberRow {
                id: prepared.member,
                group_id: group.row.id,
                identity_id: prepared.id,
                active: true,
                changed_at: ctx.now,
                changed_by: by,
            })
            .await?;
        }
        Described::find(tx, prepared.id, ctx.now).await
    }
}
