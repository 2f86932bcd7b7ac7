//! Counted uses: taken by compare-and-set in the commit that they pay for, and what becomes of a
//! token that is shown again or refused too often.

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use futures_util::FutureExt as _;

use super::entries::Story;
use super::retries::{claim_id, overtaken};
use super::subject::Subject;
use super::token::{Spent, TokenDetail};
use super::{Vault, Verb};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::{Tx, Versioned, idempotency};
use crate::types::{AuthMethod, CredentialId, CredentialState, RequestContext, UnixMillis};

/// Refusals by policy that a counted token survives, less one.
const REFUSALS: u32 = 3;

/// What a caller hears whose token has no use left.
pub(super) fn spent() -> Error {
    Error::Spent("the token is spent: its last use was made; ask for another".into())
}

fn over() -> Error {
    Error::Unauthenticated("the token is no longer in force".into())
}

/// A counted use that is about to be taken.
#[derive(Debug, Clone)]
pub(super) struct Spending(Arc<Subject>);

impl Spending {
    /// Says what a call costs; nothing where the caller's uses are not counted.
    pub(super) fn of<V: Verb>(subject: Option<&Arc<Subject>>) -> Option<Self> {
        let subject = subject.filter(|subject| V::SPENDS && subject.is_counted())?;
        Some(Self(Arc::clone(subject)))
    }

    /// The token that pays: what is kept of it is no longer so.
    pub(super) fn token(&self) -> CredentialId {
        self.0.credential.row.id
    }

    /// Takes one use, for what a call that can be repeated makes; the row itself is what everybody
    /// who races for it compares.
    ///
    /// # Errors
    /// [`Error::Spent`] when there is none left, [`Error::Unauthenticated`] when it was revoked.
    pub(super) async fn take(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        made: Option<&str>,
    ) -> Result<()> {
        match take(ctx, tx, &self.0.credential, made).await {
            // What was kept of it is older: look once, in this transaction, where nobody else
            // can change it on the embedded store, and hardly anybody on the other.
            Err(Error::Conflict(_)) => {
                let id = self.0.credential.row.id;
                let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(over)?;
                take(ctx, tx, &read, made).await
            }
            taken => taken,
        }
    }

    /// Checks what no fence holds where no use is taken: that nobody revoked the token, and that
    /// one which is spent goes on from where its last use was made. Tells whether a use paid for
    /// what the call made before.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when somebody did, [`Error::Spent`] when it comes from elsewhere.
    pub(super) async fn paid_for(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        earlier: &str,
    ) -> Result<bool> {
        let row = tx.lookup::<CredentialRow>(&self.token()).await?.ok_or_else(over)?.row;
        let detail = TokenDetail::decode(&row.detail)?;
        match row.state {
            CredentialState::Active => {}
            CredentialState::Spent => {
                if !detail.spent.is_some_and(|spent| resumes(ctx, &spent)) {
                    return Err(spent());
                }
            }
            CredentialState::Pending | CredentialState::Revoking | CredentialState::Ended => {
                return Err(over());
            }
        }
        Ok(detail.paid.iter().any(|paid| paid == earlier))
    }

    /// Says that the use now pays for what takes the place of what the call made before: of several
    /// that go on from the same, one does.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when another was first.
    pub(super) async fn moves_on(&self, tx: &mut Tx, earlier: &str, made: &str) -> Result<()> {
        let read = tx.lookup::<CredentialRow>(&self.token()).await?.ok_or_else(over)?;
        let mut detail = TokenDetail::decode(&read.row.detail)?;
        if !detail.pays_for(earlier, made) {
            return Err(overtaken());
        }
        let row = CredentialRow { detail: detail.encode()?, ..read.row };
        tx.update(read.version, &row).await?;
        Ok(())
    }
}

async fn take(
    ctx: &RequestContext,
    tx: &mut Tx,
    read: &Versioned<CredentialRow>,
    made: Option<&str>,
) -> Result<()> {
    match read.row.state {
        CredentialState::Active => {}
        CredentialState::Spent => return Err(spent()),
        CredentialState::Pending | CredentialState::Revoking | CredentialState::Ended => {
            return Err(over());
        }
    }
    let mut detail = TokenDetail::decode(&read.row.detail)?;
    let (source, certificate) = shown(ctx);
    if !detail.take_use(Spent { at: ctx.now.0, source, certificate }, made) {
        return Err(spent());
    }
    let state = match detail.spent {
        Some(_) => CredentialState::Spent,
        None => CredentialState::Active,
    };
    let row = CredentialRow { state, detail: detail.encode()?, ..read.row.clone() };
    tx.change(read, &row).await?;
    Ok(())
}

