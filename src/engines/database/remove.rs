//! Removes roles and connections: they end, and stay to be taken up again under their name.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::connections::{self, Connection};
use super::roles::{Role, no_such_role, resource_of};
use super::targets::{Databases, role_name};
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::database::{self, ConnectionRow, RoleRow, TargetRow};
use crate::store::{Needs, Tx, Versioned, credentials};
use crate::types::{ObjectId, RequestContext, ResourceName, Segment};
use crate::vault::{CONTAINS, Decision, Operation, Resource, Verb, View};

/// Removes a connection that nothing uses, and forgets its passwords.
#[derive(Debug)]
pub struct RemoveConnection {
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for RemoveConnection {
    const ACTION: &'static str = "database.remove";
    type Prepared = ObjectId;
    /// The connection as it was, and the accounts whose passwords were forgotten.
    type Output = (Connection, Vec<ObjectId>);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![connections::resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<ObjectId> {
        decision.resource()?.id.map(ObjectId).ok_or_else(no_such_connection)
    }
}

#[async_trait]
impl Operation for RemoveConnection {
    const NEEDS: Needs = CONTAINS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &ObjectId,
        _: &Decision,
    ) -> Result<(Connection, Vec<ObjectId>)> {
        let found = tx.lookup::<ConnectionRow>(id).await?.filter(|found| found.row.active);
        let Versioned { row, version } = found.ok_or_else(no_such_connection)?;
        if !database::roles_after(tx, Some(*id), "", 1).await?.is_empty() {
            return Err(Error::precondition("roles use this connection; remove them first"));
        }
        let name = ResourceName::join("database", &[self.name.as_str()])?;
        if credentials::lease_below(tx, &name).await?.is_some() {
            return Err(Error::precondition(
                "leases use this connection; revoke them, or wait until they have ended",
            ));
        }
        let was = Connection::read(tx, &mut Names::default(), row.clone()).await?;
        let mut accounts = Vec::new();
        for Versioned { row, version } in database::targets_of(tx, *id).await? {
            accounts.push(row.id);
            tx.update(version, &TargetRow { password: Vec::new(), ..row }).await?;
        }
        let (changed_at, changed_by) = (ctx.now, ctx.actor());
        tx.update(version, &ConnectionRow { active: false, changed_at, changed_by, ..row }).await?;
        Ok((was, accounts))
    }
}

fn no_such_connection() -> Error {
    Error::not_found("there is no such connection")
}

/// Removes a role; what was issued under it goes on to its own end.
#[derive(Debug)]
pub struct RemoveRole {
    /// What the verbs share.
    pub databases: Databases,
    /// Its connection.
    pub connection: Segment,
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for RemoveRole {
    const ACTION: &'static str = "database.remove-role";
    type Prepared = Versioned<RoleRow>;
    type Output = Role;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(&self.databases, view, &self.connection, &self.name).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<RoleRow>> {
        let name = role_name(&self.connection, &self.name)?;
        view.read(move |tx| async move { Ok(database::role_named(tx, &name).await?) }.boxed())
            .await?
            .ok_or_else(no_such_role)
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
        Versioned { row, version }: &Versioned<RoleRow>,
        _: &Decision,
    ) -> Result<Role> {
        let (changed_at, changed_by) = (ctx.now, ctx.actor());
        let ended = RoleRow { active: false, changed_at, changed_by, ..row.clone() };
        tx.update(*version, &ended).await?;
        Role::of(tx, &mut Names::default(), row.clone()).await
    }
}
