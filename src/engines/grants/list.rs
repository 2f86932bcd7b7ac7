//! Lists grants.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{DescribedGrant, GrantTo};
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::identities;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, Verb as VerbRow};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// Lists grants that were not removed, oldest first.
#[derive(Debug, Clone, Default)]
pub struct ListGrants {
    /// Only those to this identity or group.
    pub to: Option<GrantTo>,
    /// Only those of this action; empty for all.
    pub action: String,
    /// Grants at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// A page of grants.
#[derive(Debug, Clone)]
pub struct GrantPage {
    /// The grants.
    pub grants: Vec<DescribedGrant>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

impl ListGrants {
    /// What a page's token is bound to.
    fn narrowed(&self) -> String {
        match &self.to {
            None => format!("all {}", self.action),
            Some(GrantTo::Identity(name)) => format!("identity {name} {}", self.action),
            Some(GrantTo::Group(name)) => format!("group {name} {}", self.action),
        }
    }
}

#[async_trait]
impl Verb for ListGrants {
    const ACTION: &'static str = "grants.list";
    type Prepared = GrantPage;
    type Output = GrantPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("grants".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<GrantPage> {
        if !self.action.is_empty() && VerbRow::lookup(&self.action).is_none() {
            return Err(Error::invalid(
                "there is no such action; `strongroom actions` lists them all",
            ));
        }
        let tokens = PageToken::new(view, Self::ACTION, &self.narrowed())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (to, action) = (self.to.clone(), self.action.clone());
        let (after, limit) = (page.after.clone(), page.size + 1);
        let rows = view
            .read(move |tx| {
                async move {
                    let mut subject = None;
                    if let Some(to) = to {
                        let unknown = || Error::not_found("there is nobody of that name");
                        subject = Some(to.find(tx).await?.ok_or_else(unknown)?.id());
                    }
                    let (mut names, mut described) = (Names::default(), Vec::new());
                    for row in identities::grants_after(tx, &after, subject, &action, limit).await?
                    {
                        described.push(DescribedGrant::read(tx, &mut names, row.row).await?);
                    }
                    Ok(described)
                }
                .boxed()
            })
            .await?;
        let (grants, next) = tokens.cut(view, &page, rows, |last| last.grant.id.to_string())?;
        Ok(GrantPage { grants, next })
    }
}

#[async_trait]
impl Operation for ListGrants {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &GrantPage,
        _: &Decision,
    ) -> Result<GrantPage> {
        Ok(prepared.clone())
    }
}
