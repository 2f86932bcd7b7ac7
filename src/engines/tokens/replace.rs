//! Replacing: a token whose answer was lost is revoked, with all that hangs on it, in the commit that
//! makes the next.
//!
//! A counted use pays for one lease at a time: while one that the old token paid for is being taken
//! back, there is no next token.

use super::end::{is_taken_back, revoke};
use super::{Made, find, missing, resource_name};
use crate::error::{Error, Result};
use crate::store::credentials::{self, CredentialRow};
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, CredentialKind, CredentialState, IdentityName, RequestContext};
use crate::vault::{Claimed, GOVERNS, Resumed, TokenDetail, Verb, View};

/// What making a token needs, where it may have to end another first.
pub(super) async fn needs<V: Verb>(view: &View, op: &V, otherwise: Needs) -> Result<Needs> {
    // Asked for by the caller, and hardly ever so: whoever is the first with its key ends nothing.
    if !op.retry_key().is_some_and(|key| key.replace) {
        return Ok(otherwise);
    }
    Ok(match view.claimed(op).await? {
        Claimed::Replaces(_) => GOVERNS,
        Claimed::Ours | Claimed::Made(_) => otherwise,
    })
}

/// Ends the token that an earlier try made, in the commit of the next: one that the same caller made
/// of the same identity (its own where none is named), and nothing else that a row which is not
/// sealed may name.
pub(super) async fn supersede(
    ctx: &RequestContext,
    tx: &mut Tx,
    earlier: &str,
    of: Option<&IdentityName>,
) -> Result<Resumed> {
    let id: CredentialId = earlier.parse()?;
    let caller = ctx.authenticated().ok_or_else(nothing_made)?.identity;
    let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(nothing_made)?;
    let theirs = match of {
        Some(name) => read.row.resource == resource_name(name)?,
        None => read.row.identity == caller,
    };
    if read.row.kind != CredentialKind::Token || !theirs {
        return Err(nothing_made());
    }
    let detail = TokenDetail::decode(&read.row.detail)?;
    if detail.created_by != caller.to_string() {
        return Err(nothing_made());
    }
    let identity = read.row.identity;
    match read.row.state {
        CredentialState::Active | CredentialState::Spent | CredentialState::Pending => {
            // Nobody asked before whether there is something to end, or there was not.
            tx.bump_authority().map_err(|_undeclared| raced())?;
            revoke(ctx, tx, read).await?;
        }
        CredentialState::Revoking | CredentialState::Ended => {}
    }
    let paid = detail.uses_left.is_some();
    let open = paid && credentials::has_open_lease(tx, identity, id).await?;
    Ok(if open { Resumed::Stays } else { Resumed::Anew })
}

/// Answers a retry with what is known of the token that an earlier try made.
pub(super) async fn replay<V: Verb>(view: &View, op: &V, made: &str) -> Result<Made> {
    let found = find(view, made.parse()?).await?.ok_or_else(missing)?;
    let row = found.token.row.clone();
    let paid = found.detail.uses_left.is_some();
    // What it paid for kept the next one back, and may be gone since.
    if paid && is_taken_back(row.state) && matches!(view.claimed(op).await?, Claimed::Replaces(_)) {
        return Err(Error::unavailable("what the first token paid for is being taken back; retry"));
    }
    let restore_epoch = view.subject()?.restore_epoch();
    Ok(Made { token: found.shown(row, restore_epoch)?, bearer: None })
}

fn nothing_made() -> Error {
    Error::internal("a retry names nothing that its call made")
}

fn raced() -> Error {
    Error::unavailable("another retry with the same key is under way; retry")
}
