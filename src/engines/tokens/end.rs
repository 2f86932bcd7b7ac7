//! What hangs below a token that was revoked: tokens are dead already and end here, leases are
//! handed to the worker that takes them back, certificates end.

use async_trait::async_trait;

use super::missing;
use crate::engines::leases;
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, CredentialState, RequestContext};
use crate::vault::{Decision, Note, Operation, Resource, TAKES_BACK, TokenDetail, Verb, View};

/// Credentials ended in one commit: what is left is due in the next.
const STEP: i64 = 256;

/// Goes on with ending what is below a revoked token; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct EndToken {
    /// The token.
    pub id: CredentialId,
    /// The version that was found due.
    pub version: i64,
}

#[async_trait]
impl Verb for EndToken {
    const ACTION: &'static str = "tokens.end";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("tokens".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        note.credential = Some(self.id);
    }
}

#[async_trait]
impl Operation for EndToken {
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let read = tx.lookup::<CredentialRow>(&self.id).await?.ok_or_else(missing)?;
        if read.version != self.version || read.row.state != CredentialState::Revoking {
            return Err(Error::Conflict("another node is ending this token".into()));
        }
        let row = if end_below(ctx, tx, self.id).await? {
            CredentialRow { state: CredentialState::Ended, next_try: None, ..read.row }
        } else {
            CredentialRow { next_try: Some(ctx.now), ..read.row }
        };
        tx.update(read.version, &row).await?;
        Ok(())
    }
}

/// Ends what hangs on a token, a bounded part of it; true when nothing is left.
pub(super) async fn end_below(ctx: &RequestContext, tx: &mut Tx, id: CredentialId) -> Result<bool> {
    let below = credentials::below(tx, id, STEP).await?;
    let done = i64::try_from(below.len()).is_ok_and(|found| found < STEP);
    for child in below {
        match child.row.kind {
            CredentialKind::Token => end_child(ctx, tx, child).await?,
            CredentialKind::Lease => leases::end_with_parent(ctx, tx, &child).await?,
            CredentialKind::Certificate | CredentialKind::Login => {
                let row = CredentialRow {
                    state: CredentialState::Ended,
                    next_try: None,
                    trouble: "the token that it was asked for with was revoked".to_owned(),
                    ..child.row
                };
                tx.update(child.version, &row).await?;
            }
        }
    }
    Ok(done)
}

/// Leaves a child to the worker, which goes on below it.
async fn end_child(
    ctx: &RequestContext,
    tx: &mut Tx,
    child: Versioned<CredentialRow>,
) -> Result<()> {
    let mut detail = TokenDetail::decode(&child.row.detail)?;
    detail.revoke(ctx.now, ctx.actor());
    let row = CredentialRow {
        state: CredentialState::Revoking,
        next_try: Some(ctx.now),
        detail: detail.encode()?,
        ..child.row
    };
    tx.update(child.version, &row).await?;
    Ok(())
}
