//! Roles: what a credential of a connection may do.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::target::DatabaseTarget as _;
use super::targets::{Databases, role_name};
use super::template::RoleDefinition;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::database::{self, ConnectionRow, RoleRow, TargetRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, ObjectId, RequestContext, ResourceName, Segment};
use crate::vault::{
    Decision, GOVERNS, Note, Operation, Page, PageToken, READS, Resource, Verb, View,
};

/// A role as it is shown.
#[derive(Debug, Clone)]
pub struct Role {
    /// The role.
    pub row: RoleRow,
    /// What it gives.
    pub definition: RoleDefinition,
    /// The name of who configured it.
    pub created_by: String,
    /// The name of who last changed it.
    pub changed_by: String,
}

impl Role {
    pub(super) async fn of(tx: &mut Tx, names: &mut Names, row: RoleRow) -> Result<Self> {
        Ok(Self {
            definition: serde_json::from_str(&row.definition).map_err(Error::internal)?,
            created_by: names.actor(tx, &row.created_by).await?,
            changed_by: names.actor(tx, &row.changed_by).await?,
            row,
        })
    }
}

/// Configures a role, after it was tried on the target.
#[derive(Debug)]
pub struct PutRole {
    /// What the verbs share.
    pub databases: Databases,
    /// Its connection.
    pub connection: Segment,
    /// Its name.
    pub name: Segment,
    /// What it gives.
    pub definition: RoleDefinition,
}

/// What is to be written.
#[derive(Debug)]
pub struct Put {
    found: Option<Versioned<RoleRow>>,
    /// The row as it is to be; none where nothing changes.
    new: Option<RoleRow>,
    connection: Versioned<ConnectionRow>,
    used: Vec<KeyUse>,
}

#[async_trait]
impl Verb for PutRole {
    const ACTION: &'static str = "database.put-role";
    type Prepared = Put;
    type Output = (Role, bool);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(&self.databases, view, &self.connection, &self.name).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Put> {
        self.definition.validate()?;
        let name = role_name(&self.connection, &self.name)?;
        let (wanted, connection) = (name.clone(), self.connection.clone());
        let read = view.read(move |tx| {
            async move {
                let Some(connection) = database::connection_named(tx, &connection).await? else {
                    return Ok(None);
                };
                let target = tx.lookup::<TargetRow>(&connection.row.target).await?;
                let target = target.ok_or_else(|| Error::internal("no account"))?;
                Ok(Some((connection, target, database::role_ever(tx, &wanted).await?)))
            }
            .boxed()
        });
        let missing = || Error::not_found("there is no such connection; configure it first");
        let (connection, target, found) = read.await?.ok_or_else(missing)?;
        let definition = serde_json::to_string(&self.definition).map_err(Error::internal)?;
        let (pool, used) = self.databases.pool(view, &target).await?;
        pool.check_role(&self.definition).await?;
        let new = match &found {
            Some(found) if found.row.active && found.row.definition == definition => None,
            Some(found) if found.row.active => Some(RoleRow {
                definition,
                changed_at: view.now(),
                changed_by: view.actor(),
                ..found.row.clone()
            }),
            removed => Some(RoleRow {
                id: match removed {
                    Some(removed) => removed.row.id,
                    None => ObjectId(Id::random(view.entropy())?),
                },
                name,
                connection: connection.row.id,
                definition,
                active: true,
                created_at: view.now(),
                created_by: view.actor(),
                changed_at: view.now(),
                changed_by: view.actor(),
            }),
        };
        Ok(Put { found, new, connection, used })
    }

    fn note(&self, prepared: &Put, note: &mut Note) {
        note.keys.extend(prepared.used.iter().cloned());
    }
}

#[async_trait]
impl Operation for PutRole {
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Put,
        _: &Decision,
    ) -> Result<(Role, bool)> {
        // It was tried where the connection went then.
        let connection = tx.lookup::<ConnectionRow>(&prepared.connection.row.id).await?;
        if connection.is_none_or(|now| now.version != prepared.connection.version) {
            return Err(Error::Conflict("the connection changed meanwhile; retry".into()));
        }
        let row = match (&prepared.found, &prepared.new) {
            (Some(found), Some(new)) => tx.update(found.version, new).await?.row,
            (None, Some(new)) => tx.insert(new).await?.row,
            (Some(found), None) => found.row.clone(),
            (None, None) => return Err(Error::internal("a put of nothing")),
        };
        Ok((Role::of(tx, &mut Names::default(), row).await?, prepared.new.is_some()))
    }
}

/// Shows one role.
#[derive(Debug)]
pub struct GetRole {
    /// What the verbs share.
    pub databases: Databases,
    /// Its connection.
    pub connection: Segment,
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for GetRole {
    const ACTION: &'static str = "database.show-role";
    type Prepared = Role;
    type Output = Role;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(&self.databases, view, &self.connection, &self.name).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Role> {
        let name = role_name(&self.connection, &self.name)?;
        view.read(move |tx| {
            async move {
                let row = database::role_named(tx, &name).await?;
                let row = row.ok_or_else(no_such_role)?;
                Role::of(tx, &mut Names::default(), row.row).await
            }
            .boxed()
        })
        .await
    }
}

#[async_trait]
impl Operation for GetRole {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Role,
        _: &Decision,
    ) -> Result<Role> {
        Ok(prepared.clone())
    }
}

/// One page of roles.
#[derive(Debug)]
pub struct ListRoles {
    /// Only those of this connection.
    pub connection: Option<Segment>,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListRoles {
    const ACTION: &'static str = "database.list-roles";
    type Prepared = (Vec<Role>, String);
    type Output = (Vec<Role>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        let of = self.connection.as_ref().map_or("all", Segment::as_str);
        Ok(vec![Resource::named(ResourceName::join("database", &[of, "roles"])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let filter = self.connection.as_ref().map(ToString::to_string).unwrap_or_default();
        let tokens = PageToken::new(view, Self::ACTION, &filter)?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (Page { size, after }, connection) = (page.clone(), self.connection.clone());
        let listed = view.read(move |tx| {
            async move {
                let of = match connection {
                    Some(name) => match database::connection_named(tx, &name).await? {
                        Some(connection) => Some(connection.row.id),
                        None => return Ok(Vec::new()),
                    },
                    None => None,
                };
                let mut names = Names::default();
                let mut listed = Vec::new();
                for row in database::roles_after(tx, of, &after, size.saturating_add(1)).await? {
                    listed.push(Role::of(tx, &mut names, row.row).await?);
                }
                Ok(listed)
            }
            .boxed()
        });
        tokens.cut(view, &page, listed.await?, |one| one.row.name.to_string())
    }
}

#[async_trait]
impl Operation for ListRoles {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Self::Prepared,
        _: &Decision,
    ) -> Result<Self::Output> {
        Ok(prepared.clone())
    }
}

/// Answers an allowed caller that there is no such role.
pub(super) fn no_such_role() -> Error {
    Error::not_found("there is no such role; `strongroom db role list` shows them")
}

/// A role as a decision sees it, whether it exists or not.
pub(super) async fn resource_of(
    databases: &Databases,
    view: &View,
    connection: &Segment,
    role: &Segment,
) -> Result<Vec<Resource>> {
    let name = ResourceName::join("database", &[connection.as_str(), role.as_str()])?;
    Ok(vec![match databases.role(view, connection, role).await? {
        Some(known) => known.resource(name),
        None => Resource::named(name),
    }])
}
