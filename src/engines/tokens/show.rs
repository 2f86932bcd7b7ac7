//! Shows one token, which takes none of its uses.

use async_trait::async_trait;

use super::{Token, find, meant, missing, resource_of};
use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, RequestContext};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Shows a token.
#[derive(Debug, Clone, Copy)]
pub struct InspectToken {
    /// Its accessor; none for the one that asks.
    pub accessor: Option<CredentialId>,
}

#[async_trait]
impl Verb for InspectToken {
    const ACTION: &'static str = "tokens.inspect";
    const SPENDS: bool = false;
    type Prepared = Token;
    type Output = Token;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.accessor).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Token> {
        let found = find(view, meant(view, self.accessor)?).await?.ok_or_else(missing)?;
        found.shown(found.token.row.clone(), view.subject()?.restore_epoch())
    }
}

#[async_trait]
impl Operation for InspectToken {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Token,
        _: &Decision,
    ) -> Result<Token> {
        Ok(prepared.clone())
    }
}
