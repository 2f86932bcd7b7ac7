//! Administrators who decide together: each of another side than who wants something.

use super::eligible::{Belonging, denied, identity, in_group};
use super::side::Side;
use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::factors::FactorRow;
use crate::store::identities::IdentityRow;
use crate::types::{FactorState, IdentityId, UnixMillis};
use crate::vault::{ADMINISTRATORS, ProvenFactor};

/// Somebody, and why they administer; for no reason where they do not.
pub(in crate::engines) struct Administrator {
    pub(in crate::engines) row: IdentityRow,
    by: Vec<Belonging>,
}

impl Administrator {
    /// Tells whether they administer.
    pub(in crate::engines) const fn administers(&self) -> bool {
        !self.by.is_empty()
    }
}

/// Reads somebody who should administer.
pub(in crate::engines) async fn administrator(tx: &mut Tx, id: &str) -> Result<Administrator> {
    let id: IdentityId = id.parse().map_err(Error::internal)?;
    let row = identity(tx, id).await?.row;
    let by = in_group(tx, ADMINISTRATORS, id).await?;
    Ok(Administrator { row, by })
}

impl Side<'_> {
    /// Checks that somebody administers, and is of another side, with all that makes them so.
    ///
    /// # Errors
    /// [`Error::Denied`] with the rule that is against it.
    pub(in crate::engines) async fn check_administrator(
        &self,
        tx: &mut Tx,
        who: Administrator,
        now: UnixMillis,
    ) -> Result<()> {
        self.check_person(tx, &who.row, now).await?;
        if !who.administers() {
            return Err(denied("administrators alone ask for this, confirm it and approve it"));
        }
        self.check_account(tx, &who.row).await?;
        self.check_belongings(tx, who.by).await
    }

    /// Checks a factor that somebody else proved before, as [`Side::check_factor`] does when it is
    /// proven.
    ///
    /// # Errors
    /// As [`Side::check_administrator`].
    pub(in crate::engines) async fn check_factor_still(
        &self,
        tx: &mut Tx,
        factor: &str,
    ) -> Result<()> {
        let gone = || denied("the factor that this was asked for or approved with is gone");
        let factor = tx.lookup::<FactorRow>(&factor).await?.ok_or_else(gone)?;
        let stands = factor.row.state == FactorState::Active;
        let enrolled_at = factor.row.enrolled_at.filter(|_| stands).ok_or_else(gone)?;
        // When it was proven is what was looked at then.
        let proven = ProvenFactor { proven_at: enrolled_at, enrolled_at, factor };
        self.check_factor(tx, &proven).await.map(drop)
    }
}
