//! Approving, denying, cancelling: one ceremony, one vote.

use async_trait::async_trait;

use super::case::Case;
use super::notify;
use super::show::{Ceremony, resource};
use crate::audit::Field;
use crate::crypto::hex;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::{CeremonyId, CeremonyState, FactorKind, NoticeKind, RequestContext};
use crate::vault::{Decision, FRESH, Note, Operation, Resource, Subject, Verb, View, Vote, WRITES};

/// What is done to a ceremony.
#[async_trait]
pub trait Change: std::fmt::Debug + Send + Sync + 'static {
    /// The action of the verb.
    const ACTION: &'static str;

    /// Why, for the record, where somebody may say so.
    #[expect(clippy::unnecessary_literal_bound, reason = "others answer with what they hold")]
    fn reason(&self) -> &str {
        ""
    }

    /// Does it, in the commit.
    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, held: &mut HeldCase) -> Result<()>;
}

/// Who does it.
#[derive(Debug, Clone, Copy)]
pub struct Acting<'a> {
    ctx: &'a RequestContext,
    subject: &'a Subject,
}

/// The ceremony that it is done to.
#[derive(Debug)]
pub struct HeldCase(Case);

/// Does something to a ceremony.
#[derive(Debug)]
pub struct Act<C> {
    /// Which.
    pub id: CeremonyId,
    /// What.
    pub change: C,
}

impl Acting<'_> {
    fn vote(&self, approves: bool, reason: &str) -> Vote {
        Vote {
            by: self.subject.identity.row.id.to_string(),
            epoch: self.subject.identity.row.revocation_epoch,
            credential: self.subject.credential.row.id.to_string(),
            factor: None,
            approves,
            step: 0,
            at_ms: self.ctx.now.0,
            ttl_s: 0,
            reason: reason.to_owned(),
        }
    }
}

/// Approves exactly what was seen.
#[derive(Debug, Clone)]
pub struct Approve {
    /// The hash of what was seen, in hexadecimal.
    pub about_hash: String,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Change for Approve {
    const ACTION: &'static str = "ceremonies.approve";

    fn reason(&self) -> &str {
        &self.reason
    }

    async fn apply(
        &self,
        by: &Acting<'_>,
        tx: &mut Tx,
        HeldCase(case): &mut HeldCase,
    ) -> Result<()> {
        let (who, now) = (&by.subject.identity.row, by.ctx.now);
        if hex(&case.found.row.about_hash) != self.about_hash {
            return Err(Error::precondition("this is not what was seen; look again"));
        }
        case.check_open(now)?;
        case.check_requester(tx, by.subject.restore_epoch(), now).await?;
        case.check_first(tx, who).await?;
        case.check_approver(tx, who, now).await?;
        // A login alone approves nothing: an administrator may have signed it for their own key.
        let proven = by.subject.require_factor(now, FactorKind::ALL, FRESH)?;
        let factor = Some(case.side().check_factor(tx, proven).await?.to_string());
        case.votes.push(Vote { factor, ..by.vote(true, &self.reason) });
        if !case.approvers(tx, now).await?.iter().any(|counts| counts.id == who.id) {
            return Err(Error::Denied(
                "account, factor or membership were made or changed by who approved before, or the \
                 other way round; both count once"
                    .into(),
            ));
        }
        case.write(by.ctx, tx, CeremonyState::Open).await?;
        notify::event(by.ctx, tx, case, NoticeKind::CeremonyApproved).await
    }
}

/// Denies it: one denial ends it.
#[derive(Debug, Clone)]
pub struct Deny {
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Change for Deny {
    const ACTION: &'static str = "ceremonies.deny";

    fn reason(&self) -> &str {
        &self.reason
    }

    async fn apply(
        &self,
        by: &Acting<'_>,
        tx: &mut Tx,
        HeldCase(case): &mut HeldCase,
    ) -> Result<()> {
        case.check_open(by.ctx.now)?;
        case.check_denier(tx, &by.subject.identity.row, by.ctx.now).await?;
        case.votes.push(by.vote(false, &self.reason));
        case.write(by.ctx, tx, CeremonyState::Denied).await?;
        notify::event(by.ctx, tx, case, NoticeKind::CeremonyDenied).await
    }
}

/// Takes it back.
#[derive(Debug, Clone, Copy)]
pub struct Cancel;

#[async_trait]
impl Change for Cancel {
    const ACTION: &'static str = "ceremonies.cancel";

    async fn apply(
        &self,
        by: &Acting<'_>,
        tx: &mut Tx,
        HeldCase(case): &mut HeldCase,
    ) -> Result<()> {
        if case.found.row.identity != by.subject.identity.row.id {
            return Err(Error::Denied(
                "only who asked for a ceremony cancels it; others deny it".into(),
            ));
        }
        case.check_open(by.ctx.now)?;
        case.write(by.ctx, tx, CeremonyState::Cancelled).await?;
        notify::event(by.ctx, tx, case, NoticeKind::CeremonyCancelled).await
    }
}

#[async_trait]
impl<C: Change> Verb for Act<C> {
    const ACTION: &'static str = C::ACTION;
    /// Whether the vault is marked as development.
    type Prepared = bool;
    type Output = Ceremony;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.id).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<bool> {
        check_text("a reason", self.change.reason(), LONG)?;
        Ok(view.is_dev())
    }

    fn note(&self, _: &bool, note: &mut Note) {
        if !self.change.reason().is_empty() {
            note.private.push((Field::Reason, self.change.reason().to_owned()));
        }
        note.private.push((Field::Detail, format!("ceremony {}", self.id)));
    }
}

#[async_trait]
impl<C: Change> Operation for Act<C> {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        dev: &bool,
        decision: &Decision,
    ) -> Result<Ceremony> {
        let subject = decision.subject.as_deref();
        let subject = subject.ok_or_else(|| Error::internal("a worker votes on nothing"))?;
        let mut held = HeldCase(Case::find(tx, self.id, *dev).await?);
        self.change.apply(&Acting { ctx, subject }, tx, &mut held).await?;
        Ceremony::of(tx, &mut Names::default(), &held.0, ctx.now).await
    }
}
