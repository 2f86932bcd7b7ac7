//! Who may approve: the rules that nothing configurable loosens. Read in the commit that stands on
//! them, which excludes every change of a membership meanwhile.

use std::time::Duration;

use super::case::Case;
use super::definition::{Step, kinds};
use super::scope::Owned;
use crate::engines::identities::Former;
use crate::error::{Error, Result};
use crate::store::factors::FactorRow;
use crate::store::identities::{self, IdentityRow, IdentityWalk};
use crate::store::{Tx, Versioned};
use crate::types::{FactorId, FactorState, GroupId, IdentityId, Kind, Owner, Segment, UnixMillis};
use crate::vault::{FRESH, Subject, Vote, is_active};

/// How much older than a request whatever an approval stands on is; how long who owned a machine is
/// held to it.
const AGE: Duration = Duration::from_hours(24);
/// Accounts of one person that are looked at.
const ACCOUNTS: i64 = 100;

/// That somebody belongs to those who approve: since when, and who made it so.
#[derive(Debug)]
struct Belonging {
    since: UnixMillis,
    by: String,
}

/// Tells whether two accounts are of one human.
pub(super) fn same_human(one: &IdentityRow, other: &IdentityRow) -> bool {
    one.id == other.id || (one.person.is_some() && one.person == other.person)
}

