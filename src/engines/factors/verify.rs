//! Proves a factor, for the credential that asks and no other: by a code of an authenticator, or by
//! a recovery code.
//!
//! A wrong code is counted, so its commit is one that was done: what it answers says that it was
//! refused.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::guard::Guard;
use super::recovery::{self, RecoveryCode};
use super::{is_active, none_enrolled, not_accepted, own, secret, standing};
use crate::crypto::{OtpCode, totp_step};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::factors::{self, CodeRow, FactorRow};
use crate::store::{Needs, StoreError, Tx, Versioned};
use crate::types::{FactorId, FactorKind, RequestContext, UnixMillis};
use crate::vault::{
    Decision, GOVERNS, Note, Operation, Resource, Subject, Verb, View, WRITES, note_proof,
};

/// A code as it was typed: what it is shows by its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// Of an authenticator.
    Otp(OtpCode),
    /// Of a recovery set.
    Recovery(RecoveryCode),
}

impl Code {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Invalid`], which quotes nothing of it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let otp = OtpCode::parse(text).map(Self::Otp);
        let code = otp.or_else(|| RecoveryCode::parse(text).map(Self::Recovery));
        code.ok_or_else(|| Error::invalid("a code is six digits, or a recovery code as printed"))
    }
}

/// Proves a factor of the caller's.
#[derive(Debug, Clone)]
pub struct VerifyFactor {
    /// The code.
    pub code: Code,
}

/// A factor that was proven, for the calling credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Which.
    pub id: FactorId,
    /// By what it proves.
    pub kind: FactorKind,
    /// When.
    pub proven_at: UnixMillis,
    /// Of a recovery set, how many codes are left.
    pub codes_left: Option<i64>,
}

/// What came of a code: a refusal is counted, and so is an outcome like any other.
pub type Tried = Result<Proven, Error>;

pub(super) fn outcome(tried: &Tried) -> &'static str {
    tried.as_ref().err().map_or("OK", Error::reason)
}

impl Proven {
    /// Notes in the credential's row what it proved.
    pub(super) async fn note(
        ctx: &RequestContext,
        tx: &mut Tx,
        subject: &Subject,
        factor: &FactorRow,
        codes_left: Option<i64>,
    ) -> Result<Self> {
        note_proof(tx, subject.credential.row.id, factor.id, ctx.now).await?;
        Ok(Self { id: factor.id, kind: factor.kind, proven_at: ctx.now, codes_left })
    }
}

/// What is known of the code of an authenticator before its human is held.
#[derive(Debug, Clone)]
pub struct Guess {
    /// The factor that has it, and the step; none where it is wrong.
    right: Option<(Versioned<FactorRow>, i64)>,
    /// Whether it is worth a commit that changes what decisions stand on: neither used nor locked.
    counts: bool,
    used: Vec<KeyUse>,
}

impl Guess {
    /// Compares a code with what authenticators show now.
    pub(super) async fn make(
        view: &View,
        code: &OtpCode,
        of: &[Versioned<FactorRow>],
    ) -> Result<Self> {
        let id = view.identity()?;
        let guard = view.read(move |tx| async move { Guard::look(tx, id).await }.boxed()).await?;
        let mut guess = Self { right: None, counts: false, used: Vec::new() };
        for factor in of {
            let opened = secret(view, &factor.row).await?;
            guess.used.extend(opened.used);
            let step = totp_step(&opened.plaintext, code, view.now())?;
            // Of two that show the same, one that was not used counts.
            if let Some(step) = step.filter(|_| !guess.counts) {
                guess.counts =
                    guard.is_new(factor.row.id, step) && guard.locked(view.now()).is_none();
                guess.right = Some((factor.clone(), step));
            }
        }
        Ok(guess)
    }

    /// What its commit needs: only what proves something changes what decisions stand on. A used
    /// code, shown again and again, must not empty caches.
    pub(super) const fn needs(&self) -> Needs {
        if self.counts { GOVERNS } else { WRITES }
    }

    pub(super) fn note(&self, note: &mut Note) {
        note.keys.extend_from_slice(&self.used);
    }

    /// Takes the code's step, or counts it as wrong. The factor, where it is accepted.
    pub(super) async fn judge(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        subject: &Subject,
    ) -> Result<Result<Versioned<FactorRow>>> {
        let mut guard = Guard::hold(tx, subject.identity.row.id).await?;
        if let Err(locked) = guard.require_open(ctx.now) {
            return Ok(Err(locked));
        }
        let Some((factor, step)) = &self.right else {
            let refusal = guard.fail(ctx.now)?;
            guard.store(tx).await?;
            return Ok(Err(refusal));
        };
        if !self.counts || !guard.is_new(factor.row.id, *step) {
            // It is no guess, so it is not counted: a client that repeats itself locks nobody.
            return Ok(Err(not_accepted()));
        }
        let enrolled = factors::standing(tx, subject.identity.row.id).await?;
        if !enrolled.contains(factor) {
            return Err(Error::Conflict("the factor changed; retry".into()));
        }
        guard.keep(&enrolled);
        guard.take(factor.row.id, *step);
        guard.store(tx).await?;
        Ok(Ok(factor.clone()))
    }
}

/// A code on its way to its commit.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// Of an authenticator.
    Otp(Guess),
    /// Of a recovery set, with the set.
    Recovery(Versioned<FactorRow>, Versioned<CodeRow>),
}

#[async_trait]
impl Verb for VerifyFactor {
    const ACTION: &'static str = "factors.verify";
    type Prepared = Prepared;
    type Output = Tried;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        own(view)
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let mut enrolled = standing(view).await?;
        enrolled.retain(is_active);
        if enrolled.is_empty() {
            return Err(none_enrolled());
        }
        match &self.code {
            Code::Otp(code) => {
                enrolled.retain(|factor| factor.row.kind == FactorKind::Totp);
                Guess::make(view, code, &enrolled).await.map(Prepared::Otp)
            }
            Code::Recovery(code) => {
                let set = enrolled.into_iter().find(|one| one.row.kind == FactorKind::Recovery);
                let set = set.ok_or_else(not_accepted)?;
                let code = recovery::find(view, &set.row, code).await?;
                Ok(Prepared::Recovery(set, code))
            }
        }
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        match prepared {
            Prepared::Otp(guess) => guess.note(note),
            Prepared::Recovery(_, _) => {}
        }
    }
}

#[async_trait]
impl Operation for VerifyFactor {
    const NEEDS: Needs = GOVERNS;

    fn needs(&self, prepared: &Prepared) -> Needs {
        match prepared {
            Prepared::Otp(guess) => guess.needs(),
            Prepared::Recovery(_, _) => GOVERNS,
        }
    }

    fn outcome(&self, tried: &Tried) -> &'static str {
        outcome(tried)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        decision: &Decision,
    ) -> Result<Tried> {
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker proves nothing"))?;
        let (factor, left) = match prepared {
            Prepared::Otp(guess) => match guess.judge(ctx, tx, subject).await? {
                Ok(factor) => (factor, None),
                Err(refusal) => return Ok(Err(refusal)),
            },
            Prepared::Recovery(set, code) => {
                let used = CodeRow { used_at: Some(ctx.now), ..code.row.clone() };
                match tx.update(code.version, &used).await {
                    Ok(_) => {}
                    // Somebody else used it first.
                    Err(StoreError::Stale) => return Ok(Err(not_accepted())),
                    Err(failed) => return Err(failed.into()),
                }
                (set.clone(), Some(factors::codes_left(tx, set.row.id).await?))
            }
        };
        Proven::note(ctx, tx, subject, &factor.row, left).await.map(Ok)
    }
}
