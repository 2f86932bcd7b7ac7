//! Changes of a role: wanted by one administrator, confirmed by another, in effect a day later.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::administrators::{Administrator, administrator};
use super::definition::RoleDefinition;
use super::eligible::{is_enrolled, same_human};
use super::notify;
use super::roles::{ElevationRole, find, no_such_role, resource};
use super::side::Side;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::elevations::ElevationRoleRow;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned, changers};
use crate::types::{FactorKind, NoticeKind, ObjectId, RequestContext, Segment, UnixMillis};
use crate::vault::{Decision, FRESH, GOVERNS, Operation, Resource, Verb, View, is_active};

/// How long after it was wanted a change takes effect; at once in a development vault.
const LATER: Duration = Duration::from_hours(24);

/// What a role is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What it is to say.
    pub definition: RoleDefinition,
    /// Who wants it: an identity's id.
    pub by: String,
    /// Their revocation epoch then: who is contained meanwhile wants nothing any more.
    pub epoch: i64,
    /// The factor that they proved; empty in a development vault.
    pub with: String,
    /// Since when, in Unix milliseconds.
    pub at_ms: i64,
    /// Who confirmed it; empty while nobody did.
    pub confirmed_by: String,
    /// The revocation epoch of who confirmed it; 0 while nobody did.
    pub confirmed_in: i64,
    /// The factor that who confirmed it proved; empty while nobody did.
    pub confirmed_with: String,
}

impl Proposal {
    /// Reads what a row holds; none where nobody wants it changed.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Option<Self>> {
        if json.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(json).map(Some).map_err(Error::internal)
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// Writes it into its role.
    fn applied(self, row: ElevationRoleRow, now: UnixMillis) -> Result<ElevationRoleRow> {
        let both = [&self.by, &self.confirmed_by].into_iter();
        Ok(ElevationRoleRow {
            definition: self.definition.to_json()?,
            proposal: String::new(),
            next_try: None,
            changers: both.fold(row.changers, |all, one| changers::with(&all, one)),
            confirmed_by: self.confirmed_by,
            changed_at: now,
            changed_by: self.by,
            ..row
        })
    }

    /// Checks that who wants it is the administrator who wanted it then; who that is.
    async fn check_proposer(&self, tx: &mut Tx, now: UnixMillis) -> Result<IdentityRow> {
        let who = administrator(tx, &self.by).await?;
        let same = who.row.revocation_epoch == self.epoch;
        if !is_active(&who.row, now) || !same || !who.administers() {
            return Err(Error::precondition(
                "who wants this change was suspended since, or administers no more; put it anew",
            ));
        }
        Ok(who.row)
    }

    /// Checks that somebody may confirm it: an administrator of really another side than who wants it,
    /// on both sides.
    async fn check_confirmer(
        &self,
        tx: &mut Tx,
        (wanted_by, dev): (&IdentityRow, bool),
        who: Administrator,
        now: UnixMillis,
    ) -> Result<()> {
        let side = Side { who: wanted_by, since: UnixMillis(self.at_ms), dev };
        if same_human(wanted_by, &who.row) {
            return Err(Error::Denied(
                "a change of a role is confirmed by another administrator than who wants it".into(),
            ));
        }
        let confirms = who.row.clone();
        side.check_administrator(tx, who, now).await?;
        // Nor does anybody confirm what they wanted by an account, or by a login and a factor, that they
        // made for somebody else.
        let back = Side { who: &confirms, ..side };
        let wants = administrator(tx, &self.by).await?;
        back.check_administrator(tx, wants, now).await?;
        // A development vault asks who wants it for no factor.
        if dev && self.with.is_empty() {
            return Ok(());
        }
        back.check_factor_still(tx, &self.with).await
    }

    /// Checks once more what a confirmed change stands on, as it is to take effect.
    async fn check_again(&self, tx: &mut Tx, dev: bool, now: UnixMillis) -> Result<()> {
        let wanted_by = self.check_proposer(tx, now).await?;
        let who = administrator(tx, &self.confirmed_by).await?;
        let stands = who.row.revocation_epoch == self.confirmed_in
            && is_enrolled(tx, &self.confirmed_with).await?;
        if !stands {
            return Err(Error::precondition(
                "who confirmed this change was suspended since, or their factor is gone",
            ));
        }
        self.check_confirmer(tx, (&wanted_by, dev), who, now).await
    }
}

/// Confirms a change of a role that another administrator wants.
#[derive(Debug, Clone)]
pub struct ConfirmRole {
    /// Its name.
    pub name: Segment,
    /// The version of the role that was seen, with what it is to say.
    pub version: i64,
}

