//! What hangs below a token or an enrolment that was revoked: leases are handed to the worker that
//! takes them back, certificates end; tokens and logins are dead already and end here, with what is
//! below them.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::missing;
use crate::engines::leases;
use crate::error::{Error, Result};
use crate::store::credentials::{self, Below, CredentialRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned, lent};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, ElevationId, IdentityId, RequestContext,
    UnixMillis,
};
use crate::vault::{
    CONTAINS, Decision, Note, Operation, READS, Resource, TAKES_BACK, TokenDetail, Verb, View,
};

/// Credentials ended in one commit: what is left is due in the next.
const STEP: i64 = 256;
/// Tokens, and logins, that lent something to others and are revoked in one commit: what is left is due
/// in the next.
const LENT: i64 = 128;

/// How long a row that is not what was sealed is left alone before it is looked at again.
const ALTERED: Duration = Duration::from_mins(5);

/// Goes on with ending what is below a revoked token or enrolment, or a login that hung on one; the
/// worker's.
#[derive(Debug, Clone, Copy)]
pub struct EndToken {
    /// The token, enrolment or login.
    pub id: CredentialId,
    /// The version that was found due.
    pub version: i64,
}

#[async_trait]
impl Verb for EndToken {
    const ACTION: &'static str = "tokens.end";
    /// Whose it is, and the epoch that was over when they were contained, where more of it lent
    /// something to others.
    type Prepared = Option<(IdentityId, i64)>;
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("tokens".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let (id, now) = (self.id, view.now());
        view.read(move |tx| async move { more_lent(tx, id, now).await }.boxed()).await
    }

    fn note(&self, _: &Self::Prepared, note: &mut Note) {
        note.credential = Some(self.id);
    }
}

#[async_trait]
impl Operation for EndToken {
    const NEEDS: Needs = TAKES_BACK;

    /// What hangs on what is revoked already is dead; what others hang on what is revoked only now
    /// is alive until then, for nodes that remember it as well.
    fn needs(&self, more: &Self::Prepared) -> Needs {
        if more.is_some() { CONTAINS } else { TAKES_BACK }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        more: &Self::Prepared,
        _: &Decision,
    ) -> Result<()> {
        let read = tx.lookup::<CredentialRow>(&self.id).await?.ok_or_else(missing)?;
        if read.version != self.version || read.row.state != CredentialState::Revoking {
            return Err(Error::Conflict("another node is ending this token".into()));
        }
        let (state, next_try) = end_below(ctx, tx, self.id).await?.leaves(ctx.now)?;
        let row = CredentialRow { state, next_try, ..read.row };
        tx.update(read.version, &row).await?;
        match more {
            Some(of) => end_lent(ctx, tx, *of).await,
            None => Ok(()),
        }
    }
}

/// Tells of whom, and of which epoch, more lent something to others than one commit takes: a token of
/// theirs may have been revoked because they were contained.
async fn more_lent(
    tx: &mut Tx,
    id: CredentialId,
    now: UnixMillis,
) -> Result<Option<(IdentityId, i64)>> {
    let Some(Versioned { row, .. }) = tx.lookup_intact::<CredentialRow>(&id).await? else {
        return Ok(None);
    };
    let holder = tx.lookup_intact::<IdentityRow>(&row.identity).await?;
    let contained = holder.is_some_and(|it| it.row.revocation_epoch > row.revocation_epoch);
    let of = (row.identity, row.revocation_epoch);
    let more = contained && !lent::lending(tx, of, now, 1).await?.is_empty();
    Ok(more.then_some(of))
}

/// Tells whether somebody took a credential back already: whoever was first ends what is below.
pub(in crate::engines) const fn is_taken_back(state: CredentialState) -> bool {
    match state {
        CredentialState::Revoking | CredentialState::Ended => true,
        CredentialState::Active | CredentialState::Spent | CredentialState::Pending => false,
    }
}

/// What taking one back needs. Repeating it moves no epoch and uses no room that is kept.
pub(in crate::engines) const fn needs_of_revoking(state: CredentialState) -> Needs {
    if is_taken_back(state) { READS } else { CONTAINS }
}

/// Revokes, of an identity that was contained, the tokens by which others hold something, and the
/// logins that hung on one, of the epoch that was over with it: a bounded part of them. What hangs below
/// is dead with them; the worker ends it, and looks for more of them.
pub(in crate::engines) async fn end_lent(
    ctx: &RequestContext,
    tx: &mut Tx,
    of: (IdentityId, i64),
) -> Result<()> {
    for id in lent::lending(tx, of, ctx.now, LENT).await? {
        // One that is not what was sealed is an alarm, and holds up no other.
        if let Some(found) = tx.lookup_intact::<CredentialRow>(&id).await? {
            end_child(ctx, tx, found, "whose it is was contained").await?;
        }
    }
    Ok(())
}

