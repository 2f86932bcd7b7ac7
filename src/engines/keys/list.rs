//! Lists keys, within what the caller may see: a name is known to who may do anything at all with
//! what it names, and to nobody else.
//!
//! Page tokens are sealed, because the name where a page ended may be one that the caller must not
//! learn.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::of;
use super::show::KeyDetail;
use crate::engines::walk::{Walked, check_prefix, walk};
use crate::error::{Error, Result};
use crate::store::named_keys::{self, NamedKeyRow};
use crate::store::{Needs, StoreError, Tx, Versioned};
use crate::types::{IdentityId, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// A page of keys.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// The keys, by name.
    pub keys: Vec<KeyDetail>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

/// Lists keys by name.
#[derive(Debug, Clone)]
pub struct ListKeys {
    /// Only names that begin so.
    pub prefix: String,
    /// Only keys that nobody used for so long, nor made.
    pub unused_for: Option<Duration>,
    /// Keys at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Walked for NamedKeyRow {
    const ROOT: &'static str = "keys/";
    const ON_ONE: &'static str = "keys/<name>";

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn resource(found: &Versioned<Self>) -> Result<Resource> {
        of(&found.row.name, Some(found))
    }

    async fn owned(
        tx: &mut Tx,
        owner: IdentityId,
        names: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Versioned<Self>>, StoreError> {
        named_keys::owned_from(tx, owner, names, limit).await
    }

    async fn all(
        tx: &mut Tx,
        names: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Versioned<Self>>, StoreError> {
        named_keys::keys_from(tx, names, limit).await
    }
}

/// The moment so long ago.
fn before(now: UnixMillis, unused: Duration) -> Result<UnixMillis> {
    let ms = i64::try_from(unused.as_millis());
    let ms = ms.map_err(|_long| Error::invalid("no key is unused for so long"))?;
    Ok(UnixMillis(now.0.saturating_sub(ms)))
}

#[async_trait]
impl Verb for ListKeys {
    const ACTION: &'static str = "keys.list";
    type Prepared = KeyPage;
    type Output = KeyPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("keys".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<KeyPage> {
        check_prefix(&self.prefix)?;
        let unused_s = self.unused_for.map_or(0, |unused| unused.as_secs());
        let narrowed = format!("{} {unused_s}", self.prefix);
        let tokens = PageToken::new(view, Self::ACTION, &narrowed)?;
        let before = self.unused_for.map(|unused| before(view.now(), unused)).transpose()?;
        let Page { size, after } = tokens.open(view, self.page_size, &self.page_token)?;
        let size = usize::try_from(size).map_err(Error::internal)?;
        let all = |_: &NamedKeyRow| -> Result<bool> { Ok(true) };
        let (found, next) = walk(view, &self.prefix, (after, size), all).await?;
        let next = next.map(|at| tokens.seal(view, &at));
        let read = view.read(move |tx| {
            async move {
                let mut keys = Vec::with_capacity(found.len());
                for row in found {
                    let key = KeyDetail::of(tx, row).await?;
                    if before.is_none_or(|before| key.touched() <= before) {
                        keys.push(key);
                    }
                }
                Ok(keys)
            }
            .boxed()
        });
        Ok(KeyPage { keys: read.await?, next: next.transpose()?.unwrap_or_default() })
    }
}

#[async_trait]
impl Operation for ListKeys {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &KeyPage,
        _: &Decision,
    ) -> Result<KeyPage> {
        Ok(page.clone())
    }
}
