//! Lists the enrolments of an identity, by when they were made.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Enrolment, Found, resource_name, unknown};
use crate::engines::identities::{Names, held_by, whose};
use crate::error::Result;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned, credentials};
use crate::types::{CredentialKind, IdentityName, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// One page of enrolments.
#[derive(Debug, Clone)]
pub struct ListEnrolments {
    /// Whose.
    pub identity: IdentityName,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListEnrolments {
    const ACTION: &'static str = "enrolments.list";
    type Prepared = (Vec<Enrolment>, String);
    type Output = (Vec<Enrolment>, String);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![held_by(view, Some(&self.identity), resource_name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let holder = whose(view, Some(&self.identity)).await?.ok_or_else(unknown)?;
        let as_of = (view.subject()?.restore_epoch(), view.now());
        let tokens = PageToken::new(view, Self::ACTION, &holder.row.id.to_string())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (after, limit) = (page.after.clone(), page.size.saturating_add(1));
        let read = view
            .read(move |tx| async move { read(tx, &holder, as_of, &after, limit).await }.boxed());
        tokens.cut(view, &page, read.await?, |one| one.row.id.to_string())
    }
}

async fn read(
    tx: &mut Tx,
    holder: &Versioned<IdentityRow>,
    as_of: (i64, UnixMillis),
    after: &str,
    limit: i64,
) -> Result<Vec<Enrolment>> {
    let (kind, id) = (CredentialKind::Enrolment, holder.row.id);
    let rows = credentials::after(tx, kind, Some(id), after, limit).await?;
    let mut names = Names::default();
    let mut listed = Vec::with_capacity(rows.len());
    for row in rows {
        let found = Found::of(tx, &mut names, holder.clone(), row).await?;
        listed.push(found.shown(found.enrolment.row.clone(), as_of)?);
    }
    Ok(listed)
}

#[async_trait]
impl Operation for ListEnrolments {
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
