//! A named key as decisions and verbs see it, kept in memory under the epoch it was read at.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::count::Counts;
use super::sign::Turns;
use super::stream::Streams;
use crate::error::{Error, Result};
use crate::keyring::{KeyringError, Material, Place};
use crate::store::identities::IdentityRow;
use crate::store::keys::KeyOwner;
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::shreds::ShredRow;
use crate::store::{RowRef, StoreError, Tx, Versioned};
use crate::types::{
    KeyName, KeyUsage, KeyVersionState, NamedKeyState, ObjectId, Owner, ResourceName, VaultId,
};
use crate::vault::{Decision, Recent, Resource, View};

/// Keys of which this node remembers the rows.
const KEPT: usize = 10_000;

/// What this node remembers of keys: their rows, the messages that it reserved, whose turn it is in
/// the HSM, and how many streams there are.
#[derive(Debug, Clone)]
pub struct Keys {
    hot: Arc<Recent<KeyName, Hot>>,
    pub(super) counts: Counts,
    pub(super) turns: Turns,
    pub(super) streams: Streams,
}

type Newest = Result<Arc<NamedKeyVersionRow>, StoreError>;

/// A key on the way of a request.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) row: Versioned<NamedKeyRow>,
    pub(super) resource: Resource,
    /// Its newest version, of the same snapshot, or why there is none: an alarm for whoever uses it.
    newest: Newest,
    /// Whether its owner was shredded.
    shredded: bool,
    versions: Mutex<HashMap<i64, Arc<NamedKeyVersionRow>>>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            hot: Arc::new(Recent::new(KEPT)),
            counts: Counts::default(),
            turns: Turns::default(),
            streams: Streams::default(),
        }
    }
}

impl Keys {
    /// Finds a key.
    pub(super) async fn lookup(&self, view: &View, name: &KeyName) -> Result<Option<Arc<Hot>>> {
        let moment = view.moment();
        if let Some(hot) = self.hot.find(name, moment) {
            return Ok(Some(hot));
        }
        let wanted = name.clone();
        let read = view.read(move |tx| {
            async move {
                let Some(row) = named_keys::key_named(tx, &wanted).await? else { return Ok(None) };
                let shredded = is_shredded(tx, &row.row).await?;
                let newest = newest(tx, &row.row, shredded).await?;
                let owner = owner_fence(tx, &row.row).await?;
                Ok(Some((row, newest, owner, shredded)))
            }
            .boxed()
        });
        let Some((row, newest, owner, shredded)) = read.await? else { return Ok(None) };
        let mut resource = of(name, Some(&row))?;
        // It stands on its owner as well: nothing is encrypted under a key that was shredded since.
        resource.rows.extend(owner);
        let versions = Mutex::default();
        let hot = Arc::new(Hot { row, resource, newest, shredded, versions });
        if hot.newest.is_ok() {
            self.hot.keep(name.clone(), moment, &hot);
        }
        Ok(Some(hot))
    }

    /// Names a key as a resource, whether it exists or not.
    pub(super) async fn resource(&self, view: &View, name: &KeyName) -> Result<Resource> {
        match self.lookup(view, name).await? {
            Some(hot) => Ok(hot.resource.clone()),
            None => of(name, None),
        }
    }

    /// The key that was decided on, for one use.
    pub(super) async fn decided(
        &self,
        view: &View,
        decision: &Decision,
        name: &KeyName,
        usage: Option<KeyUsage>,
    ) -> Result<Arc<Hot>> {
        let hot = self.lookup(view, name).await?.ok_or_else(unknown)?;
        // What is used is what was decided on, not what somebody made of it since.
        if !decision.resource()?.rows.contains(&hot.row.fence()) {
            return Err(Error::Conflict("the key was changed meanwhile; retry".into()));
        }
        let row = &hot.row.row;
        if row.state == NamedKeyState::Awaiting {
            hot.require_active()?;
        }
        let Some(usage) = usage else { return Ok(hot) };
        if row.algorithm.usage() != usage {
            let what = match usage {
                KeyUsage::Encrypts => "encrypt",
                KeyUsage::Macs => "compute MACs",
                KeyUsage::Signs => "sign",
            };
            return Err(Error::invalid(format!("a key of {} does not {what}", row.algorithm)));
        }
        hot.require_active()?;
        Ok(hot)
    }
}

impl Hot {
    /// Refuses a key that is not used.
    pub(super) fn require_active(&self) -> Result<()> {
        match self.row.row.state {
            _ if self.shredded => Err(shredded()),
            NamedKeyState::Active => Ok(()),
            NamedKeyState::Disabled => Err(Error::precondition("the key is disabled")),
            NamedKeyState::Awaiting => Err(awaits()),
        }
    }

