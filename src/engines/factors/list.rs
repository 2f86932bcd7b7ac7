//! Shows the factors of a human: to themselves and to administrators.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::guard::Guard;
use super::{Somebody, own};
use crate::engines::identities::Names;
use crate::error::Result;
use crate::store::factors::{self, FactorRow, InvitationRow};
use crate::store::{Needs, Tx};
use crate::types::{
    FactorKind, IdentityId, IdentityName, InvitationState, RequestContext, UnixMillis,
};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Asks for somebody's factors.
#[derive(Debug, Clone)]
pub struct ListFactors {
    /// Whose; none for the caller's own.
    pub identity: Option<IdentityName>,
}

/// A factor as it is shown.
#[derive(Debug, Clone)]
pub struct ShownFactor {
    /// Its row.
    pub row: FactorRow,
    /// The name of the administrator whose invitation it goes back to; empty for none.
    pub vouched_by: String,
    /// Of a recovery set, how many codes are left.
    pub codes_left: Option<i64>,
}

/// Somebody's factors, with what else is to be known of them.
#[derive(Debug, Clone)]
pub struct ShownFactors {
    /// The factors, oldest first.
    pub factors: Vec<ShownFactor>,
    /// Until when no code that could be guessed is looked at, where that is so.
    pub locked_until: Option<UnixMillis>,
    /// When the invitation ends that can be used, if there is one.
    pub invited_until: Option<UnixMillis>,
}

#[async_trait]
impl Verb for ListFactors {
    const ACTION: &'static str = "factors.list";
    type Prepared = ShownFactors;
    type Output = ShownFactors;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        match &self.identity {
            Some(name) => Somebody::resources(view, name).await,
            None => own(view),
        }
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<ShownFactors> {
        let id = match &self.identity {
            Some(name) => Somebody::decided(view, name, decision.resource()?).await?.id,
            None => view.identity()?,
        };
        let now = view.now();
        view.read(move |tx| async move { read(tx, id, now).await }.boxed()).await
    }
}

async fn read(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<ShownFactors> {
    let (mut names, mut shown) = (Names::default(), Vec::new());
    for found in factors::standing(tx, id).await? {
        let row = found.row;
        let vouched_by = match row.vouched_by {
            Some(by) => names.identity(tx, by).await?.to_string(),
            None => String::new(),
        };
        let codes_left = match row.kind {
            FactorKind::Recovery => Some(factors::codes_left(tx, row.id).await?),
            FactorKind::Totp => None,
        };
        shown.push(ShownFactor { row, vouched_by, codes_left });
    }
    let invited = tx.lookup::<InvitationRow>(&id).await?.map(|found| found.row);
    let live = |row: &InvitationRow| row.state == InvitationState::Live && row.expires_at > now;
    Ok(ShownFactors {
        factors: shown,
        locked_until: Guard::look(tx, id).await?.locked(now),
        invited_until: invited.filter(live).map(|row| row.expires_at),
    })
}

#[async_trait]
impl Operation for ListFactors {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &ShownFactors,
        _: &Decision,
    ) -> Result<ShownFactors> {
        Ok(prepared.clone())
    }
}
