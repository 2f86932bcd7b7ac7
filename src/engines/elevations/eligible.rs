//! Who may approve: the rules that nothing configurable loosens. Read in the commit that stands on
//! them, which excludes every change of a membership meanwhile.

use super::case::Case;
use super::definition::{Step, kinds};
use super::scope::Owned;
use super::side::{Side, young};
use crate::error::{Error, Result};
use crate::store::factors::FactorRow;
use crate::store::identities::{self, IdentityRow, IdentityWalk};
use crate::store::{Tx, Versioned};
use crate::types::{
    FactorId, FactorKind, FactorState, GroupId, IdentityId, Kind, Owner, Segment, UnixMillis,
};
use crate::vault::{FRESH, Subject, Vote};

/// Accounts of one person that are looked at.
const ACCOUNTS: i64 = 100;

/// That somebody belongs to those who approve: since when, and who made it so.
#[derive(Debug)]
pub(super) struct Belonging {
    pub(super) since: UnixMillis,
    pub(super) by: Vec<String>,
}

/// Tells whether two accounts are of one human.
pub(in crate::engines) fn same_human(one: &IdentityRow, other: &IdentityRow) -> bool {
    one.id == other.id || (one.person.is_some() && one.person == other.person)
}

pub(in crate::engines) fn denied(text: &'static str) -> Error {
    Error::Denied(text.into())
}

impl Case {
    /// Checks that somebody may approve in a step.
    ///
    /// # Errors
    /// [`Error::Denied`] with the rule that is against it.
    pub(super) async fn check_approver(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        step: usize,
        now: UnixMillis,
    ) -> Result<()> {
        self.side().check_person(tx, who, now).await?;
        let step = self.definition.steps.get(step);
        let step = step.ok_or_else(|| Error::internal("an approval of no step"))?;
        let belongings = self.belongings(tx, who, step).await?;
        if belongings.is_empty() {
            return Err(denied("this step is approved by others; `elevate show` says by whom"));
        }
        let (side, role) = (self.side(), &self.role.row);
        side.check_account(tx, who).await?;
        if !side.is_old(role.changed_at) {
            return Err(young());
        }
        side.check_made(tx, &role.created_by, &role.changers).await?;
        side.check_belongings(tx, belongings).await
    }

