//! Revoking: dead from the commit on, and with it every token below; what was made through them
//! is handed to whoever ends it outside.

use async_trait::async_trait;

use super::end::{is_taken_back, needs_of_revoking, revoke};
use super::{Found, Token, find, meant, missing, resource_of};
use crate::audit::Field;
use crate::engines::identities::{LONG, check_text};
use crate::error::Result;
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, RequestContext};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

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
pub struct Prepared {
    found: Found,
    restore_epoch: i64,
}

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
        let found = find(view, meant(view, self.accessor)?).await?.ok_or_else(missing)?;
        Ok(Prepared { found, restore_epoch: view.subject()?.restore_epoch() })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(prepared.found.token.row.id);
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RevokeToken {
    const NEEDS: Needs = CONTAINS;

    fn needs(&self, prepared: &Prepared) -> Needs {
        needs_of_revoking(prepared.found.token.row.state)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        Prepared { found, restore_epoch }: &Prepared,
        _: &Decision,
    ) -> Result<Token> {
        let id = found.token.row.id;
        let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?;
        let over = is_taken_back(read.row.state);
        let row = if over { read.row } else { revoke(ctx, tx, read).await? };
        found.shown(row, *restore_epoch)
    }
}
