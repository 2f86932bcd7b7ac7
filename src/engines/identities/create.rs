//! Registers an identity.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::administrators::administrators;
use super::{Described, LONG, check_text};
use crate::error::{Error, Result};
use crate::policy::SubjectFacts;
use crate::store::identities::{self, IdentityRow, MemberRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    Id, IdentityId, IdentityName, IdentityState, Kind, RequestContext, ResourceName, Tier,
    UnixMillis,
};
use crate::vault::{Decision, GOVERNS, Operation, Resource, RetryKey, Verb, View, is_active};

/// Registers an identity. One that the bootstrap certificate registers is an administrator from
/// the same commit on.
#[derive(Debug, Clone)]
pub struct CreateIdentity {
    /// Its name, never used before.
    pub name: IdentityName,
    /// What stands behind it.
    pub kind: Kind,
    /// The human that answers for it; a human's own.
    pub owner: Option<IdentityName>,
    /// What it is for.
    pub purpose: String,
    /// How much harm its misuse could do.
    pub tier: Tier,
    /// How long it lives; machines must end.
    pub ttl: Option<Duration>,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

/// What is to be registered.
#[derive(Debug)]
pub struct Prepared {
    id: IdentityId,
    owner: IdentityId,
    member: Id,
    expires_at: Option<UnixMillis>,
}

impl CreateIdentity {
    /// Finds the human that is to answer for a machine.
    async fn owner(&self, view: &View) -> Result<Option<Versioned<IdentityRow>>> {
        let Some(name) = self.owner.clone().filter(|_| self.kind.is_machine()) else {
            return Ok(None);
        };
        view.read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed())
            .await
    }

    /// Checks the request by itself.
    fn check(&self) -> Result<()> {
        check_text("a purpose", &self.purpose, LONG)?;
        if self.kind == Kind::Bootstrap {
            return Err(Error::invalid(
                "the bootstrap identity is made with the vault, and only then",
            ));
        }
        if self.kind.is_machine() {
            if self.owner.is_none() {
                return Err(Error::invalid("a machine has an owner: name the human"));
            }
            if self.ttl.is_none() {
                return Err(Error::invalid("a machine must end: say how long it lives"));
            }
        } else if self.owner.as_ref().is_some_and(|owner| *owner != self.name) {
            return Err(Error::invalid("a human is their own owner"));
        }
        Ok(())
    }

    /// Checks the owner of a machine as it was decided on.
    async fn check_owner(&self, view: &View, decision: &Decision) -> Result<IdentityId> {
        let found = self.owner(view).await?;
        let owner = found.ok_or_else(|| Error::not_found("there is no owner of that name"))?;
        if owner.row.kind != Kind::Human || !is_active(&owner.row, view.now()) {
            return Err(Error::precondition("an owner is an active human"));
        }
        if decision.resource()?.owner != Some(owner.row.id) {
            // Registered since this was decided: the fence does not hold it.
            return Err(Error::Conflict("the owner changed; retry".into()));
        }
        Ok(owner.row.id)
    }
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
                Some(owner) => is_active(&owner.row, view.now()),
                None => !self.kind.is_machine(),
            },
            owner_expires_at: owner.as_ref().and_then(|owner| owner.row.expires_at),
        });
        if let Some(owner) = owner {
            resource.owner = Some(owner.row.id);
            resource.rows.push(owner.fence());
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        self.check()?;
        let id = IdentityId(view.new_id()?);
        let owner =
            if self.kind.is_machine() { self.check_owner(view, decision).await? } else { id };
        let expires_at = self.ttl.map(|ttl| view.now().plus(ttl)).transpose()?;
        Ok(Prepared { id, owner, member: view.new_id()?, expires_at })
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Described> {
        let id = made.parse()?;
        view.read(move |tx| Described::find(tx, id).boxed()).await
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
        tx.insert(&IdentityRow {
            id: prepared.id,
            name: self.name.clone(),
            kind: self.kind,
            state: IdentityState::Active,
            owner: prepared.owner,
            purpose: self.purpose.clone(),
            tier: self.tier,
            labels: "{}".to_owned(),
            expires_at: prepared.expires_at,
            revocation_epoch: 1,
            authority_rev: 1,
            created_at: ctx.now,
            created_by: by.clone(),
            changed_at: ctx.now,
            changed_by: by.clone(),
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
        Described::find(tx, prepared.id).await
    }
}