fn denied(text: &'static str) -> Error {
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
        self.check_person(tx, who, now).await?;
        let step = self.definition.steps.get(step);
        let step = step.ok_or_else(|| Error::internal("an approval of no step"))?;
        let mut belongings = self.belongings(tx, who, step).await?;
        if belongings.is_empty() {
            return Err(denied("this step is approved by others; `elevate show` says by whom"));
        }
        let old = |since| self.is_old(since);
        belongings.retain(|one| old(one.since));
        if belongings.is_empty() || !old(who.created_at) || !old(self.role.row.changed_at) {
            return Err(denied(
                "an approval counts only where account, membership and role are a day older than \
                 the request",
            ));
        }
        let role = &self.role.row;
        let role = [&role.created_by, &role.changed_by, &role.confirmed_by];
        let made = [&who.created_by, &who.changed_by].into_iter().chain(role);
        for actor in made {
            if self.is_theirs(tx, actor).await? {
                return Err(theirs());
            }
        }
        for belonging in belongings {
            if !self.is_theirs(tx, &belonging.by).await? {
                return Ok(());
            }
        }
        Err(theirs())
    }

    /// Checks that who approves proved a factor, where the role wants one: lately, and one that is a
    /// day older than the request and not of who asks.
    ///
    /// # Errors
    /// [`Error::StepUp`] with what is wanted, and as [`Case::check_approver`].
    pub(super) async fn check_factor(
        &self,
        tx: &mut Tx,
        who: &Subject,
        now: UnixMillis,
    ) -> Result<Option<FactorId>> {
        let wanted = kinds(&self.definition.factors_to_approve)?;
        if wanted.is_empty() {
            return Ok(None);
        }
        let proven = who.require_factor(now, &wanted, FRESH)?;
        if !self.is_old(proven.enrolled_at) {
            return Err(denied(
                "an approval counts only with a factor that is a day older than the request",
            ));
        }
        let row = &proven.factor.row;
        let vouched_by = row.vouched_by.map(|id| id.to_string());
        for actor in [&row.created_by, &row.changed_by].into_iter().chain(&vouched_by) {
            if self.is_theirs(tx, actor).await? {
                return Err(theirs());
            }
        }
        Ok(Some(proven.id()))
    }

    fn is_old(&self, since: UnixMillis) -> bool {
        self.dev || self.found.row.requested_at.0.saturating_sub(since.0) >= age_ms()
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
        self.check_person(tx, who, now).await?;
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
            if let Some(factor) = &vote.factor {
                let factor = tx.lookup::<FactorRow>(factor).await?;
                if factor.is_none_or(|factor| factor.row.state != FactorState::Active) {
                    return Err(denied("the factor that an approval was given with is gone"));
                }
            }
            if seen.iter().any(|one| same_human(one, &who)) {
                return Err(denied("two approvals are of one person"));
            }
            seen.push(who);
        }
        Ok(())
    }

    async fn check_person(&self, tx: &mut Tx, who: &IdentityRow, now: UnixMillis) -> Result<()> {
        if who.kind != Kind::Human {
            return Err(denied("only humans approve"));
        }
        if !is_active(who, now) {
            return Err(denied("an approver is suspended or over"));
        }
        if same_human(who, &self.requester.row) {
            return Err(denied("nobody approves what they asked for, whichever account asked"));
        }
        if self.answers(tx, who).await? {
            return Err(denied(
                "nobody approves for a machine that they own, or owned within the day before",
            ));
        }
        Ok(())
    }

    /// Checks that somebody may review what was done in an emergency.
    ///
    /// # Errors
    /// As [`Case::check_approver`].
    pub(super) async fn check_reviewer(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        now: UnixMillis,
    ) -> Result<()> {
        self.check_person(tx, who, now).await?;
        if self.is_reviewer(tx, who).await? {
            return Ok(());
        }
        Err(denied("this is reviewed by others; `elevate role show` says by whom"))
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
                    Some(member) if member.since > one.since => one = member,
                    Some(_) => {}
                    None => return Ok(None),
                },
            }
            if all.as_ref().is_none_or(|all| all.since < one.since) {
                all = Some(one);
            }
        }
        Ok(all)
    }

    /// Tells whether somebody, by any account, answers for the machine that asks, or did within the
    /// day before it asked.
    async fn answers(&self, tx: &mut Tx, who: &IdentityRow) -> Result<bool> {
        let row = &self.requester.row;
        if !row.kind.is_machine() {
            return Ok(false);
        }
        let day_before = self.found.row.requested_at.0.saturating_sub(age_ms());
        let former = Former::read(&row.former_owners)?;
        let former = former.iter().filter(|one| one.until.0 > day_before).map(|one| one.owner);
        for owner in std::iter::once(row.owner).chain(former) {
            let answers = match owner {
                Owner::Identity(id) => same_human(&identity(tx, id).await?.row, who),
                Owner::Group(group) => was_in(tx, group, who, day_before).await?,
            };
            if answers {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether something was done by who asked, by who answers for it, or by an account that
    /// one of them made.
    async fn is_theirs(&self, tx: &mut Tx, actor: &str) -> Result<bool> {
        // A worker's name is no id.
        let Ok(id) = actor.parse::<IdentityId>() else { return Ok(false) };
        let did = identity(tx, id).await?.row;
        if self.is_side(tx, &did).await? {
            return Ok(true);
        }
        let Ok(id) = did.created_by.parse::<IdentityId>() else { return Ok(false) };
        let made = identity(tx, id).await?.row;
        self.is_side(tx, &made).await
    }

    async fn is_side(&self, tx: &mut Tx, who: &IdentityRow) -> Result<bool> {
        Ok(same_human(who, &self.requester.row) || self.answers(tx, who).await?)
    }
}

fn theirs() -> Error {
    denied(
        "account, membership or role were made or changed by who asks, or by an account that they \
         made",
    )
}

fn age_ms() -> i64 {
    i64::try_from(AGE.as_millis()).unwrap_or(i64::MAX)
}

async fn identity(tx: &mut Tx, id: IdentityId) -> Result<Versioned<IdentityRow>> {
    let found = tx.lookup::<IdentityRow>(&id).await?;
    found.ok_or_else(|| Error::internal("an id without its identity"))
}

/// Finds who gave a vote.
pub(super) async fn voter(tx: &mut Tx, vote: &Vote) -> Result<Versioned<IdentityRow>> {
    identity(tx, vote.by.parse().map_err(Error::internal)?).await
}

async fn in_group(tx: &mut Tx, name: &str, who: IdentityId) -> Result<Vec<Belonging>> {
    let name: Segment = name.parse().map_err(Error::internal)?;
    let Some(group) = identities::group_named(tx, &name).await? else { return Ok(Vec::new()) };
    Ok(membership(tx, group.row.id, who).await?.into_iter().collect())
}

async fn membership(tx: &mut Tx, group: GroupId, who: IdentityId) -> Result<Option<Belonging>> {
    let member = identities::member(tx, group, who).await?.filter(|member| member.row.active);
    Ok(member.map(|member| Belonging { since: member.row.changed_at, by: member.row.changed_by }))
}

/// Tells whether an account of somebody is in a group, or was after a moment.
async fn was_in(tx: &mut Tx, group: GroupId, who: &IdentityRow, after: i64) -> Result<bool> {
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
