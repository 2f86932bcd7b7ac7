//! Shows one identity.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::labels::read_labels;
use super::{Former, Names};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityId, IdentityName, Owner, OwnerName, RequestContext, ResourceName, Segment, UnixMillis,
};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// An identity, with names for ids.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its row.
    pub identity: Versioned<IdentityRow>,
    /// Who answers for it.
    pub owner: OwnerName,
    /// Whether somebody does: an active human, or a group with one.
    pub owner_active: bool,
    /// Who did within the day before the last transfer, and until when.
    pub former_owners: Vec<(OwnerName, UnixMillis)>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The groups it is in, by name.
    pub groups: Vec<Segment>,
    /// When it was last served.
    pub last_used_at: Option<UnixMillis>,
    /// Who registered it.
    pub created_by: String,
    /// Who last changed it.
    pub changed_by: String,
}

impl Described {
    /// Reads what belongs to a row.
    pub(super) async fn read(
        tx: &mut Tx,
        names: &mut Names,
        identity: Versioned<IdentityRow>,
        now: UnixMillis,
    ) -> Result<Self> {
        let row = &identity.row;
        let mut groups = Vec::new();
        for member in identities::memberships(tx, row.id).await? {
            groups.push(names.group(tx, member.row.group_id).await?);
        }
        groups.sort();
        let mut former_owners = Vec::new();
        for former in Former::read(&row.former_owners)? {
            former_owners.push((names.owner(tx, former.owner).await?, former.until));
        }
        let owner = names.answerable(tx, row.owner).await?;
        Ok(Self {
            owner: owner.name.clone(),
            owner_active: owner.is_active(now),
            former_owners,
            labels: read_labels(&row.labels)?,
            groups,
            last_used_at: identities::identity_last_used(tx, row.id).await?,
            created_by: names.actor(tx, &row.created_by).await?,
            changed_by: names.actor(tx, &row.changed_by).await?,
            identity,
        })
    }

    /// Reads the identity with an id.
    pub(super) async fn find(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<Self> {
        let row = tx.lookup::<IdentityRow>(&id).await?.ok_or_else(unknown)?;
        Self::read(tx, &mut Names::default(), row, now).await
    }
}

impl Described {
    /// As [`Described::find`], of what was just contained: a row beside it that is not what was
    /// sealed is an alarm, and no reason to leave it as it was. What it would say is then left out.
    pub(super) async fn contained(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<Self> {
        match Self::find(tx, id, now).await {
            Err(Error::Tampered { .. } | Error::Internal) => {}
            found => return found,
        }
        let identity = tx.lookup::<IdentityRow>(&id).await?.ok_or_else(unknown)?;
        let row = &identity.row;
        Ok(Self {
            owner: match row.owner {
                Owner::Identity(id) => OwnerName::Identity(id.to_string().parse()?),
                Owner::Group(id) => OwnerName::Group(id.to_string().parse()?),
            },
            owner_active: false,
            former_owners: Vec::new(),
            labels: read_labels(&row.labels)?,
            groups: Vec::new(),
            last_used_at: None,
            created_by: row.created_by.clone(),
            changed_by: row.changed_by.clone(),
            identity,
        })
    }
}

/// Answers an allowed caller that there is no such identity.
pub(super) fn unknown() -> Error {
    Error::not_found("there is no identity of that name")
}

/// Names an identity as a resource, whether it exists or not.
pub(super) async fn resource(view: &View, name: &IdentityName) -> Result<Resource> {
    Ok(described(view, name).await?.0)
}

/// As [`resource`], with the row where there is one.
pub(super) async fn described(
    view: &View,
    name: &IdentityName,
) -> Result<(Resource, Option<Versioned<IdentityRow>>)> {
    let wanted = name.clone();
    let found = view
        .read(move |tx| async move { Ok(identities::identity_named(tx, &wanted).await?) }.boxed())
        .await?;
    match found {
        Some(found) => Ok((of(&found)?, Some(found))),
        None => Ok((named(name)?, None)),
    }
}

fn named(name: &IdentityName) -> Result<Resource> {
    Ok(Resource::named(ResourceName::join("identities", &[name.as_str()])?))
}

/// An identity as a resource.
pub(super) fn of(identity: &Versioned<IdentityRow>) -> Result<Resource> {
    let mut resource = named(&identity.row.name)?.with_row(identity.row.id.0, identity);
    resource.owner = Some(identity.row.owner);
    resource.labels = read_labels(&identity.row.labels)?;
    Ok(resource)
}

/// The id of the identity that was decided on.
pub(super) fn decided(decision: &Decision) -> Result<IdentityId> {
    decision.resource()?.id.map(IdentityId).ok_or_else(unknown)
}

/// Shows an identity.
#[derive(Debug, Clone)]
pub struct ShowIdentity {
    /// Its name.
    pub name: IdentityName,
}

#[async_trait]
impl Verb for ShowIdentity {
    const ACTION: &'static str = "identities.show";
    type Prepared = Described;
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let subject = view.subject()?;
        let own = &subject.identity;
        if own.row.name != self.name {
            return Ok(vec![resource(view, &self.name).await?]);
        }
        // Looking at oneself is no administration, and one's own row is known.
        let mut resource = of(own)?;
        resource.identity = Some(subject.own_facts(view.now()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Described> {
        let (id, now) = (decided(decision)?, view.now());
        if id == view.identity()? {
            return view.read_own(move |tx| Described::find(tx, id, now).boxed()).await;
        }
        view.read(move |tx| Described::find(tx, id, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowIdentity {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Described,
        _: &Decision,
    ) -> Result<Described> {
        Ok(prepared.clone())
    }
}
