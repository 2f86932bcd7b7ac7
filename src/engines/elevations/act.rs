//! Approving, denying, withdrawing, activating: one elevation, one event of the table.

use std::time::Duration;

use async_trait::async_trait;

use super::case::Case;
use super::definition::kinds;
use super::keep::{CONTAINED, OVER, RESTORED, end};
use super::request::check_emergency;
use super::show::{Elevation, resource, visible};
use super::window::open_until;
use super::{notify, unknown};
use crate::audit::Field;
use crate::crypto::hex;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::store::elevations::{self as rows, ElevationRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    ElevationEvent, ElevationId, ElevationState, IdentityId, NoticeKind, RequestContext,
    UnixMillis, VaultId,
};
use crate::vault::{
    Decision, FRESH, GOVERNS, Note, Operation, Resource, Subject, Verb, View, Vote, WRITES,
};

/// How long an approved elevation waits to be activated.
const WAITS: Duration = Duration::from_hours(1);

/// How long after it came into force what nobody approved, or what may make something that stands,
/// has to be reviewed.
const REVIEWED_WITHIN: Duration = Duration::from_hours(24);

/// What is done to an elevation.
#[async_trait]
pub trait Change: std::fmt::Debug + Send + Sync + 'static {
    /// The action of the verb.
    const ACTION: &'static str;
    /// How its commit is to be run.
    const NEEDS: Needs;

    /// Why, for the record, where somebody may say so.
    fn reason(&self) -> Option<&str> {
        None
    }

    /// Does it, in the commit.
    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, held: &mut Held) -> Result<()>;
}

/// Who does it.
#[derive(Debug, Clone, Copy)]
pub struct Acting<'a> {
    pub(super) ctx: &'a RequestContext,
    pub(super) subject: &'a Subject,
}

/// The elevation that it is done to.
#[derive(Debug)]
pub struct Held(pub(super) Case);

/// Does something to an elevation.
#[derive(Debug)]
pub struct Act<C> {
    /// Which.
    pub id: ElevationId,
    /// What.
    pub change: C,
}

/// What an act was prepared with: which vault it is, and whether it is marked as development.
type Prepared = (VaultId, bool);

#[async_trait]
impl<C: Change> Verb for Act<C> {
    const ACTION: &'static str = C::ACTION;
    type Prepared = Prepared;
    type Output = Elevation;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource(view, self.id).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        check_text("a reason", self.change.reason().unwrap_or_default(), LONG)?;
        visible(view, self.id).await?;
        Ok((view.vault_id(), view.is_dev()))
    }

    fn note(&self, _: &Prepared, note: &mut Note) {
        let reason = self.change.reason().filter(|reason| !reason.is_empty());
        note.private.extend(reason.map(|reason| (Field::Reason, reason.to_owned())));
        note.private.push((Field::Detail, format!("elevation {}", self.id)));
    }
}

#[async_trait]
impl<C: Change> Operation for Act<C> {
    const NEEDS: Needs = C::NEEDS;

    fn outcome(&self, shown: &Elevation) -> &'static str {
        outcome(shown.row.state)
    }

    fn tells(&self, shown: &Elevation) -> Vec<(Field, String)> {
        shown.moves.fields()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        of: &Prepared,
        decision: &Decision,
    ) -> Result<Elevation> {
        let subject = decision.subject.as_deref().ok_or_else(unknown)?;
        let mut held = Held(Case::hold(tx, self.id, *of).await?);
        self.change.apply(&Acting { ctx, subject }, tx, &mut held).await?;
        Elevation::of(tx, &mut Names::default(), &held.0).await
    }
}

/// What the record calls what was done: what did not come about is found there by its name.
pub(super) const fn outcome(state: ElevationState) -> &'static str {
    match state {
        ElevationState::ActivationFailed => "ACTIVATION_FAILED",
        ElevationState::Expired => "EXPIRED",
        ElevationState::Requested
        | ElevationState::AwaitingApproval
        | ElevationState::Scheduled
        | ElevationState::Activating
        | ElevationState::Active
        | ElevationState::Ended
        | ElevationState::Denied
        | ElevationState::Withdrawn
        | ElevationState::Revoked => "OK",
    }
}

