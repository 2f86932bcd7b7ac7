//! Connections: where credentials are made, and the account that makes them.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::postgres::ConnectionDefinition;
use super::target::DatabaseTarget as _;
use super::targets::{Databases, password, place, settings};
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, SealedValue};
use crate::store::database::{self, ConnectionRow, TargetRow};
use crate::store::keys::KeyOwner;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, ObjectId, RequestContext, ResourceName, SecretBytes, Segment};
use crate::vault::{
    Decision, GOVERNS, Note, Operation, Page, PageToken, READS, Resource, Verb, View,
};

/// A connection as it is shown: never its password.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The connection.
    pub row: ConnectionRow,
    /// The account that it goes to.
    pub target: TargetRow,
    /// Where that is.
    pub settings: ConnectionDefinition,
    /// The name of who configured it.
    pub created_by: String,
    /// The name of who last changed it.
    pub changed_by: String,
}

impl Connection {
    /// Reads what belongs to a row.
    pub(super) async fn read(tx: &mut Tx, names: &mut Names, row: ConnectionRow) -> Result<Self> {
        let target = tx.lookup::<TargetRow>(&row.target).await?;
        let target = target.ok_or_else(|| Error::internal("a connection without account"))?.row;
        Ok(Self {
            settings: settings(&target)?,
            created_by: names.actor(tx, &row.created_by).await?,
            changed_by: names.actor(tx, &row.changed_by).await?,
            row,
            target,
        })
    }
}

/// Configures a connection, after a test.
#[derive(Debug)]
pub struct PutConnection {
    /// What the verbs share.
    pub databases: Databases,
    /// Its name.
    pub name: Segment,
    /// Where it goes.
    pub settings: ConnectionDefinition,
    /// The account's password; none keeps the stored one.
    pub password: Option<SecretBytes>,
}

/// What is to be written, and what there is.
#[derive(Debug)]
pub struct Put {
    found: Option<Versioned<ConnectionRow>>,
    target: Option<Versioned<TargetRow>>,
    /// The account's row as it is to be, and its password; none where nothing changes.
    new: Option<(TargetRow, SealedValue)>,
    connection: ConnectionRow,
    used: Vec<KeyUse>,
    created_by: String,
    changed_by: String,
}

#[async_trait]
impl Verb for PutConnection {
    const ACTION: &'static str = "database.connect";
    type Prepared = Put;
    type Output = (Connection, bool);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Put> {
        self.settings.validate()?;
        let (found, targets) = match find(view, &self.name).await? {
            Some((row, targets)) => (Some(row), targets),
            None => (None, Vec::new()),
        };
        // An account that the connection went to before is taken up again.
        let mut target = None;
        for row in targets {
            if same_account(&settings(&row.row)?, &self.settings) {
                target = Some(row);
            }
        }
        let mut used = Vec::new();
        let stored = match &target {
            // The password was forgotten when the connection was removed.
            Some(row) if row.row.password.is_empty() => None,
            Some(row) => {
                let opened = password(view, row).await?;
                used.extend(opened.used);
                Some(opened.plaintext)
            }
            None => None,
        };
        let password = self.choose_password(target.as_ref(), stored.as_ref())?;
        let trial = self.databases.connect(view, &self.settings, password)?;
        let tested = trial.test().await;
        trial.close().await;
        let server_version = tested?;

        let unchanged = match (&found, &target) {
            (Some(found), Some(target)) => {
                found.row.active
                    && found.row.target == target.row.id
                    && settings(&target.row)? == self.settings
                    && stored.as_ref() == Some(password)
            }
            _ => false,
        };
        let (connection, target_id) = self.rows(view, found.as_ref(), target.as_ref())?;
        let new = if unchanged {
            None
        } else {
            let version = target.as_ref().map_or(0, |row| row.version).saturating_add(1);
            let place = place(target_id, version);
            let sealed = view.seal_for(KeyOwner::System, &place, password).await?;
            used.extend(sealed.used().iter().cloned());
            let row = TargetRow {
                id: target_id,
                connection: connection.id,
                settings: serde_json::to_string(&self.settings).map_err(Error::internal)?,
                password: Vec::new(),
                // The commit fills both in.
                password_key: target_id.0,
                server_version,
                tested_at: view.now(),
            };
            Some((row, sealed))
        };
        let (created_by, changed_by) = names(view, &connection, unchanged).await?;
        Ok(Put { found, target, new, connection, used, created_by, changed_by })
    }

    fn note(&self, prepared: &Put, note: &mut Note) {
        note.keys.extend(prepared.used.iter().cloned());
    }
}

