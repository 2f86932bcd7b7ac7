//! Whose side somebody is on: what is approved, confirmed or reviewed by another has to be by
//! somebody who is really another, however many accounts who wants it has made.

use std::time::Duration;

use super::eligible::{Belonging, denied, identity, same_human, was_in};
use crate::engines::identities::Former;
use crate::error::Result;
use crate::store::identities::IdentityRow;
use crate::store::{Tx, changers};
use crate::types::{FactorId, IdentityId, Kind, Owner, UnixMillis};
use crate::vault::{ProvenFactor, is_active};

/// How much older than what is wanted whatever an approval of it stands on is; how long who owned a
/// machine is held to it.
const AGE: Duration = Duration::from_hours(24);
/// How many accounts are followed from one to who made it.
const CHAIN: usize = 64;

/// Who wants something, and since when.
#[derive(Debug, Clone, Copy)]
pub(in crate::engines) struct Side<'a> {
    pub(in crate::engines) who: &'a IdentityRow,
    pub(in crate::engines) since: UnixMillis,
    /// Whether the vault is marked as development, which waives ages.
    pub(in crate::engines) dev: bool,
}

impl Side<'_> {
    /// Tells whether something is old enough to count.
    pub(super) fn is_old(&self, since: UnixMillis) -> bool {
        self.dev || self.since.0.saturating_sub(since.0) >= age_ms()
    }

    /// Checks that somebody is a human in force, of another side.
    ///
    /// # Errors
    /// [`crate::error::Error::Denied`] with the rule that is against it; as all of these.
    pub(in crate::engines) async fn check_person(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        now: UnixMillis,
    ) -> Result<()> {
        if who.kind != Kind::Human {
            return Err(denied("only humans approve"));
        }
        if !is_active(who, now) {
            return Err(denied("an approver is suspended or over"));
        }
        if same_human(who, self.who) {
            return Err(denied("nobody approves what they asked for, whichever account asked"));
        }
        if self.answers(tx, who).await? {
            return Err(denied(
                "nobody approves for a machine that they own, or owned within the day before",
            ));
        }
        Ok(())
    }

    /// Checks that an account is old enough, and neither made nor ever changed by this side.
    pub(super) async fn check_account(&self, tx: &mut Tx, who: &IdentityRow) -> Result<()> {
        if !self.is_old(who.created_at) {
            return Err(young());
        }
        self.check_made(tx, &who.created_by, &who.changers).await
    }

    /// Checks the same of what made and changed something.
    pub(super) async fn check_made(&self, tx: &mut Tx, by: &str, changers: &str) -> Result<()> {
        for actor in std::iter::once(by).chain(changers::all(changers)) {
            if self.is_theirs(tx, actor).await? {
                return Err(theirs());
            }
        }
        Ok(())
    }

    /// Checks that one of the reasons why somebody belongs to who approves counts.
    pub(super) async fn check_belongings(
        &self,
        tx: &mut Tx,
        mut belongings: Vec<Belonging>,
    ) -> Result<()> {
        belongings.retain(|one| self.is_old(one.since));
        if belongings.is_empty() {
            return Err(young());
        }
        for Belonging { by, .. } in belongings {
            let mut counts = true;
            for actor in &by {
                counts = counts && !self.is_theirs(tx, actor).await?;
            }
            if counts {
                return Ok(());
            }
        }
        Err(theirs())
    }

    /// Checks the factor that somebody else proved.
    pub(in crate::engines) async fn check_factor(
        &self,
        tx: &mut Tx,
        proven: &ProvenFactor,
    ) -> Result<FactorId> {
        if !self.is_old(proven.enrolled_at) {
            return Err(young());
        }
        let row = &proven.factor.row;
        let vouched_by = row.vouched_by.map(|id| id.to_string());
        for actor in [&row.created_by, &row.changed_by].into_iter().chain(&vouched_by) {
            if self.is_theirs(tx, actor).await? {
                return Err(theirs());
            }
        }
        Ok(proven.id())
    }

    /// Checks the account and the factor of who wants it themselves, where nobody approves it: both
    /// old enough, and the factor vouched for by another.
    pub(super) async fn check_own(&self, tx: &mut Tx, proven: &ProvenFactor) -> Result<()> {
        if !self.is_old(self.who.created_at) || !self.is_old(proven.enrolled_at) {
            return Err(denied(
                "in an emergency account and factor have to be a day older than the request",
            ));
        }
        if let Some(id) = proven.factor.row.vouched_by
            && self.is_theirs(tx, &id.to_string()).await?
        {
            return Err(denied("the factor goes back to an invitation of your own making"));
        }
        Ok(())
    }

    /// Tells whether somebody, by any account, answers for the machine that asks, or did within the
    /// day before it asked.
    async fn answers(&self, tx: &mut Tx, who: &IdentityRow) -> Result<bool> {
        let row = self.who;
        if !row.kind.is_machine() {
            return Ok(false);
        }
        let day_before = self.since.0.saturating_sub(age_ms());
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

    /// Tells whether something was done by this side, or by an account that it made, over however
    /// many accounts: one makes the next.
    async fn is_theirs(&self, tx: &mut Tx, actor: &str) -> Result<bool> {
        if actor == changers::MORE {
            return Ok(true);
        }
        // A worker's name is no id.
        let Ok(mut id) = actor.parse::<IdentityId>() else { return Ok(false) };
        for _ in 0..CHAIN {
            let did = identity(tx, id).await?.row;
            if self.is_side(tx, &did).await? {
                return Ok(true);
            }
            match did.created_by.parse::<IdentityId>() {
                Ok(by) if by != id => id = by,
                // Who came with the vault made themselves.
                Ok(_) | Err(_) => return Ok(false),
            }
        }
        // Nobody knows what it goes back to.
        Ok(true)
    }

    async fn is_side(&self, tx: &mut Tx, who: &IdentityRow) -> Result<bool> {
        Ok(same_human(who, self.who) || self.answers(tx, who).await?)
    }
}

pub(super) fn young() -> crate::error::Error {
    denied(
        "an approval counts only where account, factor, membership and role are a day older than \
         what it approves",
    )
}

fn theirs() -> crate::error::Error {
    denied(
        "account, factor, membership or role were made or changed by who asks, or by an account \
         that goes back to them",
    )
}

fn age_ms() -> i64 {
    i64::try_from(AGE.as_millis()).unwrap_or(i64::MAX)
}