impl Acting<'_> {
    pub(super) fn who(&self) -> &IdentityRow {
        &self.subject.identity.row
    }

    fn vote(&self, approves: bool, step: usize, ttl_s: i64, reason: &str) -> Vote {
        Vote {
            by: self.who().id.to_string(),
            epoch: self.who().revocation_epoch,
            credential: self.subject.credential.row.id.to_string(),
            factor: None,
            approves,
            step,
            at_ms: self.ctx.now.0,
            ttl_s,
            reason: reason.to_owned(),
        }
    }
}

/// Checks that a request was not over before the worker says so.
fn check_time(row: &ElevationRow, now: UnixMillis) -> Result<()> {
    if row.next_try.is_some_and(|end| end <= now) {
        return Err(Error::precondition("the time for this is over"));
    }
    Ok(())
}

/// Approves what was seen: exactly that, for the time that was asked for or less.
#[derive(Debug, Clone)]
pub struct Approve {
    /// The hash of what was seen, in hexadecimal.
    pub scope_hash: String,
    /// How long at the most; as it stands where there is none.
    pub ttl: Option<Duration>,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Change for Approve {
    const ACTION: &'static str = "elevations.approve";
    const NEEDS: Needs = WRITES;

    fn reason(&self) -> Option<&str> {
        Some(&self.reason)
    }

    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, Held(case): &mut Held) -> Result<()> {
        let (row, now) = (case.found.row.clone(), by.ctx.now);
        if hex(&row.scope_hash) != self.scope_hash {
            return Err(Error::precondition("this is not the request that was seen; look again"));
        }
        let step = match case.step() {
            Some(step) if row.state == ElevationState::AwaitingApproval => step,
            Some(_) | None => {
                let state = row.state;
                return Err(Error::precondition(format!("the elevation is {state}")));
            }
        };
        check_time(&row, now)?;
        case.check_frozen()?;
        check_restored(&row, by.subject)?;
        case.check_first(tx, by.who()).await?;
        case.check_approver(tx, by.who(), step, now).await?;
        let factor = case.check_factor(tx, by.subject, now).await?;
        let ttl_s = match self.ttl {
            None => row.ttl_s,
            Some(ttl) => match i64::try_from(ttl.as_secs()) {
                Ok(ttl_s) if 0 < ttl_s && ttl_s <= row.ttl_s => ttl_s,
                Ok(_) | Err(_) => {
                    return Err(Error::invalid(format!(
                        "an approval may shorten an elevation, not widen it: at most {} seconds",
                        row.ttl_s
                    )));
                }
            },
        };
        let factor = Some(factor.to_string());
        case.votes.push(Vote { factor, ..by.vote(true, step, ttl_s, &self.reason) });
        if let Some(turn) = case.step() {
            case.write(by.ctx, tx, |row| row.ttl_s = ttl_s).await?;
            if turn == step {
                return Ok(());
            }
            let kind = NoticeKind::StepApproved;
            return notify::elevation(by.ctx, tx, &case.found.row, kind).await;
        }
        let starts_at = row.starts_at.max(now);
        let over = starts_at.plus(WAITS)?;
        case.moves(by.ctx, tx, ElevationEvent::Complete, |row| {
            row.ttl_s = ttl_s;
            row.starts_at = starts_at;
            row.next_try = Some(over);
        })
        .await
    }
}

fn check_restored(row: &ElevationRow, subject: &Subject) -> Result<()> {
    if row.restore_epoch == subject.restore_epoch() {
        return Ok(());
    }
    Err(Error::precondition("the vault was restored since this was asked for; ask again"))
}

