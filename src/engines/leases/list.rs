//! Listing leases: one's own, or those of whom one may look at.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Lease, LeaseDetail};
use crate::engines::identities::{held_by, whose};
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow, LeaseFilter};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx};
use crate::types::{
    CredentialKind, CredentialState, IdentityName, Kind, RequestContext, ResourceName,
    ResourcePattern,
};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Verb, View};

/// Rows looked at for one page: what is passed over counts too.
const LOOKED_AT: usize = 10_000;
const STEP: i64 = 1_000;

/// One page of leases.
#[derive(Debug)]
pub struct ListLeases {
    /// Only those of this identity; none for all that the caller may see.
    pub identity: Option<IdentityName>,
    /// Only those on these resources.
    pub resource: Option<ResourcePattern>,
    /// Only those in this state.
    pub state: Option<CredentialState>,
    /// Those that have ended, too.
    pub ended: bool,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

impl ListLeases {
    /// Tells whether everybody's are asked for: by an administrator who names nobody.
    fn is_of_everybody(&self, view: &View) -> Result<bool> {
        let subject = view.subject()?;
        let administers = subject.identity.row.kind == Kind::Human && subject.is_administrator();
        Ok(self.identity.is_none() && administers)
    }
}

#[async_trait]
impl Verb for ListLeases {
    const ACTION: &'static str = "leases.list";
    type Prepared = (Vec<Lease>, String);
    type Output = (Vec<Lease>, String);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        if self.is_of_everybody(view)? {
            return Ok(vec![Resource::named("leases/identities".parse()?)]);
        }
        let named =
            |name: &IdentityName| ResourceName::join("leases", &["identities", name.as_str()]);
        Ok(vec![held_by(view, self.identity.as_ref(), named).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let identity = if self.is_of_everybody(view)? {
            None
        } else {
            let found = whose(view, self.identity.as_ref()).await?;
            let found = found.ok_or_else(|| Error::not_found("there is no such identity"))?;
            Some(found.row.id)
        };
        let wanted = Wanted {
            walk: LeaseFilter {
                identity,
                ended: self.state.map_or(self.ended, |state| state == CredentialState::Ended),
            },
            state: self.state,
            pattern: self.resource.clone(),
        };
        let tokens = PageToken::new(view, Self::ACTION, &format!("{wanted:?}"))?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let size = usize::try_from(page.size).map_err(Error::internal)?;
        let (listed, next) = view
            .read(move |tx| async move { scan(tx, &wanted, page.after, size).await }.boxed())
            .await?;
        let next = next.map(|after| tokens.seal(view, &after)).transpose()?;
        Ok((listed, next.unwrap_or_default()))
    }
}

/// What is listed of what is walked through.
#[derive(Debug)]
struct Wanted {
    walk: LeaseFilter,
    state: Option<CredentialState>,
    pattern: Option<ResourcePattern>,
}

impl Wanted {
    fn holds(&self, row: &CredentialRow) -> bool {
        row.kind == CredentialKind::Lease
            && self.state.is_none_or(|state| row.state == state)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(row.resource.as_str()))
    }
}

/// Reads one page, and the key after which the next begins.
async fn scan(
    tx: &mut Tx,
    wanted: &Wanted,
    mut after: String,
    size: usize,
) -> Result<(Vec<Lease>, Option<String>)> {
    let (mut listed, mut looked_at) = (Vec::new(), 0_usize);
    loop {
        let rows = credentials::leases_after(tx, wanted.walk, &after, STEP).await?;
        if rows.is_empty() {
            return Ok((listed, None));
        }
        for row in rows {
            if listed.len() == size || looked_at == LOOKED_AT {
                return Ok((listed, Some(after)));
            }
            looked_at = looked_at.saturating_add(1);
            after = row.row.id.to_string();
            let row = row.row;
            if !wanted.holds(&row) {
                continue;
            }
            let identity = tx.lookup::<IdentityRow>(&row.identity).await?;
            let identity = identity.ok_or_else(|| Error::internal("a lease without identity"))?;
            let detail = LeaseDetail::decode(&row.detail)?;
            listed.push(Lease { row, detail, identity: identity.row.name });
        }
    }
}

#[async_trait]
impl Operation for ListLeases {
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