    /// A version's row, where it is there to be used.
    pub(super) async fn version(
        &self,
        view: &View,
        number: i64,
    ) -> Result<Option<Arc<NamedKeyVersionRow>>> {
        let (id, newest) = (self.row.row.id, self.row.row.newest);
        if number == newest {
            return self.newest().map(Some);
        }
        let kept = self.versions.lock().get(&number).cloned();
        if let Some(kept) = kept {
            return Ok(Some(kept));
        }
        let read = view.read(move |tx| {
            async move { Ok(named_keys::version_numbered(tx, id, number).await?) }.boxed()
        });
        let found = read.await?.map(|found| Arc::new(found.row));
        let live = found.filter(|row| row.state == KeyVersionState::Live && number <= newest);
        if let Some(row) = &live {
            self.versions.lock().insert(number, Arc::clone(row));
        }
        Ok(live)
    }

    /// The newest version's row.
    pub(super) fn newest(&self) -> Result<Arc<NamedKeyVersionRow>> {
        Ok(self.newest.clone()?)
    }

    /// Opens a version that is sealed.
    pub(super) async fn material(
        &self,
        view: &View,
        version: &NamedKeyVersionRow,
    ) -> Result<Arc<Material>> {
        let wrap_key = version.wrap_key.ok_or_else(|| gone("named_key_versions", version.id))?;
        let (place, owner) = (place(version.named_key, version.id, version.version), self.owner());
        view.material(owner, &place, wrap_key, &version.material).await
    }

    /// Whose key it is under.
    pub(super) fn owner(&self) -> KeyOwner {
        KeyOwner::Identity(self.row.row.owner)
    }
}

/// Where a version's key belongs: to this row, this key and this number. Its name never enters; the
/// row that gives the key its name is sealed.
pub(in crate::engines) const fn place(key: ObjectId, id: ObjectId, version: i64) -> Place {
    Place {
        table: "named_key_versions",
        column: "material",
        row: id.0,
        object: key.0,
        object_version: version,
    }
}

/// Names a version in the HSM.
pub(super) fn label(vault: VaultId, key: ObjectId, version: i64) -> String {
    format!("strongroom/{vault}/key/{key}/{version}")
}

/// Finds a key's newest version. What the key's row says is the newest is, in one snapshot: a row
/// that was put back is behind the versions.
async fn newest(tx: &mut Tx, key: &NamedKeyRow, shredded: bool) -> Result<Newest> {
    let looked = if shredded {
        // Its versions are gone, or going.
        named_keys::version_numbered(tx, key.id, key.newest).await
    } else {
        named_keys::newest_version(tx, key.id, true).await
    };
    let found = match looked {
        Ok(found) => found,
        // Whoever is not allowed to use the key is not told of it.
        Err(error @ StoreError::Tampered { .. }) => return Ok(Err(error)),
        Err(error) => return Err(error.into()),
    };
    let found = found.filter(|found| found.row.version == key.newest);
    let missing = || StoreError::Tampered { table: "named_key_versions", id: key.id.to_string() };
    Ok(found.map(|found| Arc::new(found.row)).ok_or_else(missing))
}

/// Finds a key in the store.
pub(super) async fn named(view: &View, name: &KeyName) -> Result<Option<Versioned<NamedKeyRow>>> {
    let name = name.clone();
    view.read(move |tx| async move { Ok(named_keys::key_named(tx, &name).await?) }.boxed()).await
}

/// A key that was found or not, as a resource.
pub(super) fn of(name: &KeyName, found: Option<&Versioned<NamedKeyRow>>) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("keys", &[name.as_str()])?);
    let Some(found) = found else { return Ok(resource) };
    let resource = resource.with_row(found.row.id.0, found);
    Ok(Resource {
        owner: Some(Owner::Identity(found.row.owner)),
        labels: serde_json::from_str(&found.row.labels).map_err(Error::internal)?,
        ..resource
    })
}

/// Answers an allowed caller that there is no such key.
pub(super) fn unknown() -> Error {
    Error::not_found("there is no key of that name")
}

/// Answers that there is a name, and no key yet.
pub(super) fn awaits() -> Error {
    Error::precondition("the key awaits its import")
}

/// Tells whether a key's owner was shredded.
pub(super) async fn is_shredded(tx: &mut Tx, key: &NamedKeyRow) -> Result<bool> {
    Ok(tx.lookup::<ShredRow>(&key.owner).await?.is_some())
}

/// Points at a key's owner, unless its row is not what was sealed: others use the key on.
pub(super) async fn owner_fence(tx: &mut Tx, key: &NamedKeyRow) -> Result<Option<RowRef>> {
    let owner = tx.lookup_intact::<IdentityRow>(&key.owner).await?;
    Ok(owner.map(|owner| owner.fence()))
}

/// Answers that nothing of a key is left.
pub(super) fn shredded() -> Error {
    KeyringError::Shredded.into()
}

/// Answers that somebody else rotated first.
pub(super) fn stale(newest: i64) -> Error {
    let text = format!("the newest version is {newest}, which is not what was expected");
    Error::Conflict(text.into())
}

/// A row that must be there and is not: somebody removed it by hand, which is an alarm.
pub(super) fn gone(table: &'static str, id: ObjectId) -> Error {
    StoreError::Tampered { table, id: id.to_string() }.into()
}
