//! Lists what was wrapped by an identity, or for it, the newest first.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Wrap, as_of, resource_name};
use crate::engines::identities::{Names, held_by, whose};
use crate::error::{Error, Result};
use crate::store::{Needs, Tx, wraps};
use crate::types::{IdentityId, IdentityName, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// One page of wraps.
#[derive(Debug, Clone)]
pub struct ListWraps {
    /// Whose; none for the caller's own.
    pub identity: Option<IdentityName>,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListWraps {
    const ACTION: &'static str = "wraps.list";
    type Prepared = (Vec<Wrap>, String);
    type Output = (Vec<Wrap>, String);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![held_by(view, self.identity.as_ref(), resource_name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let found = whose(view, self.identity.as_ref()).await?;
        let found = found.ok_or_else(|| Error::not_found("there is no such identity"))?;
        let (id, as_of) = (found.row.id, as_of(view)?);
        let tokens = PageToken::new(view, Self::ACTION, &id.to_string())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        // Before every id where it is the first page.
        let before = if page.after.is_empty() { "~".to_owned() } else { page.after.clone() };
        let limit = page.size.saturating_add(1);
        let read =
            view.read(move |tx| async move { read(tx, id, &before, limit, as_of).await }.boxed());
        tokens.cut(view, &page, read.await?, |wrap| wrap.row.id.to_string())
    }
}

async fn read(
    tx: &mut Tx,
    id: IdentityId,
    before: &str,
    limit: i64,
    as_of: (UnixMillis, i64),
) -> Result<Vec<Wrap>> {
    let mut names = Names::default();
    let rows = wraps::of_identity(tx, id, before, limit).await?;
    let mut listed = Vec::with_capacity(rows.len());
    for found in rows {
        listed.push(Wrap::describe(tx, &mut names, found.row, as_of).await?);
    }
    Ok(listed)
}

#[async_trait]
impl Operation for ListWraps {
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
