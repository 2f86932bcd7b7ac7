//! Elevation roles: configured by administrators, seen by everybody who may have to ask.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::definition::RoleDefinition;
use super::notify;
use super::propose::Proposal;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::elevations::{self as rows, ElevationRoleRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{FactorKind, Id, NoticeKind, ObjectId, RequestContext, ResourceName, Segment};
use crate::vault::{
    Decision, FRESH, GOVERNS, Operation, Page, PageToken, READS, Resource, Verb, View,
};

/// Names that stand for something else among the resources of this noun.
const RESERVED: [&str; 1] = ["roles"];

/// A role as it is shown.
#[derive(Debug, Clone)]
pub struct ElevationRole {
    /// Its row.
    pub role: Versioned<ElevationRoleRow>,
    /// What it says.
    pub definition: RoleDefinition,
    /// What it is to say, where somebody wants it changed, and the name of who does.
    pub proposal: Option<(Proposal, String)>,
    /// The name of who confirmed that, or what it says.
    pub confirmed_by: String,
    /// The name of who made it.
    pub created_by: String,
    /// The name of who last changed it.
    pub changed_by: String,
}

impl ElevationRole {
    pub(super) async fn of(
        tx: &mut Tx,
        names: &mut Names,
        role: Versioned<ElevationRoleRow>,
    ) -> Result<Self> {
        let proposal = Proposal::read(&role.row.proposal)?;
        let confirmed = proposal.as_ref().map_or(&role.row.confirmed_by, |it| &it.confirmed_by);
        let confirmed_by = match confirmed.as_str() {
            "" => String::new(),
            confirmed => names.actor(tx, confirmed).await?,
        };
        let proposal = match proposal {
            Some(proposal) => {
                let by = names.actor(tx, &proposal.by).await?;
                Some((proposal, by))
            }
            None => None,
        };
        Ok(Self {
            proposal,
            confirmed_by,
            definition: RoleDefinition::read(&role.row.definition)?,
            created_by: names.actor(tx, &role.row.created_by).await?,
            changed_by: names.actor(tx, &role.row.changed_by).await?,
            role,
        })
    }
}

/// Answers that there is no such role.
pub(super) fn no_such_role() -> Error {
    Error::not_found("there is no such elevation role; `strongroom elevate role list` shows them")
}

/// Finds a role.
pub(super) async fn find(
    view: &View,
    name: &Segment,
) -> Result<Option<Versioned<ElevationRoleRow>>> {
    let name = name.clone();
    view.read(move |tx| async move { Ok(rows::role_named(tx, &name).await?) }.boxed()).await
}

/// Names a role as a resource, whether it exists or not.
pub(super) async fn resource(view: &View, name: &Segment) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("elevations", &[name.as_str()])?);
    Ok(match find(view, name).await? {
        Some(found) => resource.with_row(found.row.id.0, &found),
        None => resource,
    })
}

/// Configures a role. One that is new is in force at once, because what it gives has to be approved;
/// what nobody approves, and every change, waits for another administrator and a day.
#[derive(Debug, Clone)]
pub struct PutRole {
    /// Its name.
    pub name: Segment,
    /// What it says.
    pub definition: RoleDefinition,
}

/// Says that the caller wants a role to say something, and why they cannot: a login alone wants nothing
/// changed, because an administrator may have signed it for their own key. A development vault asks for
/// no factor.
fn propose(view: &View, wanted: &RoleDefinition) -> Result<(Proposal, Option<Error>)> {
    let subject = view.subject()?;
    let (with, unproven) = match subject.require_factor(view.now(), FactorKind::ALL, FRESH) {
        Ok(proven) => (proven.id().to_string(), None),
        Err(_) if view.is_dev() => (String::new(), None),
        Err(error) => (String::new(), Some(error)),
    };
    let proposal = Proposal {
        definition: wanted.clone(),
        by: view.actor(),
        epoch: subject.identity.row.revocation_epoch,
        with,
        at_ms: view.now().0,
        confirmed_by: String::new(),
        confirmed_in: 0,
        confirmed_with: String::new(),
    };
    Ok((proposal, unproven))
}

/// What is to be written.
#[derive(Debug)]
pub struct Put {
    replaces: Option<i64>,
    /// The row as it is to be; the one that stands, where nothing changes.
    row: ElevationRoleRow,
    changes: bool,
}