/// Denies it; so many denials as the role says end it.
#[derive(Debug, Clone)]
pub struct Deny {
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Change for Deny {
    const ACTION: &'static str = "elevations.deny";
    const NEEDS: Needs = WRITES;

    fn reason(&self) -> Option<&str> {
        Some(&self.reason)
    }

    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, Held(case): &mut Held) -> Result<()> {
        let row = &case.found.row;
        // Whether it still may be.
        row.state.moved(ElevationEvent::Deny)?;
        let ttl_s = row.ttl_s;
        case.check_denier(tx, by.who(), by.ctx.now).await?;
        case.check_first_denial(tx, by.who()).await?;
        let step = case.step().unwrap_or(0);
        case.take_back(tx, by.who()).await?;
        case.votes.push(by.vote(false, step, ttl_s, &self.reason));
        let takes = usize::try_from(case.definition.denials).map_err(Error::internal)?;
        if case.denials() < takes {
            return case.write(by.ctx, tx, |_| {}).await;
        }
        case.moves(by.ctx, tx, ElevationEvent::Deny, |row| "denied".clone_into(&mut row.why)).await
    }
}

/// Takes a request back.
#[derive(Debug, Clone, Copy)]
pub struct Withdraw;

#[async_trait]
impl Change for Withdraw {
    const ACTION: &'static str = "elevations.withdraw";
    const NEEDS: Needs = WRITES;

    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, Held(case): &mut Held) -> Result<()> {
        if !case.is_of(by.who().id) {
            return Err(only_requester());
        }
        let why = |row: &mut ElevationRow| "withdrawn".clone_into(&mut row.why);
        case.moves(by.ctx, tx, ElevationEvent::Withdraw, why).await
    }
}

fn only_requester() -> Error {
    Error::Denied("only who asked for an elevation withdraws or activates it".into())
}

/// Puts it in force, if everything that it was approved on still stands; otherwise it has failed.
#[derive(Debug, Clone, Copy)]
pub struct Activate;

#[async_trait]
impl Change for Activate {
    const ACTION: &'static str = "elevations.activate";
    const NEEDS: Needs = GOVERNS;

    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, Held(case): &mut Held) -> Result<()> {
        let now = by.ctx.now;
        if !case.is_of(by.who().id) {
            return Err(only_requester());
        }
        let row = &case.found.row;
        row.state.moved(ElevationEvent::Activate)?;
        check_time(row, now)?;
        if row.starts_at > now {
            return Err(Error::precondition(format!("it starts at {}", row.starts_at)));
        }
        let windows = open_until(&case.definition.windows, now);
        let closes = windows
            .ok_or_else(|| Error::precondition("this is outside of the role's change windows"))?;
        let factors = kinds(&case.definition.factors_to_activate)?;
        if !factors.is_empty() {
            let proven = by.subject.require_factor(now, &factors, FRESH)?;
            if case.definition.break_glass {
                check_emergency(tx, case, now).await?;
                case.side().check_own(tx, proven).await?;
            }
        }
        let extends = self.extended(by, tx, case).await?;
        case.moves(by.ctx, tx, ElevationEvent::Activate, |_| {}).await?;
        let checked = self.check(by, tx, case).await;
        if let Err(Error::Denied(why) | Error::Precondition(why)) = checked {
            let failed = |row: &mut ElevationRow| row.why = why.into_owned();
            return case.moves(by.ctx, tx, ElevationEvent::Fail, failed).await;
        }
        checked?;
        let ttl =
            Duration::from_secs(u64::try_from(case.found.row.ttl_s).map_err(Error::internal)?);
        let Some(extended) = extends else {
            let ends_at = now.plus(ttl)?.min(closes);
            let reviewed = case.definition.break_glass || case.scope.standing;
            let review_due = reviewed.then(|| now.plus(REVIEWED_WITHIN)).transpose()?;
            case.moves(by.ctx, tx, ElevationEvent::Confirm, |row| {
                row.activated_at = Some(now);
                row.ends_at = Some(ends_at);
                row.next_try = Some(ends_at);
                row.review_due = review_due;
            })
            .await?;
            return touch(tx, by.who().id).await;
        };
        self.prolong(by, tx, case, extended, (ttl, closes)).await
    }
}

