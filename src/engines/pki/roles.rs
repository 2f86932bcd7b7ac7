//! Certificate roles: configured by administrators, read on the way of every certificate.
//!
//! Must not know how certificates are written.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Profile;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::pki::{self as rows, PkiRoleRow};
use crate::store::{Needs, StoreError, Tx, Versioned};
use crate::types::{RequestContext, ResourceName, Segment};
use crate::vault::{
    CONTAINS, Decision, GOVERNS, Operation, Page, PageToken, READS, Recent, Resource, Verb, View,
};

/// Names that stand for something else among the resources of this noun.
const RESERVED: [&str; 4] = ["authorities", "certificates", "crl", "roles"];
/// Roles kept.
const KEPT: usize = 10_000;

/// A role with its profile read.
#[derive(Debug, Clone)]
pub struct CertificateRole {
    /// Its row.
    pub row: PkiRoleRow,
    /// What its certificates may say.
    pub profile: Profile,
    /// The name of who configured it.
    pub created_by: String,
    /// The name of who last changed it.
    pub changed_by: String,
}

/// A role on the way of a certificate.
#[derive(Debug)]
pub(super) struct KeptRole {
    pub(super) profile: Profile,
    pub(super) resource: Resource,
}

/// Roles kept in memory.
#[derive(Debug, Clone)]
pub struct Roles(Arc<Recent<Segment, KeptRole>>);

impl Default for Roles {
    fn default() -> Self {
        Self(Arc::new(Recent::new(KEPT)))
    }
}

impl Roles {
    pub(super) async fn lookup(
        &self,
        view: &View,
        name: &Segment,
    ) -> Result<Option<Arc<KeptRole>>> {
        let moment = view.moment();
        if let Some(kept) = self.0.find(name, moment) {
            return Ok(Some(kept));
        }
        let wanted = name.clone();
        let row = view
            .read(move |tx| async move { Ok(rows::role_named(tx, &wanted).await?) }.boxed())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let resource = Resource::named(role_resource(name)?).with_row(row.row.id, &row);
        let role = Arc::new(KeptRole { profile: read(&row.row)?, resource });
        self.0.keep(name.clone(), moment, &role);
        Ok(Some(role))
    }
}

/// Names a role as a resource.
pub(super) fn role_resource(name: &Segment) -> Result<ResourceName> {
    ResourceName::join("pki", &[name.as_str()])
}

pub(super) fn no_such_role() -> Error {
    Error::not_found("there is no such certificate role; `strongroom pki role list` shows them")
}

fn read(row: &PkiRoleRow) -> Result<Profile> {
    serde_json::from_str(&row.profile).map_err(Error::internal)
}

/// Configures a role.
#[derive(Debug)]
pub struct PutRole {
    /// Its name.
    pub name: Segment,
    /// What its certificates may say.
    pub profile: Profile,
}

/// A role as stored.
#[derive(Debug, Clone)]
pub struct Put {
    /// The role.
    pub role: CertificateRole,
    /// Whether anything changed.
    pub changed: bool,
}

/// What a put is going to write, if anything.
#[derive(Debug)]
pub struct Planned {
    put: Put,
    /// The version that is replaced; none for a new role.
    replaces: Option<i64>,
}

