//! A secret as decisions and verbs see it.

use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow};
use crate::store::secrets::{self, SecretHeadRow, SecretRow, SecretVersionRow};
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{
    IdentityName, Kind, ObjectId, Owner, ResourceName, SecretPath, SecretState, UnixMillis,
};
use crate::vault::{Decision, Resource, View, is_active};

/// Answers an allowed caller that there is no such secret.
pub(super) fn unknown() -> Error {
    Error::not_found("there is no secret of that name")
}

/// Answers that somebody else wrote first; whoever may write may know how far.
pub(super) fn stale(newest: i64) -> Error {
    Error::Conflict(
        format!("the newest version is {newest}, which is not what was expected").into(),
    )
}

/// Names a secret as a resource, whether it exists or not.
pub(super) async fn resource(view: &View, path: &SecretPath) -> Result<Resource> {
    let found = named(view, path).await?;
    of(path, found.as_ref())
}

/// As [`resource`], and stands on its owner as well: nothing is written for one who is not active.
pub(super) async fn resource_to_write(view: &View, path: &SecretPath) -> Result<Resource> {
    let path = path.clone();
    let read = view.read(move |tx| {
        async move {
            let found = secrets::secret_named(tx, &path).await?;
            let mut resource = of(&path, found.as_ref())?;
            if let Some(found) = &found {
                resource.rows.push(owner_of(tx, &found.row).await?.fence());
            }
            Ok(resource)
        }
        .boxed()
    });
    read.await
}

/// Finds a secret.
pub(super) async fn named(view: &View, path: &SecretPath) -> Result<Option<Versioned<SecretRow>>> {
    let path = path.clone();
    view.read(move |tx| async move { Ok(secrets::secret_named(tx, &path).await?) }.boxed()).await
}

/// A secret that was found or not, as a resource.
pub(super) fn of(path: &SecretPath, found: Option<&Versioned<SecretRow>>) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("secrets", &[path.as_str()])?);
    let Some(found) = found else { return Ok(resource) };
    let resource = resource.with_row(found.row.id.0, found);
    Ok(Resource {
        owner: Some(Owner::Identity(found.row.owner)),
        labels: serde_json::from_str(&found.row.labels).map_err(Error::internal)?,
        ..resource
    })
}

/// The secret that was decided on.
pub(super) fn decided(decision: &Decision) -> Result<ObjectId> {
    decision.resource()?.id.map(ObjectId).ok_or_else(unknown)
}

/// A secret with its newest version's number.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) secret: Versioned<SecretRow>,
    pub(super) head: Versioned<SecretHeadRow>,
}

impl Found {
    /// Reads the secret that was decided on. A row that is gone was removed by hand.
    pub(super) async fn read(tx: &mut Tx, id: ObjectId) -> Result<Self> {
        let secret = tx.lookup::<SecretRow>(&id).await?;
        Self::of(tx, secret.ok_or_else(|| gone("secrets", id))?).await
    }

    /// Reads what stands beside a secret's row.
    pub(super) async fn of(tx: &mut Tx, secret: Versioned<SecretRow>) -> Result<Self> {
        let id = secret.row.id;
        let head = tx.lookup::<SecretHeadRow>(&id).await?;
        Ok(Self { secret, head: head.ok_or_else(|| gone("secret_heads", id))? })
    }

    /// Refuses where the newest version is another than was expected; 0 expects none.
    pub(super) fn expect(&self, expected: i64) -> Result<()> {
        let newest = self.head.row.newest;
        if expected == 0 || expected == newest { Ok(()) } else { Err(stale(newest)) }
    }

