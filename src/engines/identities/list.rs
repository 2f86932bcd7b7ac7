//! Lists identities.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Described, Names};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityFilter};
use crate::store::{Needs, Tx};
use crate::types::{IdentityName, IdentityState, Kind, RequestContext, Tier};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// Lists identities by name.
#[derive(Debug, Clone, Default)]
pub struct ListIdentities {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only what this human answers for.
    pub owner: Option<IdentityName>,
    /// Only this state.
    pub state: Option<IdentityState>,
    /// Only this tier.
    pub tier: Option<Tier>,
    /// Identities at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// A page of identities.
#[derive(Debug, Clone)]
pub struct IdentityPage {
    /// The identities.
    pub identities: Vec<Described>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

impl ListIdentities {
    /// What a page's token is bound to.
    fn narrowed(&self) -> String {
        let word = |word: Option<&'static str>| word.unwrap_or_default();
        let owner = self.owner.as_ref().map(IdentityName::as_str).unwrap_or_default();
        let (kind, state) = (self.kind.map(Kind::as_str), self.state.map(IdentityState::as_str));
        // No word holds a space.
        [word(kind), owner, word(state), word(self.tier.map(Tier::as_str))].join(" ")
    }
}

#[async_trait]
impl Verb for ListIdentities {
    const ACTION: &'static str = "identities.list";
    type Prepared = IdentityPage;
    type Output = IdentityPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<IdentityPage> {
        let tokens = PageToken::new(view, Self::ACTION, &self.narrowed())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let (owner, after, limit) = (self.owner.clone(), page.after.clone(), page.size + 1);
        let mut filter =
            IdentityFilter { kind: self.kind, state: self.state, tier: self.tier, owner: None };
        let rows = view
            .read(move |tx| {
                async move {
                    if let Some(owner) = owner {
                        let found = identities::identity_named(tx, &owner).await?;
                        let unknown = || Error::not_found("there is no owner of that name");
                        filter.owner = Some(found.ok_or_else(unknown)?.row.id);
                    }
                    let (mut names, mut described) = (Names::default(), Vec::new());
                    for row in identities::identities_after(tx, &after, &filter, limit).await? {
                        described.push(Described::read(tx, &mut names, row).await?);
                    }
                    Ok(described)
                }
                .boxed()
            })
            .await?;
        let key = |last: &Described| last.identity.row.name.to_string();
        let (identities, next) = tokens.cut(view, &page, rows, key)?;
        Ok(IdentityPage { identities, next })
    }
}

#[async_trait]
impl Operation for ListIdentities {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &IdentityPage,
        _: &Decision,
    ) -> Result<IdentityPage> {
        Ok(prepared.clone())
    }
}
