//! Adds a grant.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::show::Holder;
use super::{DescribedGrant, GrantTo};
use crate::audit::Field;
use crate::engines::identities::{LONG, SHORT, check_text, orphaned};
use crate::error::{Error, Result};
use crate::policy::{GrantOrigin, Granter, LoginTerms, Mask, Proposal, Receiver};
use crate::store::identities::{self, GrantRow};
use crate::store::{Needs, Tx};
use crate::types::{
    GrantId, Id, IdentityState, RequestContext, ResourceName, ResourcePattern, UnixMillis,
};
use crate::vault::{
    Answerable, Decision, GOVERNS, GRANTS, Note, Operation, Resource, RetryKey, Terms, Verb, View,
};

/// Networks that one grant may name.
const NETWORKS: usize = 64;
/// Fields that one grant may mask.
const MASKS: usize = 64;
/// Methods, and groups of a provider, of which one grant may want one.
const WORDS: usize = 16;

/// Gives a grant.
#[derive(Debug, Clone)]
pub struct AddGrant {
    /// Whom it is for.
    pub to: GrantTo,
    /// The action.
    pub action: String,
    /// What the action is allowed on.
    pub resource: ResourcePattern,
    /// When it begins, and its conditions.
    pub terms: Terms,
    /// Why.
    pub reason: String,
    /// The ticket that asked for it.
    pub ticket: String,
    /// How long it lives; until it is removed where there is none.
    pub ttl: Option<Duration>,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

/// What is to be given.
#[derive(Debug)]
pub struct Prepared {
    id: GrantId,
    holder: Id,
    expires_at: Option<UnixMillis>,
}

impl AddGrant {
    /// Finds whom it is for, with who answers for one identity.
    async fn find(&self, view: &View) -> Result<Option<(Holder, Option<Answerable>)>> {
        let to = self.to.clone();
        let found = view.read(move |tx| {
            async move {
                let Some(holder) = to.find(tx).await? else { return Ok(None) };
                let owner = match &holder {
                    Holder::Identity(found) => Some(Answerable::of(tx, found).await?),
                    Holder::Group(_) => None,
                };
                Ok(Some((holder, owner)))
            }
            .boxed()
        });
        found.await
    }

    /// Checks that the grant may exist, and that this caller may give it.
    fn check(&self, view: &View, holder: &Holder, expires_at: Option<UnixMillis>) -> Result<()> {
        let receiver = match holder {
            Holder::Identity(found) => {
                Receiver::Identity { name: &found.row.name, kind: found.row.kind }
            }
            Holder::Group(found) => Receiver::Group(&found.row.name),
        };
        let proposal = Proposal {
            receiver,
            action: &self.action,
            resource: &self.resource,
            not_before: self.terms.not_before,
            expires_at,
            conditions: &self.terms.conditions,
            now: view.now(),
        };
        let subject = view.subject()?;
        let groups = subject.group_facts();
        let identity = subject.facts(&groups, view.now());
        let mut held = subject.grant_facts(&self.action);
        // What one has for a time is not passed on for good.
        held.retain(|one| one.origin == GrantOrigin::Given);
        proposal.check_granter(&Granter { identity: &identity, held: &held })?;
        proposal.validate().map(drop)
    }
}

/// Checks that there are not too many masks, and one of each field.
fn check_masks(masks: &[Mask]) -> Result<()> {
    if masks.len() > MASKS {
        return Err(Error::invalid(format!("a grant masks at most {MASKS} fields")));
    }
    let mut fields: Vec<_> = masks.iter().map(|mask| mask.field.as_str()).collect();
    fields.sort_unstable();
    fields.dedup();
    if fields.len() == masks.len() {
        return Ok(());
    }
    Err(Error::invalid("a grant masks a field in one way"))
}

/// Checks that what a grant wants of a login can be what a provider says.
fn check_login(login: &LoginTerms) -> Result<()> {
    for (what, wanted) in [("a method", &login.amr), ("a group of a provider", &login.groups)] {
        if wanted.len() > WORDS {
            return Err(Error::invalid(format!("a grant names {what} of at most {WORDS}")));
        }
        if wanted.iter().any(String::is_empty) {
            return Err(Error::invalid(format!("{what} has a name")));
        }
        for one in wanted {
            check_text(what, one, SHORT)?;
        }
    }
    Ok(())
}

#[async_trait]
impl Verb for AddGrant {
    const ACTION: &'static str = "grants.add";
    type Prepared = Prepared;
    type Output = DescribedGrant;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let name = ResourceName::join("grants", &[self.to.as_str()])?;
        let mut resource = Resource::named(name);
        if let Some((holder, owner)) = self.find(view).await? {
            resource.rows.push(match &holder {
                Holder::Identity(found) => found.fence(),
                Holder::Group(found) => found.fence(),
            });
            resource.rows.extend(owner.and_then(|owner| owner.fence()));
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        check_text("a reason", &self.reason, LONG)?;
        check_text("a ticket", &self.ticket, SHORT)?;
        if self.terms.conditions.sources.len() > NETWORKS {
            return Err(Error::invalid(format!("a grant names at most {NETWORKS} networks")));
        }
        check_masks(&self.terms.conditions.masks)?;
        check_login(&self.terms.conditions.login)?;
        let (holder, owner) = self.find(view).await?.ok_or_else(|| match self.to {
            GrantTo::Identity(_) => Error::not_found("there is no identity of that name"),
            GrantTo::Group(_) => Error::not_found("there is no group of that name"),
        })?;
        if let Holder::Identity(found) = &holder
            && found.row.state == IdentityState::Retired
        {
            return Err(Error::precondition("the identity is retired"));
        }
        // A human answers for itself: what it is given while it is contained waits for it.
        if let Holder::Identity(found) = &holder
            && found.row.kind.is_machine()
            && !owner.is_some_and(|owner| owner.is_active(view.now()))
        {
            return Err(orphaned());
        }
        let expires_at = self.ttl.map(|ttl| view.now().plus(ttl)).transpose()?;
        self.check(view, &holder, expires_at)?;
        Ok(Prepared { id: GrantId(view.new_id()?), holder: holder.id(), expires_at })
    }

    fn note(&self, _: &Prepared, note: &mut Note) {
        for (what, text) in [("", &self.reason), ("ticket ", &self.ticket)] {
            if !text.is_empty() {
                note.private.push((Field::Reason, format!("{what}{text}")));
            }
        }
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<DescribedGrant> {
        let id = made.parse()?;
        view.read(move |tx| DescribedGrant::find(tx, id).boxed()).await
    }
}

#[async_trait]
impl Operation for AddGrant {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<DescribedGrant> {
        if identities::count_grants(tx, prepared.holder).await? >= GRANTS {
            let full = format!("nobody holds more than {GRANTS} grants; remove some first");
            return Err(Error::Exhausted(full.into()));
        }
        let subject_is_group = matches!(self.to, GrantTo::Group(_));
        tx.insert(&GrantRow {
            id: prepared.id,
            subject: prepared.holder,
            subject_is_group,
            action: self.action.clone(),
            resource: self.resource.clone(),
            conditions: self.terms.to_json()?,
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
            expires_at: prepared.expires_at,
            active: true,
            created_at: ctx.now,
            created_by: ctx.actor(),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        })
        .await?;
        Holder::touch(ctx, tx, prepared.holder, subject_is_group).await?;
        DescribedGrant::find(tx, prepared.id).await
    }
}
