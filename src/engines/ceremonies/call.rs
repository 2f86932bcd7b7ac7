//! A call that several administrators make together, on its way: it opens its ceremony, or performs
//! it.

use std::time::Duration;

use super::case::Case;
use super::notify;
use super::show::Ceremony;
use super::{About, Term};
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::store::ceremonies::{self, CeremonyRow};
use crate::store::{Tx, Versioned};
use crate::types::{
    CeremonyId, CeremonyState, FactorKind, Id, NoticeKind, RequestContext, UnixMillis,
};
use crate::vault::{Decision, FRESH, View};

/// How long a ceremony waits.
const WAITS: Duration = Duration::from_hours(1);
/// Ceremonies that one identity asks for within an hour.
const ASKED: i64 = 20;
const ASKED_WITHIN_MS: i64 = 3_600_000;

/// A call, with the row of the ceremony that it would open.
#[derive(Debug, Clone)]
pub(super) struct Call {
    row: CeremonyRow,
    dev: bool,
}

/// Where its ceremony is.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: CeremonyId,
    pub(super) ready: bool,
    /// Who approved it: identities' ids.
    pub(super) by: Vec<String>,
}

impl Call {
    /// Freezes a call as it was decided.
    pub(super) fn of(
        view: &View,
        decision: &Decision,
        action: &'static str,
        terms: Vec<Term>,
    ) -> Result<Self> {
        for term in &terms {
            check_text("what is said in a ceremony", &term.value, LONG)?;
        }
        let subject = view.subject()?;
        if !subject.is_administrator() {
            return Err(Error::Denied(
                "this is asked for by who is in the group of administrators".into(),
            ));
        }
        let (now, needed) = (view.now(), view.quorum());
        let factor = if needed > 1 {
            // A login alone asks for nothing: an administrator may have signed it for their own key.
            subject.require_factor(now, FactorKind::ALL, FRESH)?.id().to_string()
        } else {
            String::new()
        };
        let about = About::of(action, &decision.resources, terms);
        let identity = subject.identity.row.id;
        let row = CeremonyRow {
            id: CeremonyId(view.new_id()?),
            identity,
            action: action.to_owned(),
            resource: decision.resource()?.name.clone(),
            about_hash: about.hash(view.vault_id(), identity).to_vec(),
            about: about.to_json()?,
            needed: i64::from(needed),
            state: CeremonyState::Open,
            votes: "[]".to_owned(),
            factor,
            revocation_epoch: subject.identity.row.revocation_epoch,
            restore_epoch: subject.restore_epoch(),
            requested_at: now,
            expires_at: now.plus(WAITS)?,
            changed_at: now,
            changed_by: view.actor(),
        };
        Ok(Self { row, dev: view.is_dev() })
    }

    /// Tells whether enough administrators said so.
    pub(super) async fn stands(&self, tx: &mut Tx, now: UnixMillis) -> Result<Standing> {
        let Some(case) = self.found(tx, now).await? else {
            return Ok(Standing { id: self.row.id, ready: self.row.needed <= 1, by: Vec::new() });
        };
        let by = case.approvers(tx, now).await?.iter().map(|who| who.id.to_string()).collect();
        Ok(Standing { id: case.found.row.id, ready: self.missing(&case, tx, now).await? == 0, by })
    }

    async fn found(&self, tx: &mut Tx, now: UnixMillis) -> Result<Option<Case>> {
        let CeremonyRow { identity, about_hash, restore_epoch, .. } = &self.row;
        let found = ceremonies::open_of(tx, *identity, about_hash, now).await?;
        let Some(found) = found else { return Ok(None) };
        let case = Case::load(tx, found, self.dev).await?;
        // One that stands on nothing any more is opened anew.
        match case.check_requester(tx, *restore_epoch, now).await {
            Ok(()) => Ok(Some(case)),
            Err(Error::Precondition(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// How many are missing: as many as it took when it was asked for, or takes now.
    async fn missing(&self, case: &Case, tx: &mut Tx, now: UnixMillis) -> Result<i64> {
        let more = self.row.needed.saturating_sub(case.found.row.needed).max(0);
        Ok(case.missing(tx, now).await?.saturating_add(more))
    }

    /// Uses the approvals, once: one compare-and-set, in the commit of what they are for.
    pub(super) async fn perform(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<()> {
        let Some(mut case) = self.found(tx, ctx.now).await? else {
            if self.row.needed > 1 {
                return Err(Error::Conflict("the ceremony is not open any more".into()));
            }
            let state = CeremonyState::Performed;
            let found = tx.insert(&CeremonyRow { state, ..self.row.clone() }).await?;
            let case = Case::load(tx, found, self.dev).await?;
            return notify::event(ctx, tx, &case, NoticeKind::CeremonyPerformed).await;
        };
        if self.missing(&case, tx, ctx.now).await? > 0 {
            return Err(Error::Conflict("an approval does not count any more; look again".into()));
        }
        case.write(ctx, tx, CeremonyState::Performed).await?;
        notify::event(ctx, tx, &case, NoticeKind::CeremonyPerformed).await
    }

    /// Opens the ceremony, or finds it open.
    pub(super) async fn open(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<Ceremony> {
        if let Some(mut case) = self.found(tx, ctx.now).await? {
            // That it was asked for again is on the record.
            case.write(ctx, tx, CeremonyState::Open).await?;
            return self.shown(ctx, tx, &case).await;
        }
        let after = UnixMillis(ctx.now.0.saturating_sub(ASKED_WITHIN_MS));
        if ceremonies::count_asked(tx, self.row.identity, after, ASKED).await? >= ASKED {
            let text = format!("nobody asks for more than {ASKED} ceremonies within an hour");
            return Err(Error::Exhausted(text.into()));
        }
        let found: Versioned<CeremonyRow> = tx.insert(&self.row).await?;
        let case = Case::load(tx, found, self.dev).await?;
        notify::event(ctx, tx, &case, NoticeKind::CeremonyOpened).await?;
        self.shown(ctx, tx, &case).await
    }

    async fn shown(&self, ctx: &RequestContext, tx: &mut Tx, case: &Case) -> Result<Ceremony> {
        let missing = self.missing(case, tx, ctx.now).await?;
        let mut shown = Ceremony::of(tx, &mut Names::default(), case, ctx.now).await?;
        shown.missing = missing;
        shown.row.needed = shown.row.needed.max(self.row.needed);
        Ok(shown)
    }

    /// Who asks: so many are counted.
    pub(super) const fn identity(&self) -> Id {
        self.row.identity.0
    }
}
