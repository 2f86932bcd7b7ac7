//! Who used a key, which version, what for and how often, by day: as the record says.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::{named, of, unknown};
use crate::audit::DAY_MS;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::key_usage::{self, UsageKey, Uses};
use crate::store::{Needs, Tx};
use crate::types::{KeyName, ObjectId, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// Asks who used a key.
#[derive(Debug, Clone)]
pub struct GetKeyUsage {
    /// Its name.
    pub name: KeyName,
    /// Rows at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// What one identity did with one version on one day.
#[derive(Debug, Clone)]
pub struct ShownUsage {
    /// When the day began, in UTC.
    pub day: UnixMillis,
    /// The name of the identity, or of the worker.
    pub by: String,
    /// The key's version.
    pub version: i64,
    /// What for.
    pub purpose: String,
    /// How many calls.
    pub uses: i64,
    /// When the last one was.
    pub last_at: UnixMillis,
}

/// A page of it.
#[derive(Debug, Clone)]
pub struct UsagePage {
    /// The newest day first.
    pub rows: Vec<ShownUsage>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

/// Where a page ended, as its token holds it.
fn place(at: &UsageKey) -> String {
    let UsageKey { day, used_by, version, purpose, .. } = at;
    format!("{day} {used_by} {version} {purpose}")
}

/// Reads where a page ended.
fn after(key: ObjectId, text: &str) -> Result<UsageKey> {
    if text.is_empty() {
        return Ok(UsageKey::beyond(key));
    }
    let mut parts = text.splitn(4, ' ');
    let mut next = || parts.next().ok_or(Error::Internal);
    let (day, used_by, version, purpose) = (next()?, next()?, next()?, next()?);
    Ok(UsageKey {
        key,
        day: day.parse().map_err(Error::internal)?,
        used_by: used_by.to_owned(),
        version: version.parse().map_err(Error::internal)?,
        purpose: purpose.to_owned(),
    })
}

async fn shown(tx: &mut Tx, rows: Vec<(UsageKey, Uses)>) -> Result<Vec<ShownUsage>> {
    let (mut names, mut shown) = (Names::default(), Vec::with_capacity(rows.len()));
    for (UsageKey { day, used_by, version, purpose, .. }, Uses { uses, last_at }) in rows {
        let (day, by) = (UnixMillis(day.saturating_mul(DAY_MS)), names.actor(tx, &used_by).await?);
        shown.push(ShownUsage { day, by, version, purpose, uses, last_at });
    }
    Ok(shown)
}

#[async_trait]
impl Verb for GetKeyUsage {
    const ACTION: &'static str = "keys.usage";
    type Prepared = UsagePage;
    type Output = UsagePage;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = named(view, &self.name).await?;
        Ok(vec![of(&self.name, found.as_ref())?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<UsagePage> {
        let id = decision.resource()?.id.map(ObjectId).ok_or_else(unknown)?;
        let tokens = PageToken::new(view, Self::ACTION, &id.to_string())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after: ref text } = page;
        let after = after(id, text)?;
        let read = view.read(move |tx| {
            async move { Ok(key_usage::usage(tx, &after, size.saturating_add(1)).await?) }.boxed()
        });
        let (rows, next) = tokens.cut(view, &page, read.await?, |(of, _)| place(of))?;
        let rows = view.read(move |tx| async move { shown(tx, rows).await }.boxed()).await?;
        Ok(UsagePage { rows, next })
    }
}

#[async_trait]
impl Operation for GetKeyUsage {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &UsagePage,
        _: &Decision,
    ) -> Result<UsagePage> {
        Ok(page.clone())
    }
}
