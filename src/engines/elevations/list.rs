//! Lists elevations that concern the caller, the newest first.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::show::Elevation;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx, elevations as rows};
use crate::types::{ElevationState, RequestContext, ResourceName, VaultId};
use crate::vault::{Decision, Operation, PageToken, READS, Resource, Subject, Verb, View};

/// Rows looked at for one page: what is passed over counts too.
const LOOKED_AT: usize = 2_000;
const STEP: i64 = 100;
/// After every id.
const NEWEST: &str = "~";

/// One page of elevations.
#[derive(Debug, Clone)]
pub struct ListElevations {
    /// Only those in this state.
    pub state: Option<ElevationState>,
    /// Those that are over, too.
    pub over: bool,
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListElevations {
    const ACTION: &'static str = "elevations.list";
    type Prepared = (Vec<Elevation>, String);
    type Output = (Vec<Elevation>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("elevations", &[])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let wanted = (self.state, self.over || self.state.is_some_and(ElevationState::is_over));
        let tokens = PageToken::new(view, Self::ACTION, &format!("{wanted:?}"))?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let size = usize::try_from(page.size).map_err(Error::internal)?;
        let before = if page.after.is_empty() { NEWEST.to_owned() } else { page.after };
        let (subject, of) = (Arc::clone(view.subject()?), (view.vault_id(), view.is_dev()));
        let read = view.read(move |tx| {
            async move { scan(tx, &subject, of, wanted, before, size).await }.boxed()
        });
        let (listed, next) = read.await?;
        let next = next.map(|before| tokens.seal(view, &before)).transpose()?;
        Ok((listed, next.unwrap_or_default()))
    }
}

/// Reads one page, and the id before which the next begins.
async fn scan(
    tx: &mut Tx,
    subject: &Subject,
    of: (VaultId, bool),
    (state, over): (Option<ElevationState>, bool),
    mut before: String,
    size: usize,
) -> Result<(Vec<Elevation>, Option<String>)> {
    let (mut listed, mut looked_at, mut names) = (Vec::new(), 0_usize, Names::default());
    loop {
        let part = rows::before(tx, &before, over, STEP).await?;
        let Some((_, last)) = part.last else { return Ok((listed, None)) };
        for row in part.rows {
            if listed.len() == size || looked_at == LOOKED_AT {
                return Ok((listed, Some(before)));
            }
            looked_at = looked_at.saturating_add(1);
            before = row.row.id.to_string();
            if state.is_some_and(|state| row.row.state != state) {
                continue;
            }
            listed.extend(Elevation::seen(tx, &mut names, row, subject, of).await?);
        }
        before = last;
    }
}

#[async_trait]
impl Operation for ListElevations {
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
