//! Shows issuers.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::definition::IssuerDefinition;
use super::rules::OF_ISSUER;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::issuers::{self as rows, IssuerRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, ResourceName, Segment};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// An issuer as it is shown.
#[derive(Debug, Clone)]
pub struct DescribedIssuer {
    /// Its row.
    pub issuer: Versioned<IssuerRow>,
    /// What is known of it.
    pub definition: IssuerDefinition,
    /// How many rules it has.
    pub rules: i64,
    /// The name of who added it.
    pub created_by: String,
    /// The name of who last changed it.
    pub changed_by: String,
}

impl DescribedIssuer {
    pub(super) async fn of(
        tx: &mut Tx,
        names: &mut Names,
        issuer: Versioned<IssuerRow>,
    ) -> Result<Self> {
        Ok(Self {
            definition: IssuerDefinition::read(&issuer.row.definition)?,
            rules: rows::count_of_issuer(tx, issuer.row.id, OF_ISSUER).await?,
            created_by: names.actor(tx, &issuer.row.created_by).await?,
            changed_by: names.actor(tx, &issuer.row.changed_by).await?,
            issuer,
        })
    }
}

/// Answers that there is no such issuer.
pub(super) fn no_such_issuer() -> Error {
    Error::not_found("there is no such issuer; `strongroom issuer list` shows them")
}

/// Finds an issuer that was not removed.
pub(super) async fn find(view: &View, name: &Segment) -> Result<Option<Versioned<IssuerRow>>> {
    let name = name.clone();
    let read = view.read(move |tx| async move { Ok(rows::named(tx, &name).await?) }.boxed());
    Ok(read.await?.filter(|found| found.row.active))
}

/// Names an issuer as a resource, whether it exists or not.
pub(super) async fn resource(view: &View, name: &Segment) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("issuers", &[name.as_str()])?);
    Ok(match find(view, name).await? {
        Some(found) => resource.with_row(found.row.id.0, &found),
        None => resource,
    })
}

/// Shows an issuer.
#[derive(Debug, Clone)]
pub struct ShowIssuer {
    /// Its name.
    pub name: Segment,
}

#[async_trait]
impl Verb for ShowIssuer {
    const ACTION: &'static str = "issuers.show";
    type Prepared = DescribedIssuer;
    type Output = DescribedIssuer;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<DescribedIssuer> {
        let issuer = find(view, &self.name).await?.ok_or_else(no_such_issuer)?;
        let read = view.read(move |tx| {
            async move { DescribedIssuer::of(tx, &mut Names::default(), issuer).await }.boxed()
        });
        read.await
    }
}

#[async_trait]
impl Operation for ShowIssuer {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        issuer: &DescribedIssuer,
        _: &Decision,
    ) -> Result<DescribedIssuer> {
        Ok(issuer.clone())
    }
}

/// Lists issuers by name.
#[derive(Debug, Clone)]
pub struct ListIssuers {
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListIssuers {
    const ACTION: &'static str = "issuers.list";
    type Prepared = (Vec<DescribedIssuer>, String);
    type Output = (Vec<DescribedIssuer>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("issuers".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let tokens = PageToken::new(view, Self::ACTION, "")?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view.read(move |tx| {
            async move {
                let (mut names, mut listed) = (Names::default(), Vec::new());
                for issuer in rows::after(tx, &after, size.saturating_add(1)).await? {
                    listed.push(DescribedIssuer::of(tx, &mut names, issuer).await?);
                }
                Ok(listed)
            }
            .boxed()
        });
        tokens.cut(view, &page, listed.await?, |last| last.issuer.row.name.to_string())
    }
}

#[async_trait]
impl Operation for ListIssuers {
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
