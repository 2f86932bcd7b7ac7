//! Lists the versions of a secret, without their values.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::{Found, decided, resource};
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretVersionRow};
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, SecretPath, SecretState, UnixMillis};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// A version as it is shown: never its value.
#[derive(Debug, Clone)]
pub struct ShownVersion {
    /// Its row.
    pub row: SecretVersionRow,
    /// Whether its time is over.
    pub expired: bool,
    /// The name of who wrote it.
    pub created_by: String,
    /// The name of who changed its state last.
    pub changed_by: String,
}

impl ShownVersion {
    pub(super) async fn of(
        tx: &mut Tx,
        names: &mut Names,
        row: SecretVersionRow,
        now: UnixMillis,
    ) -> Result<Self> {
        let over = row.expires_at.is_some_and(|end| end <= now);
        Ok(Self {
            expired: over && row.state == SecretState::Live,
            created_by: names.actor(tx, &row.created_by).await?,
            changed_by: names.actor(tx, &row.changed_by).await?,
            row,
        })
    }
}

/// Lists versions, the newest first.
#[derive(Debug, Clone)]
pub struct ListVersions {
    /// The secret's name.
    pub path: SecretPath,
    /// Versions at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// A page of versions.
#[derive(Debug, Clone)]
pub struct History {
    /// The versions.
    pub versions: Vec<ShownVersion>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

#[async_trait]
impl Verb for ListVersions {
    const ACTION: &'static str = "secrets.history";
    type Prepared = History;
    type Output = History;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<History> {
        let (id, now) = (decided(decision)?, view.now());
        let tokens = PageToken::new(view, Self::ACTION, self.path.as_str())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let before = match page.after.as_str() {
            "" => i64::MAX,
            after => after.parse().map_err(Error::internal)?,
        };
        let limit = page.size.saturating_add(1);
        let read = view.read(move |tx| {
            async move {
                Found::read(tx, id).await?.version(tx, 0).await?;
                let (mut names, mut versions) = (Names::default(), Vec::new());
                for found in secrets::versions_before(tx, id, before, limit).await? {
                    versions.push(ShownVersion::of(tx, &mut names, found.row, now).await?);
                }
                Ok(versions)
            }
            .boxed()
        });
        let last = |last: &ShownVersion| last.row.version.to_string();
        let (versions, next) = tokens.cut(view, &page, read.await?, last)?;
        Ok(History { versions, next })
    }
}

#[async_trait]
impl Operation for ListVersions {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        history: &History,
        _: &Decision,
    ) -> Result<History> {
        Ok(history.clone())
    }
}