impl PutConnection {
    /// The password to be stored. The stored one never goes to another place than it was for.
    fn choose_password<'a>(
        &'a self,
        target: Option<&Versioned<TargetRow>>,
        stored: Option<&'a SecretBytes>,
    ) -> Result<&'a SecretBytes> {
        if let Some(given) = &self.password {
            return Ok(given);
        }
        let kept = match (target, stored) {
            (Some(row), Some(stored)) => {
                let was = settings(&row.row)?;
                let same = was.tls == self.settings.tls && was.ca_pem == self.settings.ca_pem;
                same.then_some(stored)
            }
            _ => None,
        };
        kept.ok_or_else(|| {
            Error::invalid(
                "password is missing: the stored one is kept only while host, port, username, TLS \
                 mode and authorities stay as they are",
            )
        })
    }

    /// The connection's row as it is to be, and the account's id.
    fn rows(
        &self,
        view: &View,
        found: Option<&Versioned<ConnectionRow>>,
        target: Option<&Versioned<TargetRow>>,
    ) -> Result<(ConnectionRow, ObjectId)> {
        let target = match target {
            Some(row) => row.row.id,
            None => ObjectId(view.new_id()?),
        };
        let (actor, now) = (view.actor(), view.now());
        let connection = match found {
            Some(found) if found.row.active => ConnectionRow { target, ..found.row.clone() },
            removed => ConnectionRow {
                id: match removed {
                    Some(removed) => removed.row.id,
                    None => ObjectId(Id::random(view.entropy())?),
                },
                name: self.name.clone(),
                owner: view.identity()?,
                target,
                active: true,
                created_at: now,
                created_by: actor.clone(),
                changed_at: now,
                changed_by: actor,
            },
        };
        Ok((connection, target))
    }
}

#[async_trait]
impl Operation for PutConnection {
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Put,
        _: &Decision,
    ) -> Result<(Connection, bool)> {
        let shown = |row: ConnectionRow, target: TargetRow| Connection {
            row,
            target,
            settings: self.settings.clone(),
            created_by: prepared.created_by.clone(),
            changed_by: prepared.changed_by.clone(),
        };
        let Some((target, sealed)) = &prepared.new else {
            let target = prepared.target.as_ref().ok_or_else(|| Error::internal("no account"))?;
            return Ok((shown(prepared.connection.clone(), target.row.clone()), false));
        };
        let stored = sealed.store(tx).await?;
        let target = TargetRow {
            password: stored.blob.to_vec(),
            password_key: stored.key_id,
            ..target.clone()
        };
        match &prepared.target {
            Some(was) => tx.update(was.version, &target).await?,
            None => tx.insert(&target).await?,
        };
        let connection = ConnectionRow {
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..prepared.connection.clone()
        };
        match &prepared.found {
            Some(was) => tx.update(was.version, &connection).await?,
            None => tx.insert(&connection).await?,
        };
        Ok((shown(connection, target), true))
    }
}

/// One page of connections.
#[derive(Debug)]
pub struct ListConnections {
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListConnections {
    const ACTION: &'static str = "database.list";
    type Prepared = (Vec<Connection>, String);
    type Output = (Vec<Connection>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("database/connections".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let tokens = PageToken::new(view, Self::ACTION, "")?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view.read(move |tx| async move { list(tx, &after, size).await }.boxed());
        tokens.cut(view, &page, listed.await?, |one| one.row.name.to_string())
    }
}

#[async_trait]
impl Operation for ListConnections {
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

async fn list(tx: &mut Tx, after: &str, size: i64) -> Result<Vec<Connection>> {
    let mut names = Names::default();
    let mut listed = Vec::new();
    for row in database::connections_after(tx, after, size.saturating_add(1)).await? {
        listed.push(Connection::read(tx, &mut names, row.row).await?);
    }
    Ok(listed)
}

/// A connection as a decision sees it, whether it exists or not.
pub(super) async fn resource(view: &View, name: &Segment) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("database", &[name.as_str()])?);
    let name = name.clone();
    let found = view
        .read(move |tx| async move { Ok(database::connection_named(tx, &name).await?) }.boxed())
        .await?;
    Ok(match found {
        Some(found) => {
            let resource = resource.with_row(found.row.id.0, &found);
            Resource { owner: Some(found.row.owner.into()), ..resource }
        }
        None => resource,
    })
}

/// Finds a connection, removed or not, with every account that it went to.
async fn find(
    view: &View,
    name: &Segment,
) -> Result<Option<(Versioned<ConnectionRow>, Vec<Versioned<TargetRow>>)>> {
    let name = name.clone();
    view.read(move |tx| {
        async move {
            let Some(row) = database::connection_ever(tx, &name).await? else { return Ok(None) };
            let targets = database::targets_of(tx, row.row.id).await?;
            Ok(Some((row, targets)))
        }
        .boxed()
    })
    .await
}

/// Tells whether both go to the same account: a lease made there can be ended there.
fn same_account(a: &ConnectionDefinition, b: &ConnectionDefinition) -> bool {
    (&a.host, a.port, &a.username) == (&b.host, b.port, &b.username)
}

async fn names(view: &View, row: &ConnectionRow, unchanged: bool) -> Result<(String, String)> {
    let created = row.created_by.clone();
    let changed = if unchanged { row.changed_by.clone() } else { view.actor() };
    view.read(move |tx| {
        async move {
            let mut names = Names::default();
            Ok((names.actor(tx, &created).await?, names.actor(tx, &changed).await?))
        }
        .boxed()
    })
    .await
}