/// Where a request comes from and with which certificate, as a spent token remembers it.
fn shown(ctx: &RequestContext) -> (String, String) {
    let certificate = ctx.authenticated().and_then(|caller| match caller.method {
        AuthMethod::Token { certificate } => certificate,
        AuthMethod::Mtls { .. } | AuthMethod::Signature | AuthMethod::Handle => None,
    });
    let source = ctx.source.as_ref().map(IpAddr::to_string);
    (source.unwrap_or_default(), certificate.map(|c| HEXLOWER.encode(&c)).unwrap_or_default())
}

/// Tells whether a request comes from where the last use was made, or with its certificate.
fn resumes(ctx: &RequestContext, spent: &Spent) -> bool {
    let (source, certificate) = shown(ctx);
    (!source.is_empty() && source == spent.source)
        || (!certificate.is_empty() && certificate == spent.certificate)
}

/// A refusal by policy of a counted token.
#[derive(Debug)]
pub(super) struct Strike(Arc<Subject>);

impl Strike {
    pub(super) fn of(subject: Option<&Arc<Subject>>) -> Option<Self> {
        let subject = subject.filter(|subject| subject.is_counted() && !subject.is_spent())?;
        Some(Self(Arc::clone(subject)))
    }

    /// Counts it; the third revokes the token.
    pub(super) async fn count(&self, now: UnixMillis, tx: &mut Tx) -> Result<()> {
        let id = self.0.credential.row.id;
        let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(over)?;
        if read.row.state != CredentialState::Active {
            return Ok(());
        }
        let mut detail = TokenDetail::decode(&read.row.detail)?;
        detail.refusals = detail.refusals.saturating_add(1);
        let mut row = read.row.clone();
        if detail.refusals >= REFUSALS {
            detail.revoke(now, "policy".to_owned());
            row.state = CredentialState::Revoking;
            row.next_try = Some(now);
            tx.bump_authority()?;
        }
        row.detail = detail.encode()?;
        tx.update(read.version, &row).await?;
        Ok(())
    }
}

impl Vault {
    /// Lets a spent token through where it may resume what its last use began: the same call, with
    /// its idempotency key, from the same place or with the same certificate. Whoever has another
    /// key gets no further: what is prepared may cost a signature.
    pub(super) async fn require_resumable<V: Verb>(
        &self,
        ctx: &RequestContext,
        op: &V,
        subject: &Arc<Subject>,
    ) -> Result<()> {
        let before = subject.token.as_ref().and_then(|token| token.spent.as_ref());
        let resumes = V::SPENDS
            && before.is_some_and(|before| resumes(ctx, before))
            && self.has_claimed(ctx, op).await?;
        if resumes { Ok(()) } else { Err(self.shown_again::<V>(ctx, subject, Vec::new()).await) }
    }

    async fn has_claimed<V: Verb>(&self, ctx: &RequestContext, op: &V) -> Result<bool> {
        let Some(key) = op.retry_key() else { return Ok(false) };
        let id = claim_id::<V>(&self.core, ctx, key)?;
        let read = self
            .core
            .reader
            .view(move |tx| async move { Ok(idempotency::is_claimed(tx, &id).await?) }.boxed());
        read.await
    }

    /// Puts on the record that a spent token was shown again, with both sources and the keys that
    /// were used before it was known; what to answer.
    pub(super) async fn shown_again<V: Verb>(
        &self,
        ctx: &RequestContext,
        subject: &Arc<Subject>,
        keys: Vec<KeyUse>,
    ) -> Error {
        let id = subject.credential.row.id;
        let row = self
            .core
            .reader
            .view(move |tx| async move { Ok(tx.lookup::<CredentialRow>(&id).await?) }.boxed());
        let detail = match row.await {
            Ok(Some(found)) => TokenDetail::decode(&found.row.detail),
            Ok(None) => Err(Error::internal("a token without its row")),
            Err(error) => Err(error),
        };
        let first = match detail {
            Ok(detail) => detail.spent.map(|spent| spent.source).unwrap_or_default(),
            Err(error) => return error,
        };
        let told = Story::shown_again(self, ctx, V::ACTION, subject, &first, keys);
        let story = match told {
            Ok(story) => story,
            Err(error) => return error,
        };
        match self.append_story(story, Err(spent()), None, None).await {
            Ok(_) => spent(),
            Err(lost) => lost,
        }
    }
}
