//! Shows a key and its versions.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::{gone, is_shredded, named, of, unknown};
use crate::engines::identities::{Names, read_labels};
use crate::error::{Error, Result};
use crate::store::key_usage::{self, LastUse};
use crate::store::named_keys::{self, NamedKeyCountRow, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityName, KeyName, ObjectId, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Versions that are shown.
const SHOWN: i64 = 100;

/// A key as it is shown.
#[derive(Debug, Clone)]
pub struct KeyDetail {
    /// Its row, with the version by which a change compares and sets.
    pub row: Versioned<NamedKeyRow>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of its owner.
    pub owner: IdentityName,
    /// The name of who made it.
    pub created_by: String,
    /// The name of who changed it last.
    pub changed_by: String,
    /// Whether its owner was shredded.
    pub shredded: bool,
    /// Its last use, as far as the record has its place in the log.
    pub last_use: Option<ShownUse>,
}

/// A key's last use, as it is shown.
#[derive(Debug, Clone)]
pub struct ShownUse {
    /// When.
    pub at: UnixMillis,
    /// The name of the identity, or of the worker.
    pub by: String,
    /// The key's version.
    pub version: i64,
    /// What for.
    pub purpose: String,
}

impl ShownUse {
    async fn of(tx: &mut Tx, names: &mut Names, key: ObjectId) -> Result<Option<Self>> {
        let Some(last) = key_usage::last_use(tx, key).await? else { return Ok(None) };
        let LastUse { at, used_by, version, purpose } = last;
        Ok(Some(Self { at, by: names.actor(tx, &used_by).await?, version, purpose }))
    }
}

impl KeyDetail {
    /// When it was last used, or made where it never was.
    pub(super) fn touched(&self) -> UnixMillis {
        self.last_use.as_ref().map_or(self.row.row.created_at, |last| last.at)
    }

    pub(super) async fn of(tx: &mut Tx, row: Versioned<NamedKeyRow>) -> Result<Self> {
        let mut names = Names::default();
        let owner = names.intact(tx, row.row.owner).await?;
        Ok(Self {
            labels: read_labels(&row.row.labels)?,
            owner: owner.ok_or_else(|| gone("identities", ObjectId(row.row.owner.0)))?,
            created_by: names.actor(tx, &row.row.created_by).await?,
            changed_by: names.actor(tx, &row.row.changed_by).await?,
            last_use: ShownUse::of(tx, &mut names, row.row.id).await?,
            shredded: is_shredded(tx, &row.row).await?,
            row,
        })
    }

    /// The word for whether it is used.
    #[must_use]
    pub const fn shown_state(&self) -> &'static str {
        if self.shredded { "shredded" } else { self.row.row.state.as_str() }
    }
}

/// A version as it is shown: never its key.
#[derive(Debug, Clone)]
pub struct ShownKeyVersion {
    /// Its row, without what is sealed in it.
    pub row: NamedKeyVersionRow,
    /// How many messages were reserved, where they are counted.
    pub reserved: i64,
    /// The name of who made it.
    pub created_by: String,
}

/// A key with its newest versions.
#[derive(Debug, Clone)]
pub struct ShownKey {
    /// The key.
    pub key: KeyDetail,
    /// The versions, the newest first.
    pub versions: Vec<ShownKeyVersion>,
}

impl ShownKey {
    async fn read(tx: &mut Tx, id: ObjectId) -> Result<Self> {
        let row = tx.lookup::<NamedKeyRow>(&id).await?.ok_or_else(|| gone("named_keys", id))?;
        let (newest, mut names, mut versions) = (row.row.newest, Names::default(), Vec::new());
        let live = named_keys::newest_version(tx, id, true).await?;
        let is_newest = live.is_some_and(|live| live.row.version == newest);
        if !is_newest && !is_shredded(tx, &row.row).await? {
            return Err(gone("named_key_versions", id));
        }
        for Versioned { row, .. } in named_keys::versions_of(tx, id, SHOWN).await? {
            let count = tx.lookup::<NamedKeyCountRow>(&row.id).await?;
            versions.push(ShownKeyVersion {
                reserved: count.map_or(0, |count| count.row.reserved),
                created_by: names.actor(tx, &row.created_by).await?,
                row: NamedKeyVersionRow { material: Vec::new(), ..row },
            });
        }
        Ok(Self { key: KeyDetail::of(tx, row).await?, versions })
    }
}

/// Answers the retry of a call that made a key.
pub(super) async fn shown_by_id(view: &View, made: &str) -> Result<KeyDetail> {
    let id: ObjectId = made.parse().map_err(Error::internal)?;
    let read = view.read(move |tx| {
        async move {
            match tx.lookup::<NamedKeyRow>(&id).await? {
                Some(row) => KeyDetail::of(tx, row).await.map(Some),
                None => Ok(None),
            }
        }
        .boxed()
    });
    let text = "an earlier try is under way or came to nothing; look, and repeat with another key";
    read.await?.ok_or_else(|| Error::Conflict(text.into()))
}

/// Shows a key.
#[derive(Debug, Clone)]
pub struct ShowKey {
    /// Its name.
    pub name: KeyName,
}

#[async_trait]
impl Verb for ShowKey {
    const ACTION: &'static str = "keys.show";
    type Prepared = ShownKey;
    type Output = ShownKey;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = named(view, &self.name).await?;
        Ok(vec![of(&self.name, found.as_ref())?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<ShownKey> {
        let id = decision.resource()?.id.map(ObjectId).ok_or_else(unknown)?;
        view.read(move |tx| async move { ShownKey::read(tx, id).await }.boxed()).await
    }
}

#[async_trait]
impl Operation for ShowKey {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &ShownKey,
        _: &Decision,
    ) -> Result<ShownKey> {
        Ok(shown.clone())
    }
}
