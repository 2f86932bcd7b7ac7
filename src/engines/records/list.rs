//! Lists entries that fit a question, newest first.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Question, log};
use crate::audit::{self, Shown};
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::RequestContext;
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// Asks for a page of entries.
#[derive(Debug, Clone)]
pub struct List {
    /// Which entries.
    pub question: Question,
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// A page of entries. It may be short, even empty, while there is more.
#[derive(Debug)]
pub struct Listed {
    /// The entries, newest first.
    pub entries: Vec<Shown>,
    /// Where the next page begins; empty after the last.
    pub next: String,
}

#[async_trait]
impl Verb for List {
    const ACTION: &'static str = "records.list";
    type Prepared = Arc<Listed>;
    type Output = Arc<Listed>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        log()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Arc<Listed>> {
        let token = PageToken::new(view, Self::ACTION, &self.question.binding())?;
        let page = token.open(view, self.page_size, &self.page_token)?;
        let below: Option<i64> = match page.after.as_str() {
            "" => None,
            index => Some(index.parse().map_err(Error::internal)?),
        };
        let most = usize::try_from(page.size).map_err(Error::internal)?;
        let filter = self.question.filter(view).await?;
        let codec = view.record();
        let found = view
            .read(move |tx| {
                async move {
                    audit::find(tx, &codec, &filter, below.unwrap_or(i64::MAX), most).await
                }
                .boxed()
            })
            .await?;
        let next = found.below.map(|below| token.seal(view, &below.to_string())).transpose()?;
        Ok(Arc::new(Listed { entries: found.entries, next: next.unwrap_or_default() }))
    }
}

#[async_trait]
impl Operation for List {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Arc<Listed>,
        _: &Decision,
    ) -> Result<Arc<Listed>> {
        Ok(Arc::clone(prepared))
    }
}