#[async_trait]
impl Verb for ConfirmRole {
    const ACTION: &'static str = "elevations.confirm-role";
    type Prepared = (Versioned<ElevationRoleRow>, bool);
    type Output = ElevationRole;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let found = find(view, &self.name).await?.ok_or_else(no_such_role)?;
        if found.version != self.version {
            return Err(Error::precondition("the role changed since it was seen; look again"));
        }
        let proposal = Proposal::read(&found.row.proposal)?;
        let proposal = proposal.filter(|proposal| proposal.confirmed_by.is_empty());
        match proposal {
            Some(_) => Ok((found, view.is_dev())),
            None => Err(Error::precondition("there is nothing to be confirmed")),
        }
    }
}

#[async_trait]
impl Operation for ConfirmRole {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (found, dev): &Self::Prepared,
        decision: &Decision,
    ) -> Result<ElevationRole> {
        let row = found.row.clone();
        let nothing = || Error::internal("a proposal that is none");
        let mut proposal = Proposal::read(&row.proposal)?.ok_or_else(nothing)?;
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker confirms nothing"))?;
        let wanted_by = proposal.check_proposer(tx, ctx.now).await?;
        let who = administrator(tx, &ctx.actor()).await?;
        proposal.check_confirmer(tx, (&wanted_by, *dev), who, ctx.now).await?;
        // A login alone confirms nothing: an administrator may have signed it for their own key.
        let proven = subject.require_factor(ctx.now, FactorKind::ALL, FRESH)?;
        let side = Side { who: &wanted_by, since: UnixMillis(proposal.at_ms), dev: *dev };
        proposal.confirmed_with = side.check_factor(tx, proven).await?.to_string();
        proposal.confirmed_in = subject.identity.row.revocation_epoch;
        proposal.confirmed_by = ctx.actor();
        let effective = UnixMillis(proposal.at_ms).plus(LATER)?;
        let json = proposal.to_json()?;
        let confirmed = ElevationRoleRow { proposal: json, next_try: Some(effective), ..row };
        let row = if *dev || effective <= ctx.now {
            proposal.applied(confirmed.clone(), ctx.now)?
        } else {
            confirmed.clone()
        };
        let applied = row.proposal.is_empty();
        let role = tx.update(found.version, &row).await?;
        let kind = if applied { NoticeKind::RoleChanged } else { NoticeKind::RoleConfirmed };
        notify::role(ctx, tx, (&confirmed, &role.row), kind, "").await?;
        ElevationRole::of(tx, &mut Names::default(), role).await
    }
}

/// Lets a confirmed change of a role take effect; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRole {
    /// The role.
    pub id: ObjectId,
    /// The version that was found due.
    pub version: i64,
}

#[async_trait]
impl Verb for ApplyRole {
    const ACTION: &'static str = "elevations.apply-role";
    type Prepared = bool;
    /// Why it was dropped, where what it stands on does not stand any more.
    type Output = Result<(), Error>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("elevations".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<bool> {
        Ok(view.is_dev())
    }
}

#[async_trait]
impl Operation for ApplyRole {
    const NEEDS: Needs = GOVERNS;

    fn outcome(&self, done: &Self::Output) -> &'static str {
        done.as_ref().err().map_or("OK", Error::reason)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        dev: &bool,
        _: &Decision,
    ) -> Result<Self::Output> {
        let found = tx.lookup::<ElevationRoleRow>(&self.id).await?.ok_or_else(no_such_role)?;
        let due = found.row.next_try.is_some_and(|at| at <= ctx.now);
        let proposal = Proposal::read(&found.row.proposal)?;
        let proposal = proposal.filter(|it| due && !it.confirmed_by.is_empty());
        let Some(proposal) = proposal.filter(|_| found.version == self.version) else {
            return Err(Error::Conflict("it is not due any more".into()));
        };
        let stands = match proposal.check_again(tx, *dev, ctx.now).await {
            Err(why @ (Error::Denied(_) | Error::Precondition(_))) => Err(why),
            other => Ok(other?),
        };
        let was = found.row;
        let (row, kind, why) = match &stands {
            Ok(()) => {
                let row = proposal.applied(was.clone(), ctx.now)?;
                (row, NoticeKind::RoleChanged, String::new())
            }
            // The role goes on saying what it says.
            Err(why) => {
                let proposal = String::new();
                let row = ElevationRoleRow { proposal, next_try: None, ..was.clone() };
                (row, NoticeKind::RoleDropped, why.to_string())
            }
        };
        tx.update(found.version, &row).await?;
        notify::role(ctx, tx, (&was, &row), kind, &why).await?;
        Ok(stands)
    }
}
