//! What is known of a secret besides its values, and how it is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::delete::WINDOW_MOST_S;
use super::find::{Found, decided, owner_of, resource};
use super::history::ShownVersion;
use crate::audit::Field;
use crate::engines::identities::{Names, check_labels, read_labels, write_labels};
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretRow, VERSIONS};
use crate::store::{Needs, StoreError, Tx, Versioned};
use crate::types::{IdentityName, ObjectId, RequestContext, SecretPath, UnixMillis};
use crate::vault::{Decision, GOVERNS, Note, Operation, READS, Resource, Verb, View, is_active};

/// What is known of a secret.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// Its row, with the version by which a change compares and sets.
    pub secret: Versioned<SecretRow>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of its owner.
    pub owner: IdentityName,
    /// Whether new versions are written for the owner: it is neither contained nor over.
    pub owner_active: bool,
    /// Its newest version.
    pub newest: ShownVersion,
    /// Who read it last, by name, when, and which version.
    pub last_read: Option<(String, UnixMillis, i64)>,
    /// The name of who made it.
    pub created_by: String,
    /// The name of who changed it last.
    pub changed_by: String,
}

impl Metadata {
    async fn read(tx: &mut Tx, id: ObjectId, now: UnixMillis) -> Result<Self> {
        let mut names = Names::default();
        let found = Found::read(tx, id).await?;
        let owner = owner_of(tx, &found.secret.row).await?.row;
        let newest = found.version(tx, 0).await?.row;
        // That row is not sealed: whatever it says keeps nobody from the rest.
        let last_read = match secrets::last_read(tx, id).await {
            Ok(Some(read)) => {
                let by = names.intact(tx, read.by).await?;
                let by = by.map_or_else(|| read.by.to_string(), |name| name.to_string());
                Some((by, read.at, read.version))
            }
            Ok(None) | Err(StoreError::Malformed) => None,
            Err(error) => return Err(error.into()),
        };
        let secret = found.secret;
        Ok(Self {
            labels: read_labels(&secret.row.labels)?,
            owner_active: is_active(&owner, now),
            owner: owner.name,
            newest: ShownVersion::of(tx, &mut names, newest, now).await?,
            last_read,
            created_by: names.actor(tx, &secret.row.created_by).await?,
            changed_by: names.actor(tx, &secret.row.changed_by).await?,
            secret,
        })
    }
}

/// Shows what is known of a secret.
#[derive(Debug, Clone)]
pub struct ShowMetadata {
    /// The secret's name.
    pub path: SecretPath,
}

#[async_trait]
impl Verb for ShowMetadata {
    const ACTION: &'static str = "secrets.metadata";
    type Prepared = Metadata;
    type Output = Metadata;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Metadata> {
        let (id, now) = (decided(decision)?, view.now());
        view.read(move |tx| Metadata::read(tx, id, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowMetadata {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        metadata: &Metadata,
        _: &Decision,
    ) -> Result<Metadata> {
        Ok(metadata.clone())
    }
}

/// Changes labels and how long what is kept.
#[derive(Debug, Clone)]
pub struct UpdateSecret {
    /// The secret's name.
    pub path: SecretPath,
    /// The row's version, as it was shown.
    pub revision: i64,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Keys of labels to take away.
    pub remove_labels: Vec<String>,
    /// How many versions keep their value from the next one on; as before where it is left out.
    pub max_versions: Option<i64>,
    /// How long versions can be undeleted that are deleted from now on; as before where it is left
    /// out.
    pub window: Option<Duration>,
}

impl UpdateSecret {
    /// The row as it is to be.
    fn changed(&self, row: &SecretRow) -> Result<SecretRow> {
        let mut labels = read_labels(&row.labels)?;
        labels.extend(self.set_labels.clone());
        labels.retain(|key, _| !self.remove_labels.contains(key));
        check_labels(&labels)?;
        let max_versions = self.max_versions.unwrap_or(row.max_versions);
        if !(1..=VERSIONS).contains(&max_versions) {
            return Err(Error::invalid(format!("a secret keeps from 1 to {VERSIONS} versions")));
        }
        let window_s = match self.window.map(|window| window.as_secs()) {
            Some(seconds) if seconds > WINDOW_MOST_S => {
                return Err(Error::invalid("a window is at most ten years"));
            }
            Some(seconds) => i64::try_from(seconds).map_err(Error::internal)?,
            None => row.window_s,
        };
        Ok(SecretRow { labels: write_labels(&labels)?, max_versions, window_s, ..row.clone() })
    }
}

#[async_trait]
impl Verb for UpdateSecret {
    const ACTION: &'static str = "secrets.update";
    type Prepared = (Versioned<SecretRow>, SecretRow);
    type Output = Metadata;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        let id = decided(decision)?;
        let read = view.read(move |tx| async move { Found::read(tx, id).await }.boxed());
        let secret = read.await?.secret;
        let shown = decision.resource()?.rows.contains(&secret.fence());
        if self.revision != secret.version || !shown {
            return Err(Error::Conflict(
                format!("its revision is {}, which is not what was expected", secret.version)
                    .into(),
            ));
        }
        let changed = self.changed(&secret.row)?;
        Ok((secret, changed))
    }

    fn note(&self, (was, is): &Self::Prepared, note: &mut Note) {
        let shown = |row: &SecretRow| {
            let SecretRow { labels, max_versions, window_s, .. } = row;
            format!("labels {labels}, {max_versions} versions, window {window_s} s")
        };
        note.private.push((Field::Detail, format!("{} -> {}", shown(&was.row), shown(is))));
    }
}

#[async_trait]
impl Operation for UpdateSecret {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (was, is): &Self::Prepared,
        _: &Decision,
    ) -> Result<Metadata> {
        let row = SecretRow { changed_at: ctx.now, changed_by: ctx.actor(), ..is.clone() };
        tx.change(was, &row).await?;
        Metadata::read(tx, row.id, ctx.now).await
    }
}
