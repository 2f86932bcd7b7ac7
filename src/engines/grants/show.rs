//! Shows one grant.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::identities::{self, GrantRow, GroupRow, IdentityRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    GrantId, GroupId, Id, IdentityId, IdentityName, RequestContext, ResourceName, Segment,
    UnixMillis,
};
use crate::vault::{Decision, Operation, READS, Resource, Terms, Verb, View};

/// Whom a grant is for, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantTo {
    /// One identity.
    Identity(IdentityName),
    /// Every member of a group.
    Group(Segment),
}

impl GrantTo {
    /// Shows the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Identity(name) => name.as_str(),
            Self::Group(name) => name.as_str(),
        }
    }

    /// Finds who it is.
    pub(super) async fn find(&self, tx: &mut Tx) -> Result<Option<Holder>> {
        Ok(match self {
            Self::Identity(name) => {
                identities::identity_named(tx, name).await?.map(Holder::Identity)
            }
            Self::Group(name) => identities::group_named(tx, name).await?.map(Holder::Group),
        })
    }
}

/// Who holds a grant, by row.
#[derive(Debug, Clone)]
pub(super) enum Holder {
    Identity(Versioned<IdentityRow>),
    Group(Versioned<GroupRow>),
}

impl Holder {
    pub(super) fn id(&self) -> Id {
        match self {
            Self::Identity(found) => found.row.id.0,
            Self::Group(found) => found.row.id.0,
        }
    }

    /// Moves the holder's row on, which fences its grants.
    pub(super) async fn touch(
        ctx: &RequestContext,
        tx: &mut Tx,
        id: Id,
        is_group: bool,
    ) -> Result<()> {
        let missing = || Error::internal("a grant without its holder");
        if is_group {
            let found = tx.lookup::<GroupRow>(&id).await?.ok_or_else(missing)?;
            let Versioned { mut row, version } = found;
            row.authority_rev = row.authority_rev.saturating_add(1);
            row.changed_at = ctx.now;
            row.changed_by = ctx.actor();
            tx.update(version, &row).await?;
        } else {
            let found = tx.lookup::<IdentityRow>(&id).await?.ok_or_else(missing)?;
            let Versioned { mut row, version } = found;
            row.authority_rev = row.authority_rev.saturating_add(1);
            row.changed_at = ctx.now;
            row.changed_by = ctx.actor();
            tx.update(version, &row).await?;
        }
        Ok(())
    }
}

/// A grant, with names for ids.
#[derive(Debug, Clone)]
pub struct DescribedGrant {
    /// Its row.
    pub grant: GrantRow,
    /// Whom it is for.
    pub to: GrantTo,
    /// When it begins, and its conditions.
    pub terms: Terms,
    /// Who gave it.
    pub created_by: String,
    /// Who removed it; empty where nobody did.
    pub ended_by: String,
    /// When a decision last stood on it.
    pub last_used_at: Option<UnixMillis>,
}

impl DescribedGrant {
    /// Reads what belongs to a row.
    pub(super) async fn read(tx: &mut Tx, names: &mut Names, grant: GrantRow) -> Result<Self> {
        let ended = if grant.active { "" } else { grant.changed_by.as_str() };
        Ok(Self {
            to: holder(tx, names, &grant).await?,
            terms: Terms::read(&grant.conditions)?,
            created_by: names.actor(tx, &grant.created_by).await?,
            ended_by: names.actor(tx, ended).await?,
            last_used_at: identities::grant_last_used(tx, grant.id).await?,
            grant,
        })
    }

    /// Reads the grant with an id.
    pub(super) async fn find(tx: &mut Tx, id: GrantId) -> Result<Self> {
        let found = tx.lookup::<GrantRow>(&id).await?.ok_or_else(unknown)?;
        Self::read(tx, &mut Names::default(), found.row).await
    }
}

async fn holder(tx: &mut Tx, names: &mut Names, grant: &GrantRow) -> Result<GrantTo> {
    Ok(if grant.subject_is_group {
        GrantTo::Group(names.group(tx, GroupId(grant.subject)).await?)
    } else {
        GrantTo::Identity(names.identity(tx, IdentityId(grant.subject)).await?)
    })
}

/// Answers an allowed caller that there is no such grant.
pub(super) fn unknown() -> Error {
    Error::not_found("there is no grant with that id")
}

/// Names a grant as a resource by whom it is for; one that does not exist by its id.
pub(super) async fn resource(view: &View, id: GrantId) -> Result<Resource> {
    let found = view
        .read(move |tx| {
            async move {
                let Some(grant) = tx.lookup::<GrantRow>(&id).await? else { return Ok(None) };
                let to = holder(tx, &mut Names::default(), &grant.row).await?;
                Ok(Some((grant, to)))
            }
            .boxed()
        })
        .await?;
    Ok(match found {
        Some((grant, to)) => {
            let name = ResourceName::join("grants", &[to.as_str()])?;
            Resource::named(name).with_row(id.0, &grant)
        }
        None => Resource::named(ResourceName::join("grants", &[&id.to_string()])?),
    })
}

/// Shows a grant, removed or not.
#[derive(Debug, Clone, Copy)]
pub struct ShowGrant {
    /// Its id.
    pub id: GrantId,
}

#[async_trait]
impl Verb for ShowGrant {
    const ACTION: &'static str = "grants.show";
    type Prepared = DescribedGrant;
    type Output = DescribedGrant;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.id).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<DescribedGrant> {
        let id = self.id;
        view.read(move |tx| DescribedGrant::find(tx, id).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowGrant {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &DescribedGrant,
        _: &Decision,
    ) -> Result<DescribedGrant> {
        Ok(prepared.clone())
    }
}
