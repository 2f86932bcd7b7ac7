//! Shows one ceremony.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::About;
use super::case::Case;
use super::unknown;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::ceremonies::CeremonyRow;
use crate::store::{Needs, Tx};
use crate::types::{
    CeremonyId, CeremonyState, IdentityName, RequestContext, ResourceName, UnixMillis,
};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View, Vote};

/// A ceremony as it is shown.
#[derive(Debug, Clone)]
pub struct Ceremony {
    /// Its row.
    pub row: CeremonyRow,
    /// What it is about.
    pub about: About,
    /// The name of who asked.
    pub identity: IdentityName,
    /// Who voted, by name.
    pub votes: Vec<(IdentityName, Vote)>,
    /// How many administrators are missing; 0 where nobody is waited for any more.
    pub missing: i64,
    /// Whether it waited too long.
    pub expired: bool,
    /// The name of who last changed it.
    pub changed_by: String,
}

impl Ceremony {
    pub(super) async fn of(
        tx: &mut Tx,
        names: &mut Names,
        case: &Case,
        now: UnixMillis,
    ) -> Result<Self> {
        let mut votes = Vec::with_capacity(case.votes.len());
        for vote in &case.votes {
            let by = names.identity(tx, vote.by.parse().map_err(Error::internal)?).await?;
            votes.push((by, vote.clone()));
        }
        let row = case.found.row.clone();
        let open = row.state == CeremonyState::Open;
        let expired = open && row.expires_at <= now;
        Ok(Self {
            missing: if open && !expired { case.missing(tx, now).await? } else { 0 },
            about: case.about.clone(),
            identity: case.requester.name.clone(),
            changed_by: names.actor(tx, &row.changed_by).await?,
            votes,
            expired,
            row,
        })
    }

    /// The word for where it is.
    #[must_use]
    pub fn shown_state(&self) -> &'static str {
        match (self.expired, self.row.state, self.missing) {
            (true, _, _) => "expired",
            (false, CeremonyState::Open, 0) => "approved",
            (false, state, _) => state.as_str(),
        }
    }
}

/// A ceremony as a decision sees it, whether it exists or not.
pub(super) async fn resource(view: &View, id: CeremonyId) -> Result<Resource> {
    let resource = Resource::named(ResourceName::join("ceremonies", &[&id.to_string()])?);
    let read = view.read(move |tx| async move { Ok(tx.lookup::<CeremonyRow>(&id).await?) }.boxed());
    Ok(match read.await? {
        Some(found) => resource.with_row(id.0, &found),
        None => resource,
    })
}

/// Shows a ceremony.
#[derive(Debug, Clone, Copy)]
pub struct ShowCeremony {
    /// Its id.
    pub id: CeremonyId,
}

#[async_trait]
impl Verb for ShowCeremony {
    const ACTION: &'static str = "ceremonies.show";
    type Prepared = Ceremony;
    type Output = Ceremony;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.id).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Ceremony> {
        let id = decision.resource()?.id.map(CeremonyId).ok_or_else(unknown)?;
        let (now, dev) = (view.now(), view.is_dev());
        let read = view.read(move |tx| {
            async move {
                let case = Case::find(tx, id, dev).await?;
                Ceremony::of(tx, &mut Names::default(), &case, now).await
            }
            .boxed()
        });
        read.await
    }
}

#[async_trait]
impl Operation for ShowCeremony {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &Ceremony,
        _: &Decision,
    ) -> Result<Ceremony> {
        Ok(shown.clone())
    }
}
