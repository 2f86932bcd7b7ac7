//! Lists ceremonies, the newest first.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::case::Case;
use super::show::Ceremony;
use crate::engines::identities::Names;
use crate::error::Result;
use crate::store::{Needs, Tx, ceremonies};
use crate::types::{RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// After every id.
const NEWEST: &str = "~";

/// One page of ceremonies.
#[derive(Debug, Clone)]
pub struct ListCeremonies {
    /// Those that are over, too.
    pub over: bool,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListCeremonies {
    const ACTION: &'static str = "ceremonies.list";
    type Prepared = (Vec<Ceremony>, String);
    type Output = (Vec<Ceremony>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("ceremonies".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let filter = if self.over { "all" } else { "open" };
        let tokens = PageToken::new(view, Self::ACTION, filter)?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (asked, over, now, dev) = (page.clone(), self.over, view.now(), view.is_dev());
        let read = view.read(move |tx| scan(tx, asked, over, (now, dev)).boxed());
        tokens.cut(view, &page, read.await?, |last| last.row.id.to_string())
    }
}

/// Reads one page, and one more.
async fn scan(
    tx: &mut Tx,
    Page { size, after }: Page,
    over: bool,
    (now, dev): (UnixMillis, bool),
) -> Result<Vec<Ceremony>> {
    let before = if after.is_empty() { NEWEST.to_owned() } else { after };
    let waiting_at = (!over).then_some(now);
    let (mut names, mut listed) = (Names::default(), Vec::new());
    for found in ceremonies::before(tx, &before, waiting_at, size.saturating_add(1)).await? {
        let case = Case::load(tx, found, dev).await?;
        listed.push(Ceremony::of(tx, &mut names, &case, now).await?);
    }
    Ok(listed)
}

#[async_trait]
impl Operation for ListCeremonies {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &Self::Prepared,
        _: &Decision,
    ) -> Result<Self::Output> {
        Ok(page.clone())
    }
}
