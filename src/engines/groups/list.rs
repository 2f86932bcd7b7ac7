//! Lists groups.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::DescribedGroup;
use crate::engines::identities::Names;
use crate::error::Result;
use crate::store::{Needs, Tx, identities};
use crate::types::RequestContext;
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// Lists groups by name.
#[derive(Debug, Clone)]
pub struct ListGroups {
    /// Groups at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListGroups {
    const ACTION: &'static str = "groups.list";
    type Prepared = (Vec<DescribedGroup>, String);
    type Output = (Vec<DescribedGroup>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("groups".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let tokens = PageToken::new(view, Self::ACTION, "")?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view.read(move |tx| {
            async move {
                let (mut names, mut listed) = (Names::default(), Vec::new());
                for group in identities::groups_after(tx, &after, size.saturating_add(1)).await? {
                    listed.push(DescribedGroup::read(tx, &mut names, group).await?);
                }
                Ok(listed)
            }
            .boxed()
        });
        tokens.cut(view, &page, listed.await?, |last| last.group.row.name.to_string())
    }
}

#[async_trait]
impl Operation for ListGroups {
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