/// Ends a token now, with everything below it: what one commit does not end is left to the worker.
pub(in crate::engines) async fn revoke(
    ctx: &RequestContext,
    tx: &mut Tx,
    read: Versioned<CredentialRow>,
) -> Result<CredentialRow> {
    let mut detail = TokenDetail::decode(&read.row.detail)?;
    detail.revoke(ctx.now, ctx.actor());
    let detail = detail.encode()?;
    end_with_below(ctx, tx, read, detail).await
}

/// Ends what others hang on, with what its kind has to say about it, and everything below it: what
/// one commit does not end is left to the worker.
pub(in crate::engines) async fn end_with_below(
    ctx: &RequestContext,
    tx: &mut Tx,
    read: Versioned<CredentialRow>,
    detail: Vec<u8>,
) -> Result<CredentialRow> {
    let (state, next_try) = end_below(ctx, tx, read.row.id).await?.leaves(ctx.now)?;
    let row = CredentialRow { state, next_try, detail, ..read.row };
    Ok(tx.update(read.version, &row).await?.row)
}

/// What is left below a token, or of what was made under an elevation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) enum Left {
    /// Nothing.
    Nothing,
    /// What the next step ends.
    More,
    /// Rows alone that are not what was sealed: they are ended where somebody puts them back.
    Altered,
}

impl Left {
    /// Where the token is in its end, and when a worker looks at it next.
    fn leaves(self, now: UnixMillis) -> Result<(CredentialState, Option<UnixMillis>)> {
        Ok(match self {
            Self::Nothing => (CredentialState::Ended, None),
            Self::More => (CredentialState::Revoking, Some(now)),
            Self::Altered => (CredentialState::Revoking, Some(now.plus(ALTERED)?)),
        })
    }
}

/// Ends what hangs on a token, a bounded part of it.
async fn end_below(ctx: &RequestContext, tx: &mut Tx, id: CredentialId) -> Result<Left> {
    let below = credentials::below(tx, id, STEP).await?;
    end_all(ctx, tx, below, "what it was asked for with was revoked").await
}

/// Ends what was made under an elevation that is over, a bounded part of it; leases are found by the
/// worker that takes them back.
pub(in crate::engines) async fn end_made_under(
    ctx: &RequestContext,
    tx: &mut Tx,
    id: ElevationId,
) -> Result<Left> {
    let made = credentials::made_under(tx, id, STEP).await?;
    end_all(ctx, tx, made, "the elevation that it was made under is over").await
}

async fn end_all(
    ctx: &RequestContext,
    tx: &mut Tx,
    below: Below,
    why: &'static str,
) -> Result<Left> {
    for child in below.rows {
        match child.row.kind {
            CredentialKind::Token | CredentialKind::Login | CredentialKind::Enrolment => {
                end_child(ctx, tx, child, why).await?;
            }
            CredentialKind::Lease => leases::end_with_parent(ctx, tx, &child).await?,
            CredentialKind::Certificate => {
                let trouble = why.to_owned();
                let (state, next_try) = (CredentialState::Ended, None);
                let row = CredentialRow { state, next_try, trouble, ..child.row };
                tx.update(child.version, &row).await?;
            }
        }
    }
    Ok(match (below.more, below.altered) {
        (true, _) => Left::More,
        (false, 0) => Left::Nothing,
        (false, _) => Left::Altered,
    })
}

/// Ends a child; where something hangs on it, it is left to the worker, which goes on below it.
async fn end_child(
    ctx: &RequestContext,
    tx: &mut Tx,
    child: Versioned<CredentialRow>,
    why: &'static str,
) -> Result<()> {
    let left =
        if credentials::has_below(tx, child.row.id).await? { Left::More } else { Left::Nothing };
    let (state, next_try) = left.leaves(ctx.now)?;
    let row = if child.row.kind == CredentialKind::Token {
        let mut detail = TokenDetail::decode(&child.row.detail)?;
        detail.revoke(ctx.now, ctx.actor());
        CredentialRow { state, next_try, detail: detail.encode()?, ..child.row }
    } else {
        let trouble = why.to_owned();
        CredentialRow { state, next_try, trouble, ..child.row }
    };
    tx.update(child.version, &row).await?;
    Ok(())
}
