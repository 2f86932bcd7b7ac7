//! One ceremony with all that its rules stand on, read in the commit that changes it.

use super::About;
use super::unknown;
use crate::engines::elevations::{Side, administrator, denied, same_human};
use crate::error::{Error, Result};
use crate::store::ceremonies::CeremonyRow;
use crate::store::identities::IdentityRow;
use crate::store::{Tx, Versioned};
use crate::types::{CeremonyId, CeremonyState, RequestContext, UnixMillis};
use crate::vault::{Vote, is_active};

/// A ceremony, who asked, and who voted.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) found: Versioned<CeremonyRow>,
    pub(super) about: About,
    pub(super) votes: Vec<Vote>,
    pub(super) requester: IdentityRow,
    dev: bool,
}

impl Case {
    /// Reads one.
    pub(super) async fn find(tx: &mut Tx, id: CeremonyId, dev: bool) -> Result<Self> {
        let found = tx.lookup::<CeremonyRow>(&id).await?.ok_or_else(unknown)?;
        Self::load(tx, found, dev).await
    }

    /// Reads what belongs to a row.
    pub(super) async fn load(
        tx: &mut Tx,
        found: Versioned<CeremonyRow>,
        dev: bool,
    ) -> Result<Self> {
        let requester = tx.lookup::<IdentityRow>(&found.row.identity).await?;
        let requester = requester.ok_or_else(|| Error::internal("a ceremony of nobody"))?.row;
        let about = About::read(&found.row.about)?;
        let votes = Vote::read_all(&found.row.votes)?;
        Ok(Self { found, about, votes, requester, dev })
    }

    /// Checks that it waits still.
    pub(super) fn check_open(&self, now: UnixMillis) -> Result<()> {
        let row = &self.found.row;
        if row.state != CeremonyState::Open {
            return Err(Error::precondition(format!("the ceremony is {}", row.state)));
        }
        if row.expires_at <= now {
            return Err(Error::precondition("the ceremony waited too long; it is asked for anew"));
        }
        Ok(())
    }

    /// Checks that who asked is the administrator who asked then, in a vault that was not restored
    /// since.
    pub(super) async fn check_requester(
        &self,
        tx: &mut Tx,
        restore_epoch: i64,
        now: UnixMillis,
    ) -> Result<()> {
        let row = &self.found.row;
        if row.restore_epoch != restore_epoch {
            return Err(Error::precondition("the vault was restored since this was asked for"));
        }
        let who = administrator(tx, &row.identity.to_string()).await?;
        let same = who.row.revocation_epoch == row.revocation_epoch;
        if !is_active(&who.row, now) || !same || !who.administers() {
            return Err(Error::precondition(
                "who asked was suspended since, or administers no more; ask anew",
            ));
        }
        Ok(())
    }

    /// Checks that somebody may approve: an administrator of really another side, on both sides.
    pub(super) async fn check_approver(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        now: UnixMillis,
    ) -> Result<()> {
        let who = administrator(tx, &who.id.to_string()).await?;
        let approver = who.row.clone();
        self.side().check_administrator(tx, who, now).await?;
        // Nor does anybody approve what they asked for by an account, or by a login and a factor, that
        // they made for somebody else.
        let back = Side { who: &approver, ..self.side() };
        let asks = administrator(tx, &self.requester.id.to_string()).await?;
        back.check_administrator(tx, asks, now).await?;
        back.check_factor_still(tx, &self.found.row.factor).await
    }

    /// Checks that somebody may deny: any administrator of another side, however new.
    pub(super) async fn check_denier(
        &self,
        tx: &mut Tx,
        who: &IdentityRow,
        now: UnixMillis,
    ) -> Result<()> {
        self.side().check_person(tx, who, now).await?;
        if !administrator(tx, &who.id.to_string()).await?.administers() {
            return Err(denied("this is denied by administrators"));
        }
        Ok(())
    }

    /// Checks that nobody of the same human voted before.
    pub(super) async fn check_first(&self, tx: &mut Tx, who: &IdentityRow) -> Result<()> {
        for vote in &self.votes {
            if same_human(&administrator(tx, &vote.by).await?.row, who) {
                return Err(denied("you voted on this already; each person counts once"));
            }
        }
        Ok(())
    }

    /// Who asks.
    pub(super) fn side(&self) -> Side<'_> {
        Side { who: &self.requester, since: self.found.row.requested_at, dev: self.dev }
    }

    /// Lists who approved it and counts at this moment, each looked at once more.
    pub(super) async fn approvers(&self, tx: &mut Tx, now: UnixMillis) -> Result<Vec<IdentityRow>> {
        let mut counts: Vec<(IdentityRow, &Vote)> = Vec::new();
        for vote in self.votes.iter().filter(|vote| vote.approves) {
            let who = administrator(tx, &vote.by).await?.row;
            let again = counts.iter().any(|(one, _)| same_human(one, &who));
            if again || vote.epoch != who.revocation_epoch {
                continue;
            }
            match self.check_vote(tx, (vote, &who), &counts, now).await {
                Ok(()) => counts.push((who, vote)),
                Err(Error::Denied(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(counts.into_iter().map(|(who, _)| who).collect())
    }

    async fn check_vote(
        &self,
        tx: &mut Tx,
        (vote, who): (&Vote, &IdentityRow),
        counted: &[(IdentityRow, &Vote)],
        now: UnixMillis,
    ) -> Result<()> {
        self.check_approver(tx, who, now).await?;
        self.side().check_factor_still(tx, factor_of(vote)).await?;
        // Of two of whom one made the other, or its factor, the first counts.
        for (other, theirs) in counted {
            self.check_apart(tx, (other, who, vote), now).await?;
            self.check_apart(tx, (who, other, theirs), now).await?;
        }
        Ok(())
    }

    /// Checks that one who approved, with their factor, is of another side than one more.
    async fn check_apart(
        &self,
        tx: &mut Tx,
        (one, other, vote): (&IdentityRow, &IdentityRow, &Vote),
        now: UnixMillis,
    ) -> Result<()> {
        let side = Side { who: one, ..self.side() };
        let other = administrator(tx, &other.id.to_string()).await?;
        side.check_administrator(tx, other, now).await?;
        side.check_factor_still(tx, factor_of(vote)).await
    }

    /// How many administrators are missing.
    pub(super) async fn missing(&self, tx: &mut Tx, now: UnixMillis) -> Result<i64> {
        let have = i64::try_from(self.approvers(tx, now).await?.len()).map_err(Error::internal)?;
        Ok(self.found.row.needed.saturating_sub(have.saturating_add(1)).max(0))
    }

    /// Writes its votes, and its state: what is over stays as it is.
    pub(super) async fn write(
        &mut self,
        ctx: &RequestContext,
        tx: &mut Tx,
        state: CeremonyState,
    ) -> Result<()> {
        if self.found.row.state != CeremonyState::Open {
            return Err(Error::internal("a ceremony that is over is changed"));
        }
        let row = CeremonyRow {
            state,
            votes: serde_json::to_string(&self.votes).map_err(Error::internal)?,
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..self.found.row.clone()
        };
        self.found = tx.update(self.found.version, &row).await?;
        Ok(())
    }
}

fn factor_of(vote: &Vote) -> &str {
    vote.factor.as_deref().unwrap_or_default()
}