#[async_trait]
impl Verb for PutRole {
    const ACTION: &'static str = "pki.put-role";
    type Prepared = Planned;
    type Output = Put;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![one(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Planned> {
        if RESERVED.contains(&self.name.as_str()) {
            return Err(Error::invalid(format!("no role is called {}", RESERVED.join(" or "))));
        }
        self.profile.validate(&view.trust_domain().parse()?)?;
        let (now, by) = (view.now(), view.actor());
        let changed_by = view.subject()?.identity.row.name.to_string();
        let profile = self.profile.clone();
        let text = serde_json::to_string(&profile).map_err(Error::internal)?;
        let stored = stored(view, &self.name).await?;
        let replaces = stored.as_ref().map(|(was, _)| was.version);
        let removed = stored.as_ref().map(|(was, _)| was.row.id);
        let Some((was, created_by)) = stored.filter(|(was, _)| was.row.active) else {
            let row = PkiRoleRow {
                id: match removed {
                    Some(id) => id,
                    None => view.new_id()?,
                },
                name: self.name.clone(),
                profile: text,
                active: true,
                created_at: now,
                created_by: by.clone(),
                changed_at: now,
                changed_by: by,
            };
            let created_by = changed_by.clone();
            let role = CertificateRole { row, profile, created_by, changed_by };
            return Ok(Planned { put: Put { role, changed: true }, replaces });
        };
        if read(&was.row)? == profile {
            let role = shown(view, was.row).await?;
            return Ok(Planned { put: Put { role, changed: false }, replaces });
        }
        let row = PkiRoleRow { profile: text, changed_at: now, changed_by: by, ..was.row };
        let role = CertificateRole { row, profile, created_by, changed_by };
        Ok(Planned { put: Put { role, changed: true }, replaces })
    }
}

#[async_trait]
impl Operation for PutRole {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        planned: &Planned,
        _: &Decision,
    ) -> Result<Put> {
        let row = &planned.put.role.row;
        let written = match (planned.put.changed, planned.replaces) {
            (false, _) => return Ok(planned.put.clone()),
            (true, None) => tx.insert(row).await,
            (true, Some(version)) => tx.update(version, row).await,
        };
        match written {
            Ok(_) => Ok(planned.put.clone()),
            // Another call made it meanwhile: what is put again replaces that.
            Err(StoreError::Taken) => Err(StoreError::Stale.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Shows a role.
#[derive(Debug)]
pub struct ShowRole {
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for ShowRole {
    const ACTION: &'static str = "pki.show-role";
    type Prepared = CertificateRole;
    type Output = CertificateRole;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![one(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<CertificateRole> {
        let found = stored(view, &self.name).await?.filter(|(found, _)| found.row.active);
        shown(view, found.ok_or_else(no_such_role)?.0.row).await
    }
}

#[async_trait]
impl Operation for ShowRole {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        role: &CertificateRole,
        _: &Decision,
    ) -> Result<CertificateRole> {
        Ok(role.clone())
    }
}

/// Removes a role; what was signed under it lives on to its own end.
#[derive(Debug)]
pub struct RemoveRole {
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for RemoveRole {
    const ACTION: &'static str = "pki.remove-role";
    type Prepared = Versioned<PkiRoleRow>;
    type Output = CertificateRole;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![one(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<PkiRoleRow>> {
        let found = stored(view, &self.name).await?.filter(|(found, _)| found.row.active);
        Ok(found.ok_or_else(no_such_role)?.0)
    }
}

#[async_trait]
impl Operation for RemoveRole {
    const NEEDS: Needs = CONTAINS;

    /// Answers the role as it was.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        Versioned { row, version }: &Versioned<PkiRoleRow>,
        _: &Decision,
    ) -> Result<CertificateRole> {
        let (changed_at, changed_by) = (ctx.now, ctx.actor());
        let ended = PkiRoleRow { active: false, changed_at, changed_by, ..row.clone() };
        tx.update(*version, &ended).await?;
        named(tx, &mut Names::default(), row.clone()).await
    }
}

/// Lists roles by name.
#[derive(Debug)]
pub struct ListRoles {
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// A page of roles, and the token of the next.
pub type RolePage = (Vec<CertificateRole>, String);

#[async_trait]
impl Verb for ListRoles {
    const ACTION: &'static str = "pki.list-roles";
    type Prepared = RolePage;
    type Output = RolePage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("pki", &["roles"])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<RolePage> {
        let token = PageToken::new(view, Self::ACTION, "")?;
        let page = token.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view
            .read(move |tx| {
                async move {
                    let (mut listed, mut names) = (Vec::new(), Names::default());
                    for row in rows::roles_after(tx, &after, size.saturating_add(1)).await? {
                        listed.push(named(tx, &mut names, row.row).await?);
                    }
                    Ok(listed)
                }
                .boxed()
            })
            .await?;
        token.cut(view, &page, listed, |role| role.row.name.to_string())
    }
}

#[async_trait]
impl Operation for ListRoles {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &RolePage,
        _: &Decision,
    ) -> Result<RolePage> {
        Ok(page.clone())
    }
}

/// Names a role to be decided on, with its row where there is one.
async fn one(view: &View, name: &Segment) -> Result<Resource> {
    let resource = Resource::named(role_resource(name)?);
    Ok(match stored(view, name).await? {
        Some((row, _)) if row.row.active => resource.with_row(row.row.id, &row),
        Some(_) | None => resource,
    })
}

/// Reads a role, removed or not, and the name of who configured it.
async fn stored(view: &View, name: &Segment) -> Result<Option<(Versioned<PkiRoleRow>, String)>> {
    let name = name.clone();
    view.read(move |tx| {
        async move {
            let Some(row) = rows::role_ever(tx, &name).await? else { return Ok(None) };
            let created_by = Names::default().actor(tx, &row.row.created_by).await?;
            Ok(Some((row, created_by)))
        }
        .boxed()
    })
    .await
}

async fn shown(view: &View, row: PkiRoleRow) -> Result<CertificateRole> {
    view.read(move |tx| async move { named(tx, &mut Names::default(), row).await }.boxed()).await
}

async fn named(tx: &mut Tx, names: &mut Names, row: PkiRoleRow) -> Result<CertificateRole> {
    let created_by = names.actor(tx, &row.created_by).await?;
    let changed_by = names.actor(tx, &row.changed_by).await?;
    Ok(CertificateRole { profile: read(&row)?, row, created_by, changed_by })
}
