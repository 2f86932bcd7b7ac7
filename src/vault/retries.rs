//! Retried calls: what an earlier try with the same key made, and whether it may be replaced.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::core::Core;
use super::{RetryKey, Subject, Vault, Verb, View};
use crate::crypto::{Encoder, base32};
use crate::error::{Error, Result};
use crate::store::idempotency::{self, Earlier};
use crate::store::{StoreError, Tx};
use crate::types::{RequestContext, UnixMillis};

/// How long after the first try its result may be replaced.
const REPLACEABLE: Duration = Duration::from_mins(1);
/// How long a key is kept at the least.
const KEPT: Duration = Duration::from_hours(24);

/// The claim of a retried call on what it makes.
pub(super) struct Claim {
    id: String,
    request: [u8; 32],
    replace: bool,
    /// Until when the key is kept.
    kept_until: UnixMillis,
    pub(super) made: String,
}

/// What came of claiming a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is this call's.
    Ours,
    /// It may become this call's: what an earlier try made is to be ended then.
    Replaces(String),
    /// An earlier try made this.
    Made(String),
}

impl Claim {
    /// Claims the key, or finds what an earlier try made.
    pub(super) async fn take(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<Claimed> {
        let span = (ctx.now, self.kept_until);
        let claimed = idempotency::claim(tx, &self.id, &self.request, &self.made, span).await;
        let Some(earlier) = claimed.map_err(raced)? else { return Ok(Claimed::Ours) };
        judge(earlier, &self.request, self.replace, ctx.now)
    }

    /// Moves the key on from what an earlier try made to what this one makes.
    pub(super) async fn moves_on(&self, tx: &mut Tx, earlier: &str) -> Result<()> {
        if !idempotency::replace(tx, &self.id, earlier, &self.made).await? {
            return Err(overtaken());
        }
        Ok(())
    }

    /// Gives the key back: what it claimed was undone.
    pub(super) async fn release(&self, tx: &mut Tx) -> Result<()> {
        Ok(idempotency::release(tx, &self.id, &self.made).await?)
    }
}

/// Says what an earlier try means for one with the same key.
fn judge(earlier: Earlier, request: &[u8; 32], replace: bool, now: UnixMillis) -> Result<Claimed> {
    if earlier.request != *request {
        return Err(Error::invalid("the idempotency key was used for another request"));
    }
    Ok(if replace && now.since(earlier.at) <= REPLACEABLE {
        Claimed::Replaces(earlier.object)
    } else {
        Claimed::Made(earlier.object)
    })
}

/// Answers whose key another call with it claimed, moved on or gave back meanwhile: with the same key
/// the call finds what there is now.
pub(super) fn overtaken() -> Error {
    Error::unavailable("another call with this idempotency key was quicker; retry")
}

fn raced(error: StoreError) -> Error {
    if error == StoreError::Stale { overtaken() } else { error.into() }
}

/// Names a caller's key for one action in the store.
pub(super) fn claim_id<V: Verb>(
    core: &Core,
    ctx: &RequestContext,
    key: &RetryKey,
) -> Result<String> {
    let caller = ctx.authenticated();
    let scope = caller.map(|caller| (caller.identity.to_string(), caller.credential.to_string()));
    let (identity, credential) = scope.unwrap_or_default();
    let input = Encoder::new("strongroom/idempotency/v1")
        .text(&identity)
        .text(&credential)
        .text(V::ACTION)
        .text(&key.key)
        .finish();
    Ok(base32(&core.keyring.idempotency_key()?.tag(&[&input])))
}

/// What the store keeps of a request: it may hold a secret, which nobody may try there.
fn bound(core: &Core, key: &RetryKey) -> Result<[u8; 32]> {
    let input = Encoder::new("strongroom/idempotency-request/v1").bytes(&key.request).finish();
    Ok(core.keyring.idempotency_key()?.tag(&[&input]))
}

impl Vault {
    /// Makes the claim of a retried call, if it carries a key. One that a counted use pays for is kept
    /// until the token's end: for so long the call may go on.
    pub(super) fn claim<V: Verb>(
        &self,
        ctx: &RequestContext,
        op: &V,
        prepared: &V::Prepared,
        subject: Option<&Arc<Subject>>,
    ) -> Result<Option<Claim>> {
        let Some(key) = op.retry_key() else { return Ok(None) };
        let counted = subject.filter(|subject| subject.is_counted());
        let end = counted.map(|subject| subject.credential.row.max_expires_at);
        let kept = ctx.now.plus(KEPT)?;
        Ok(Some(Claim {
            id: claim_id::<V>(&self.core, ctx, key)?,
            request: bound(&self.core, key)?,
            replace: key.replace,
            kept_until: end.map_or(kept, |end| end.max(kept)),
            made: op.made(prepared),
        }))
    }
}

impl View {
    /// Looks for what an earlier try of a call made, before anything is prepared for another. The
    /// commit looks again: what is found here may be gone by then.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the key was used for another request; what the store answers.
    pub async fn claimed<V: Verb>(&self, op: &V) -> Result<Claimed> {
        let Some(key) = op.retry_key() else { return Ok(Claimed::Ours) };
        let (id, now) = (claim_id::<V>(&self.core, &self.ctx, key)?, self.now());
        let read = self
            .read(move |tx| async move { Ok(idempotency::lookup(tx, &id, now).await?) }.boxed());
        match read.await? {
            Some(earlier) => judge(earlier, &bound(&self.core, key)?, key.replace, now),
            None => Ok(Claimed::Ours),
        }
    }

    /// Answers a retry with what an earlier try made, where that is what the key still names once it
    /// was looked at: another retry may have put something in its place since the commit that found
    /// it, or its own call may have failed and given the key back.
    pub(super) async fn replay<V: Verb>(&self, op: &V, made: &str) -> Result<V::Output> {
        let answer = op.replay(self, made).await;
        match self.claimed(op).await? {
            Claimed::Made(now) | Claimed::Replaces(now) if now == made => answer,
            Claimed::Ours | Claimed::Made(_) | Claimed::Replaces(_) => Err(overtaken()),
        }
    }
}
