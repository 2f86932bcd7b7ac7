//! Puts an administrator back: what a recovery does to the identity and to its membership.

use super::administrators::administrators;
use super::state::{end_outside, next};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow, MemberRow};
use crate::store::{Tx, Versioned};
use crate::types::{IdentityId, IdentityState, RequestContext};

/// Finds the membership of who administers, or did once.
///
/// # Errors
/// What the store answers.
pub(in crate::engines) async fn administrator_once(
    tx: &mut Tx,
    id: IdentityId,
) -> Result<Option<Versioned<MemberRow>>> {
    let group = administrators(tx).await?.row.id;
    Ok(identities::member(tx, group, id).await?)
}

/// Makes who administered once an active administrator again. Everything that it held is dead, as
/// by a suspension; an end that has passed is taken away.
///
/// # Errors
/// [`Error::Precondition`] for who never administered; what the store answers.
pub(in crate::engines) async fn reinstate(
    ctx: &RequestContext,
    tx: &mut Tx,
    found: Versioned<IdentityRow>,
) -> Result<Versioned<IdentityRow>> {
    let Versioned { mut row, version } = found;
    let member = administrator_once(tx, row.id).await?.ok_or_else(never_administered)?;
    if !member.row.active {
        let (changed_at, changed_by) = (ctx.now, ctx.actor());
        let row = MemberRow { active: true, changed_at, changed_by, ..member.row };
        tx.update(member.version, &row).await?;
    }
    row.state = IdentityState::Active;
    row.expires_at = row.expires_at.filter(|end| *end > ctx.now);
    row.revocation_epoch = next(row.revocation_epoch)?;
    row.authority_rev = next(row.authority_rev)?;
    row.note_change(ctx.now, ctx.actor());
    let row = tx.update(version, &row).await?;
    end_outside(ctx, tx, &row.row).await?;
    Ok(row)
}

/// Says that a recovery makes nobody an administrator who never was one.
pub(in crate::engines) fn never_administered() -> Error {
    Error::precondition(
        "only who is in the group `administrators`, or was, is recovered; name one of them",
    )
}
