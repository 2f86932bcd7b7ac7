//! Ends the sessions of rules and issuers that were removed, with everything that hangs on them, and
//! forgets tokens that are over; the worker's. The sessions are dead already.

use async_trait::async_trait;

use crate::engines::tokens;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::issuers::{self, Dead, IssuerRow, RuleRow};
use crate::store::{Needs, Tx};
use crate::types::{CredentialState, ObjectId, RequestContext};
use crate::vault::{Decision, Operation, Resource, TAKES_BACK, TokenDetail, Verb, View};

/// Sessions ended in one commit: what is left is due in the next.
const STEP: i64 = 64;

/// Whose sessions end.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// A rule's.
    OfRule(ObjectId),
    /// An issuer's, from before its epoch was raised.
    OfIssuer(ObjectId),
}

/// Goes on with ending sessions.
#[derive(Debug, Clone, Copy)]
pub struct EndSessions {
    /// Whose.
    pub of: Ending,
    /// The version of its row that was found due.
    pub version: i64,
}

#[async_trait]
impl Verb for EndSessions {
    const ACTION: &'static str = "issuers.end-sessions";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("issuers".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Operation for EndSessions {
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let taken = || Error::Conflict("another node ends these sessions".into());
        match self.of {
            Ending::OfRule(id) => {
                let found = tx.lookup::<RuleRow>(&id).await?.ok_or_else(taken)?;
                if found.version != self.version {
                    return Err(taken());
                }
                let done = end(ctx, tx, Dead::OfRule(id)).await?;
                let next_try = found.row.next_try.filter(|_| !done);
                tx.update(found.version, &RuleRow { next_try, ..found.row }).await?;
            }
            Ending::OfIssuer(id) => {
                let found = tx.lookup::<IssuerRow>(&id).await?.ok_or_else(taken)?;
                if found.version != self.version {
                    return Err(taken());
                }
                let done = end(ctx, tx, Dead::OfIssuer(id, found.row.revocation_epoch)).await?;
                let next_try = found.row.next_try.filter(|_| !done);
                tx.update(found.version, &IssuerRow { next_try, ..found.row }).await?;
            }
        }
        Ok(())
    }
}

/// Ends a part of them; true where none is left.
async fn end(ctx: &RequestContext, tx: &mut Tx, of: Dead) -> Result<bool> {
    let dead = issuers::dead(tx, of, STEP).await?;
    let mut ended = 0;
    for id in &dead {
        // One that is not what was sealed holds up itself alone.
        let Some(found) = tx.lookup_intact::<CredentialRow>(id).await? else { continue };
        let detail = TokenDetail::decode(&found.row.detail)?;
        let origin = detail.session.as_ref();
        let of_it = origin.is_some_and(|origin| match of {
            Dead::OfRule(rule) => origin.rule == rule.to_string(),
            Dead::OfIssuer(issuer, epoch) => {
                origin.issuer == issuer.to_string() && origin.epoch < epoch
            }
        });
        if of_it && found.row.state == CredentialState::Active {
            tokens::revoke(ctx, tx, found).await?;
            ended += 1;
        }
    }
    // Where nothing of what was found could be ended, nothing more is tried.
    Ok(ended == 0 || dead.len() < usize::try_from(STEP).map_err(Error::internal)?)
}

/// Forgets which tokens were used that are over.
#[derive(Debug, Clone, Copy)]
pub struct PurgeUses;

#[async_trait]
impl Verb for PurgeUses {
    const ACTION: &'static str = "issuers.purge";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("issuers".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Operation for PurgeUses {
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        Ok(issuers::purge(tx, ctx.now).await?)
    }
}
