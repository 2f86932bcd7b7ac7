//! Revoking: dead from the commit on, and with it every token below; what was made through them
//! is handed to whoever ends it outside.

use async_trait::async_trait;

use super::end::end_below;
use super::{Found, Token, find, meant, missing, resource_of};
use crate::audit::Field;
use crate::engines::identities::{LONG, check_text};
use crate::error::Result;
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, CredentialState, RequestContext};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, TokenDetail, Verb, View};

/// Ends a token.
#[derive(Debug, Clone)]
pub struct RevokeToken {
    /// Its accessor; none for the one that asks.
    pub accessor: Option<CredentialId>,
    /// Why, for the record.
    pub reason: String,
}

/// The token that is to end.
#[derive(Debug)]
pub struct Prepared(Found);

#[async_trait]
impl Verb for RevokeToken {
    const ACTION: &'static str = "tokens.revoke";
    const SPENDS: bool = false;
    type Prepared = Prepared;
    type Output = Token;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.accessor).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        check_text("a reason", &self.reason, LONG)?;
        find(view, meant(view, self.accessor)?).await?.map(Prepared).ok_or_else(missing)
    }

    fn note(&self, Prepared(found): &Prepared, note: &mut Note) {
        note.credential = Some(found.token.row.id);
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RevokeToken {
    const NEEDS: Needs = CONTAINS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        Prepared(found): &Prepared,
        _: &Decision,
    ) -> Result<Token> {
        let id = found.token.row.id;
        let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?;
        match read.row.state {
            CredentialState::Active | CredentialState::Spent | CredentialState::Pending => {}
            // Whoever was first ends what is below.
            CredentialState::Revoking | CredentialState::Ended => return found.shown(read.row),
        }
        let mut detail = TokenDetail::decode(&read.row.detail)?;
        detail.revoke(ctx.now, ctx.actor());
        let done = end_below(ctx, tx, id).await?;
        let state = if done { CredentialState::Ended } else { CredentialState::Revoking };
        let next_try = (!done).then_some(ctx.now);
        let row = CredentialRow { state, next_try, detail: detail.encode()?, ..read.row };
        let row = tx.update(read.version, &row).await?.row;
        found.shown(row)
    }
}