    /// Finds a version, the newest for 0. What the head says is the newest is: a head that was put
    /// back is behind the versions.
    pub(super) async fn version(
        &self,
        tx: &mut Tx,
        version: i64,
    ) -> Result<Versioned<SecretVersionRow>> {
        let id = self.secret.row.id;
        if version == 0 || version == self.head.row.newest {
            let newest = secrets::newest_version(tx, id).await?;
            let newest = newest.filter(|found| found.row.version == self.head.row.newest);
            return newest.ok_or_else(|| gone("secret_versions", id));
        }
        let found = secrets::version_numbered(tx, id, version).await?;
        let head = &self.head.row;
        if let Some(Versioned { row, .. }) = &found
            && row.version < head.valued_from
            && row.state != SecretState::Destroyed
        {
            // It was put back.
            return Err(gone("secret_versions", row.id));
        }
        match found {
            Some(found) if version < self.head.row.newest => Ok(found),
            None if (1..self.head.row.newest).contains(&version) => {
                Err(gone("secret_versions", id))
            }
            Some(_) | None => Err(no_version(version)),
        }
    }

    /// Moves the secret's row on, which fences what stands on its versions.
    pub(super) async fn touch(
        &self,
        tx: &mut Tx,
        now: UnixMillis,
        by: String,
    ) -> Result<Versioned<SecretRow>> {
        let row = SecretRow { changed_at: now, changed_by: by, ..self.secret.row.clone() };
        Ok(tx.change(&self.secret, &row).await?)
    }
}

/// Answers that there is no such version.
pub(super) fn no_version(version: i64) -> Error {
    Error::not_found(format!("there is no version {version} of this secret"))
}

/// A row that must be there and is not: somebody removed it by hand, which is an alarm.
pub(super) fn gone(table: &'static str, id: ObjectId) -> Error {
    StoreError::Tampered { table, id: id.to_string() }.into()
}

/// Says why a version is not read.
pub(super) fn readable(row: &SecretVersionRow, now: UnixMillis) -> Result<()> {
    let why = match row.state {
        SecretState::Live if row.expires_at.is_none_or(|end| end > now) => return Ok(()),
        SecretState::Live => "has expired",
        SecretState::Deleted => "was deleted",
        SecretState::Destroyed => "was destroyed",
    };
    Err(Error::precondition(format!("version {} {why}", row.version)))
}

/// Reads a secret's owner.
pub(super) async fn owner_of(tx: &mut Tx, secret: &SecretRow) -> Result<Versioned<IdentityRow>> {
    let found = tx.lookup::<IdentityRow>(&secret.owner).await?;
    found.ok_or_else(|| Error::internal("a secret without its owner"))
}

/// Refuses to write for an owner who is contained, or is over.
pub(super) fn require_active(owner: &IdentityRow, now: UnixMillis) -> Result<()> {
    if is_active(owner, now) {
        return Ok(());
    }
    Err(Error::precondition(
        "the owner of the secret is not active; transfer the secret to one who is first",
    ))
}

/// Finds an identity that the caller may name as an owner: itself, its own owner, a machine that it
/// owns; an administrator may name anybody. To others it is the same whether there is one.
pub(in crate::engines) async fn nameable(
    view: &View,
    name: &IdentityName,
) -> Result<Versioned<IdentityRow>> {
    let name = name.clone();
    let found = view
        .read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed());
    let found = found.await?;
    let subject = view.subject()?;
    let own = &subject.identity.row;
    let groups = subject.group_facts();
    let facts = subject.facts(&groups, view.now());
    let administers = subject.is_administrator() && own.kind == Kind::Human;
    let near = |row: &IdentityRow| {
        row.id == own.id || own.owner == Owner::Identity(row.id) || facts.owns(row.owner)
    };
    let may = administers || found.as_ref().is_some_and(|found| near(&found.row));
    if !may {
        return Err(Error::Denied(
            "as an owner you may name yourself, your own owner, or a machine that you own; ask an \
             administrator to name another"
                .into(),
        ));
    }
    let found = found.ok_or_else(|| Error::not_found("there is no identity of that name"))?;
    if found.row.kind == Kind::Bootstrap || !is_active(&found.row, view.now()) {
        return Err(Error::precondition("an owner is an active identity"));
    }
    Ok(found)
}