#[async_trait]
impl Verb for PutRole {
    const ACTION: &'static str = "elevations.put-role";
    type Prepared = Put;
    type Output = (ElevationRole, bool);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Put> {
        if RESERVED.contains(&self.name.as_str()) {
            return Err(Error::invalid(format!("no role is called {}", RESERVED.join(" or "))));
        }
        let wanted = self.definition.clone().checked()?;
        let (now, by) = (view.now(), view.actor());
        let epoch = view.subject()?.identity.row.revocation_epoch;
        let definition = wanted.to_json()?;
        let (proposal, unproven) = propose(view, &wanted)?;
        let put = match find(view, &self.name).await? {
            Some(found) => Put {
                replaces: Some(found.version),
                changes: match Proposal::read(&found.row.proposal)? {
                    // Who wanted the same before may not any more: nobody confirmed it yet.
                    Some(waits) if waits.definition == wanted => {
                        waits.confirmed_by.is_empty() && (waits.by != by || waits.epoch != epoch)
                    }
                    Some(_) => true,
                    None => found.row.definition != definition,
                },
                row: ElevationRoleRow {
                    proposal: proposal.to_json()?,
                    next_try: None,
                    ..found.row
                },
            },
            None => Put {
                replaces: None,
                changes: true,
                row: ElevationRoleRow {
                    id: ObjectId(Id::random(view.entropy())?),
                    name: self.name.clone(),
                    proposal: if wanted.break_glass { proposal.to_json()? } else { String::new() },
                    definition: if wanted.break_glass {
                        // Until then there is nobody who may ask.
                        RoleDefinition { requesters: Vec::new(), ..wanted }.to_json()?
                    } else {
                        definition
                    },
                    next_try: None,
                    confirmed_by: String::new(),
                    created_at: now,
                    created_by: by.clone(),
                    changed_at: now,
                    changed_by: by,
                    changers: String::new(),
                },
            },
        };
        match unproven.filter(|_| put.changes && !put.row.proposal.is_empty()) {
            Some(unproven) => Err(unproven),
            None => Ok(put),
        }
    }
}

#[async_trait]
impl Operation for PutRole {
    const NEEDS: Needs = GOVERNS;

    /// Putting what is there changes nothing, and disturbs nobody.
    fn needs(&self, put: &Put) -> Needs {
        if put.changes { GOVERNS } else { READS }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        put: &Put,
        _: &Decision,
    ) -> Result<(ElevationRole, bool)> {
        let role = match (put.replaces, put.changes) {
            (Some(version), true) => tx.update(version, &put.row).await?,
            (None, _) => tx.insert(&put.row).await?,
            (Some(_), false) => {
                let found = tx.lookup::<ElevationRoleRow>(&put.row.id).await?;
                found.ok_or_else(no_such_role)?
            }
        };
        if put.changes {
            let proposed = !role.row.proposal.is_empty();
            let kind = if proposed { NoticeKind::RoleProposed } else { NoticeKind::RoleCreated };
            notify::role(ctx, tx, (&role.row, &role.row), kind, "").await?;
        }
        Ok((ElevationRole::of(tx, &mut Names::default(), role).await?, put.changes))
    }
}

/// Shows a role.
#[derive(Debug, Clone)]
pub struct ShowRole {
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for ShowRole {
    const ACTION: &'static str = "elevations.show-role";
    type Prepared = ElevationRole;
    type Output = ElevationRole;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<ElevationRole> {
        let role = find(view, &self.name).await?.ok_or_else(no_such_role)?;
        let read = view.read(move |tx| {
            async move { ElevationRole::of(tx, &mut Names::default(), role).await }.boxed()
        });
        read.await
    }
}

#[async_trait]
impl Operation for ShowRole {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        role: &ElevationRole,
        _: &Decision,
    ) -> Result<ElevationRole> {
        Ok(role.clone())
    }
}

/// Lists roles by name.
#[derive(Debug, Clone)]
pub struct ListRoles {
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListRoles {
    const ACTION: &'static str = "elevations.list-roles";
    type Prepared = (Vec<ElevationRole>, String);
    type Output = (Vec<ElevationRole>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("elevations", &["roles"])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let tokens = PageToken::new(view, Self::ACTION, "")?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view.read(move |tx| {
            async move {
                let (mut names, mut listed) = (Names::default(), Vec::new());
                for role in rows::roles_after(tx, &after, size.saturating_add(1)).await? {
                    listed.push(ElevationRole::of(tx, &mut names, role).await?);
                }
                Ok(listed)
            }
            .boxed()
        });
        tokens.cut(view, &page, listed.await?, |last| last.role.row.name.to_string())
    }
}

#[async_trait]
impl Operation for ListRoles {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &Self::Prepared,
        _: &Decision,
    ) -> Result<Self::Output> {
        Ok(page.clone())
    }
}
