//! Lists the tokens of an identity: those in force by when they end, or all by when they were
//! made.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Found, Token, resource_name};
use crate::engines::identities::{Names, held_by, whose};
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialKind, IdentityName, RequestContext, UnixMillis};
use crate::vault::{
    Decision, Operation, PageToken, READS, Resource, Subject, TokenDetail, Verb, View,
};

/// One page of tokens.
#[derive(Debug, Clone)]
pub struct ListTokens {
    /// Whose; none for the caller's own.
    pub identity: Option<IdentityName>,
    /// Those that are over, too.
    pub ended: bool,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListTokens {
    const ACTION: &'static str = "tokens.list";
    type Prepared = (Vec<Token>, String);
    type Output = (Vec<Token>, String);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![held_by(view, self.identity.as_ref(), resource_name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let found = whose(view, self.identity.as_ref()).await?;
        let holder = found.ok_or_else(|| Error::not_found("there is no such identity"))?;
        let (ended, now, subject) = (self.ended, view.now(), Arc::clone(view.subject()?));
        let tokens = PageToken::new(view, Self::ACTION, &format!("{} {ended}", holder.row.id))?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (after, limit) = (page.after.clone(), page.size.saturating_add(1));
        let read = view.read(move |tx| {
            async move { read(tx, &subject, &holder, (ended, now), &after, limit).await }.boxed()
        });
        tokens.cut(view, &page, read.await?, |last| cursor(&last.row, ended))
    }
}

/// Where a page ends: those in force go by their end.
fn cursor(row: &CredentialRow, ended: bool) -> String {
    if ended { row.id.to_string() } else { format!("{} {}", row.expires_at.0, row.id) }
}

async fn read(
    tx: &mut Tx,
    asks: &Subject,
    holder: &Versioned<IdentityRow>,
    (ended, now): (bool, UnixMillis),
    after: &str,
    limit: i64,
) -> Result<Vec<Token>> {
    let id = holder.row.id;
    let rows = if ended {
        credentials::after(tx, CredentialKind::Token, Some(id), after, limit).await?
    } else {
        let (at, after) = match after.split_once(' ') {
            Some((at, after)) => (UnixMillis(at.parse().map_err(Error::internal)?), after),
            // After every id of those that end now.
            None => (now, "~"),
        };
        let (epoch, since) = (holder.row.revocation_epoch, asks.restored_at());
        let of = credentials::Holder { identity: id, epoch, since };
        credentials::live_tokens(tx, of, at.max(now), after, limit).await?
    };
    let mut names = Names::default();
    let mut tokens = Vec::with_capacity(rows.len());
    for token in rows {
        let detail = TokenDetail::decode(&token.row.detail)?;
        let created_by = names.actor(tx, &detail.created_by).await?;
        let row = token.row.clone();
        let found = Found { token, detail, holder: holder.clone(), created_by };
        tokens.push(found.shown(row, asks.restore_epoch())?);
    }
    Ok(tokens)
}

#[async_trait]
impl Operation for ListTokens {
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
