//! Shows a group and a page of its members.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::identities::{self, GroupRow, MemberRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{GroupId, IdentityName, RequestContext, ResourceName, Segment, UnixMillis};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// A group, with names for ids.
#[derive(Debug, Clone)]
pub struct DescribedGroup {
    /// Its row.
    pub group: Versioned<GroupRow>,
    /// Who made it.
    pub created_by: String,
    /// Who last changed it.
    pub changed_by: String,
}

/// A member, with names for ids.
#[derive(Debug, Clone)]
pub struct DescribedMember {
    /// The identity.
    pub identity: IdentityName,
    /// When it was added.
    pub added_at: UnixMillis,
    /// By whom.
    pub added_by: String,
}

/// A group and a page of its members.
#[derive(Debug, Clone)]
pub struct GroupPage {
    /// The group.
    pub group: DescribedGroup,
    /// The members.
    pub members: Vec<DescribedMember>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

impl DescribedGroup {
    /// Reads the group with an id.
    pub(super) async fn find(tx: &mut Tx, names: &mut Names, id: GroupId) -> Result<Self> {
        let group = tx.lookup::<GroupRow>(&id).await?.ok_or_else(unknown)?;
        Self::read(tx, names, group).await
    }

    /// Reads what belongs to a row.
    pub(super) async fn read(
        tx: &mut Tx,
        names: &mut Names,
        group: Versioned<GroupRow>,
    ) -> Result<Self> {
        Ok(Self {
            created_by: names.actor(tx, &group.row.created_by).await?,
            changed_by: names.actor(tx, &group.row.changed_by).await?,
            group,
        })
    }
}

impl DescribedMember {
    /// Reads what belongs to a membership.
    pub(super) async fn read(tx: &mut Tx, names: &mut Names, row: &MemberRow) -> Result<Self> {
        Ok(Self {
            identity: names.identity(tx, row.identity_id).await?,
            added_at: row.changed_at,
            added_by: names.actor(tx, &row.changed_by).await?,
        })
    }
}

/// Answers an allowed caller that there is no such group.
fn unknown() -> Error {
    Error::not_found("there is no group of that name")
}

/// Names a group as a resource, whether it exists or not.
pub(super) async fn resource(view: &View, name: &Segment) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("groups", &[name.as_str()])?);
    let name = name.clone();
    let found = view
        .read(move |tx| async move { Ok(identities::group_named(tx, &name).await?) }.boxed())
        .await?;
    Ok(match found {
        Some(found) => resource.with_row(found.row.id.0, &found),
        None => resource,
    })
}

/// The id of the group that was decided on.
pub(super) fn decided(decision: &Decision) -> Result<GroupId> {
    decision.resource()?.id.map(GroupId).ok_or_else(unknown)
}

/// Shows a group and a page of its members.
#[derive(Debug, Clone)]
pub struct ShowGroup {
    /// Its name.
    pub name: Segment,
    /// Members at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ShowGroup {
    const ACTION: &'static str = "groups.show";
    type Prepared = GroupPage;
    type Output = GroupPage;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<GroupPage> {
        let id = decided(decision)?;
        let tokens = PageToken::new(view, Self::ACTION, self.name.as_str())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (after, limit) = (page.after.clone(), page.size + 1);
        let (group, rows) = view
            .read(move |tx| {
                async move {
                    let mut names = Names::default();
                    let group = DescribedGroup::find(tx, &mut names, id).await?;
                    let mut members = Vec::new();
                    for member in identities::members_after(tx, id, &after, limit).await? {
                        members.push(DescribedMember::read(tx, &mut names, &member.row).await?);
                    }
                    Ok((group, members))
                }
                .boxed()
            })
            .await?;
        let (members, next) = tokens.cut(view, &page, rows, |last| last.identity.to_string())?;
        Ok(GroupPage { group, members, next })
    }
}

#[async_trait]
impl Operation for ShowGroup {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &GroupPage,
        _: &Decision,
    ) -> Result<GroupPage> {
        Ok(prepared.clone())
    }
}