    /// Who asks.
    pub(super) fn side(&self) -> Side<'_> {
        let (who, since, dev) = (&self.requester.row, self.found.row.requested_at, self.dev);
        Side { who, since, dev }
    }

    /// Checks that who approves proved a factor lately, of a kind that the role wants or of any: one
    /// that is a day older than the request and not of who asks. A login alone approves nothing,
    /// because an administrator may have signed it for a key of their own.
    ///
    /// # Errors
    /// [`Error::StepUp`] with what is wanted, and as [`Case::check_approver`].
    pub(super) async fn check_factor(
        &self,
        tx: &mut Tx,
        who: &Subject,
        now: UnixMillis,
    ) -> Result<FactorId> {
        let wanted = kinds(&self.definition.factors_to_approve)?;
        let wanted = if wanted.is_empty() { FactorKind::ALL } else { &wanted };
        let proven = who.require_factor(now, wanted, FRESH)?;
        self.side().check_factor(tx, proven).await
    }

    /// Checks that somebody may deny: whoever could approve in any step, however new.
    ///
    /// # Errors
    /// As [`Case::check_approver`].
    pub(super) async fn check_denier(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        now: UnixMillis,
    ) -> Result<()> {
        self.side().check_person(tx, who, now).await?;
        for step in &self.definition.steps {
            if !self.belongings(tx, who, step).await?.is_empty() {
                return Ok(());
            }
        }
        Err(denied("this is denied by who may approve it; `elevate show` says who"))
    }

    /// Tells whether somebody belongs to who approves in any step.
    pub(super) async fn is_voter(&self, tx: &mut Tx, who: &IdentityRow) -> Result<bool> {
        if who.kind != Kind::Human {
            return Ok(false);
        }
        for step in &self.definition.steps {
            if !self.belongings(tx, who, step).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks that nobody of the same human voted before.
    pub(super) async fn check_first(&self, tx: &mut Tx, who: &IdentityRow) -> Result<()> {
        for vote in &self.votes {
            if same_human(&voter(tx, vote).await?.row, who) {
                return Err(denied("you voted on this already; each person counts once"));
            }
        }
        Ok(())
    }

    /// Checks that nobody of the same human denied before; who approved may think better of it.
    pub(super) async fn check_first_denial(&self, tx: &mut Tx, who: &IdentityRow) -> Result<()> {
        for vote in self.votes.iter().filter(|vote| !vote.approves) {
            if same_human(&voter(tx, vote).await?.row, who) {
                return Err(denied("you denied this already; each person counts once"));
            }
        }
        Ok(())
    }

    /// Takes back what somebody approved, by any account: who denies has thought better of it.
    pub(super) async fn take_back(&mut self, tx: &mut Tx, who: &IdentityRow) -> Result<()> {
        let mut kept = Vec::with_capacity(self.votes.len());
        for vote in std::mem::take(&mut self.votes) {
            if !vote.approves || !same_human(&voter(tx, &vote).await?.row, who) {
                kept.push(vote);
            }
        }
        self.votes = kept;
        Ok(())
    }

    /// Checks all approvals once more, as they are to be used.
    ///
    /// # Errors
    /// [`Error::Denied`] with the rule that is against one of them, [`Error::Precondition`] when
    /// there are too few.
    pub(super) async fn check_approvals(&self, tx: &mut Tx, now: UnixMillis) -> Result<()> {
        if self.step().is_some() {
            return Err(Error::precondition("approvals are missing"));
        }
        let mut seen: Vec<IdentityRow> = Vec::new();
        for vote in self.votes.iter().filter(|vote| vote.approves) {
            let who = voter(tx, vote).await?.row;
            self.check_approver(tx, &who, vote.step, now).await?;
            if vote.epoch != who.revocation_epoch {
                return Err(denied("an approver was suspended since the approval"));
            }
            let factor = vote.factor.as_deref().unwrap_or_default();
            if !is_enrolled(tx, factor).await? {
                return Err(denied("the factor that an approval was given with is gone"));
            }
            if seen.iter().any(|one| same_human(one, &who)) {
                return Err(denied("two approvals are of one person"));
            }
            seen.push(who);
        }
        Ok(())
    }

    /// Checks that somebody may review what was done in an emergency: by the same rules by which one
    /// approves, with a factor of any kind.
    ///
    /// # Errors
    /// As [`Case::check_approver`] and [`Case::check_factor`].
    pub(super) async fn check_reviewer(
        &self,
        tx: &mut Tx,
        who: &Subject,
        now: UnixMillis,
    ) -> Result<()> {
        let (side, row) = (self.side(), &who.identity.row);
        side.check_person(tx, row, now).await?;
        let mut belongings = Vec::new();
        for name in &self.definition.reviewer_groups {
            belongings.extend(in_group(tx, name, row.id).await?);
        }
        if belongings.is_empty() {
            return Err(denied("this is reviewed by others; `elevate role show` says by whom"));
        }
        side.check_account(tx, row).await?;
        side.check_belongings(tx, belongings).await?;
        let proven = who.require_factor(now, FactorKind::ALL, FRESH)?;
        side.check_factor(tx, proven).await.map(drop)
    }

    /// Tells whether somebody is in a group that reviews it.
    pub(super) async fn is_reviewer(&self, tx: &mut Tx, who: &IdentityRow) -> Result<bool> {
        for name in &self.definition.reviewer_groups {
            if who.kind == Kind::Human && !in_group(tx, name, who.id).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists why somebody belongs to who approves in a step.
    async fn belongings(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        step: &Step,
    ) -> Result<Vec<Belonging>> {
        let mut found = Vec::new();
        for name in &step.groups {
            found.extend(in_group(tx, name, who.id).await?);
        }
        if step.owners {
            found.extend(self.ownership(tx, who).await?);
        }
        Ok(found)
    }

    /// Of whom owns all that is asked for: since when, by the last that came to them.
    async fn ownership(&self, tx: &mut Tx, who: &IdentityRow) -> Result<Option<Belonging>> {
        let mut all: Option<Belonging> = None;
        for owned in &self.resources.owners {
            let Some(Owned { owner, since, by }) = owned else { return Ok(None) };
            let mut one = Belonging { since: *since, by: by.clone() };
            match owner {
                Owner::Identity(id) if *id == who.id => {}
                Owner::Identity(_) => return Ok(None),
                Owner::Group(group) => match membership(tx, *group, who.id).await? {
                    Some(member) => one.joins(member),
                    None => return Ok(None),
                },
            }
            match &mut all {
                Some(all) => all.joins(one),
                None => all = Some(one),
            }
        }
        Ok(all)
    }
}

impl Belonging {
    /// Holds only where another does: since the later of both, and by all who made either so.
    fn joins(&mut self, other: Self) {
        self.since = self.since.max(other.since);
        self.by.extend(other.by);
    }
}

/// Tells whether a factor is enrolled.
pub(super) async fn is_enrolled(tx: &mut Tx, factor: &str) -> Result<bool> {
    let found = tx.lookup::<FactorRow>(&factor).await?;
    Ok(found.is_some_and(|factor| factor.row.state == FactorState::Active))
}

pub(super) async fn identity(tx: &mut Tx, id: IdentityId) -> Result<Versioned<IdentityRow>> {
    let found = tx.lookup::<IdentityRow>(&id).await?;
    found.ok_or_else(|| Error::internal("an id without its identity"))
}

/// Finds who gave a vote.
pub(super) async fn voter(tx: &mut Tx, vote: &Vote) -> Result<Versioned<IdentityRow>> {
    identity(tx, vote.by.parse().map_err(Error::internal)?).await
}

/// Finds why somebody is in a group.
pub(super) async fn in_group(tx: &mut Tx, name: &str, who: IdentityId) -> Result<Vec<Belonging>> {
    let name: Segment = name.parse().map_err(Error::internal)?;
    let Some(group) = identities::group_named(tx, &name).await? else { return Ok(Vec::new()) };
    Ok(membership(tx, group.row.id, who).await?.into_iter().collect())
}

async fn membership(tx: &mut Tx, group: GroupId, who: IdentityId) -> Result<Option<Belonging>> {
    let member = identities::member(tx, group, who).await?.filter(|member| member.row.active);
    Ok(member
        .map(|member| Belonging { since: member.row.changed_at, by: vec![member.row.changed_by] }))
}

/// Tells whether an account of somebody is in a group, or was after a moment.
pub(super) async fn was_in(
    tx: &mut Tx,
    group: GroupId,
    who: &IdentityRow,
    after: i64,
) -> Result<bool> {
    for account in accounts(tx, who).await? {
        let member = identities::member(tx, group, account).await?;
        if member.is_some_and(|it| it.row.active || it.row.changed_at.0 > after) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lists the accounts of a human.
pub(super) async fn accounts(tx: &mut Tx, who: &IdentityRow) -> Result<Vec<IdentityId>> {
    let Some(person) = &who.person else { return Ok(vec![who.id]) };
    // Names begin with a letter or digit.
    let (all, limit) = (IdentityWalk::Person(person), ACCOUNTS.saturating_add(1));
    let found = identities::identities_from(tx, all, ("", "~"), limit).await?;
    if i64::try_from(found.len()).is_ok_and(|found| found > ACCOUNTS) {
        return Err(denied("this person has too many accounts to tell what they own"));
    }
    Ok(found.into_iter().map(|account| account.row.id).collect())
}