impl Activate {
    /// Finds the elevation that it prolongs, in force; there is none other in force where it
    /// prolongs none.
    async fn extended(
        &self,
        by: &Acting<'_>,
        tx: &mut Tx,
        case: &mut Case,
    ) -> Result<Option<Versioned<ElevationRow>>> {
        let mut running = rows::active_of(tx, case.found.row.identity).await?;
        let why = |row: &ElevationRow| {
            let over = row.ends_at.is_none_or(|end| end <= by.ctx.now);
            let contained = row.revocation_epoch != by.who().revocation_epoch;
            let restored = row.restore_epoch != by.subject.restore_epoch();
            let why = [(over, OVER), (contained, CONTAINED), (restored, RESTORED)];
            why.into_iter().find(|(is, _)| *is).map(|(_, why)| why)
        };
        // What is in force for no decision any more is ended before its worker comes to it.
        if let Some(why) = running.as_ref().and_then(|one| why(&one.row))
            && let Some(one) = running.take()
        {
            end(by.ctx, tx, (one, &mut case.moves), why).await?;
        }
        let Some(extends) = &case.scope.extends else {
            return match running {
                None => Ok(None),
                Some(one) => Err(Error::precondition(format!(
                    "elevation {} is in force, and there is one at a time; give it back with \
                     `elevate revoke` first",
                    one.row.id
                ))),
            };
        };
        let running = running.filter(|one| one.row.id.to_string() == *extends);
        let over =
            || Error::precondition("the elevation that it prolongs is not in force any more");
        Ok(Some(running.ok_or_else(over)?))
    }

    /// Checks everything once more that it was approved on.
    async fn check(&self, by: &Acting<'_>, tx: &mut Tx, case: &Case) -> Result<()> {
        let row = &case.found.row;
        check_restored(row, by.subject)?;
        if row.revocation_epoch != by.who().revocation_epoch {
            return Err(Error::precondition("who asked was suspended since; ask again"));
        }
        case.check_frozen()?;
        if !case.definition.admits(by.subject) {
            return Err(Error::Denied("the role does not let you ask any more".into()));
        }
        case.check_approvals(tx, by.ctx.now).await
    }

    /// Moves the end of the elevation that this one prolongs; then this one has done its work.
    async fn prolong(
        &self,
        by: &Acting<'_>,
        tx: &mut Tx,
        case: &mut Case,
        running: Versioned<ElevationRow>,
        (ttl, closes): (Duration, UnixMillis),
    ) -> Result<()> {
        let now = by.ctx.now;
        let begun = running.row.activated_at.unwrap_or(now);
        let most = begun.plus(Duration::from_secs(case.definition.max_ttl_s))?;
        let until = running.row.ends_at.unwrap_or(now);
        let ends_at = until.plus(ttl)?.min(most).min(closes).max(until);
        let why = format!("it prolonged {}", running.row.id);
        let prolonged = ElevationRow {
            ends_at: Some(ends_at),
            next_try: Some(ends_at),
            changed_at: now,
            changed_by: by.ctx.actor(),
            ..running.row
        };
        tx.update(running.version, &prolonged).await?;
        case.moves.note(prolonged.id, "prolonged");
        notify::elevation(by.ctx, tx, &prolonged, NoticeKind::Prolonged).await?;
        case.moves(by.ctx, tx, ElevationEvent::Confirm, |row| {
            row.activated_at = Some(now);
            row.ends_at = Some(now);
        })
        .await?;
        case.moves(by.ctx, tx, ElevationEvent::End, |row| row.why = why).await
    }
}

/// Moves the identity's row on: whatever was refused without the elevation is decided anew. Who it
/// was changed by stays: nothing of it is.
async fn touch(tx: &mut Tx, id: IdentityId) -> Result<()> {
    let found = tx.lookup::<IdentityRow>(&id).await?;
    let Versioned { mut row, version } = found.ok_or_else(unknown)?;
    row.authority_rev = row.authority_rev.saturating_add(1);
    tx.update(version, &row).await?;
    Ok(())
}
