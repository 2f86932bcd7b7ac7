//! Whether there are administrators enough to hold a ceremony: to be known before one is needed, because
//! a vault without them accepts no restored store.

use crate::engines::elevations::{Side, administrator};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow};
use crate::store::{Tx, factors, pki};
use crate::types::{FactorState, IdentityId, UnixMillis};
use crate::vault::{ADMINISTRATORS, is_active};

/// Administrators that are looked at, the first by name.
const LOOKED_AT: i64 = 12;

/// An administrator with a login in force and a factor.
#[derive(Debug)]
struct Ready {
    row: IdentityRow,
    /// Ids of factors.
    factors: Vec<String>,
}

impl Ready {
    async fn find(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<Option<Self>> {
        let Some(found) = tx.lookup::<IdentityRow>(&id).await? else { return Ok(None) };
        let row = found.row;
        let login = pki::lasting_login(tx, id, row.revocation_epoch).await?;
        let logs_in = login.is_some_and(|login| login.row.expires_at > now);
        let factors = factors::standing(tx, id).await?.into_iter();
        let factors = factors.filter(|factor| factor.row.state == FactorState::Active);
        let factors: Vec<_> = factors.map(|factor| factor.row.id.to_string()).collect();
        let is_ready = is_active(&row, now) && logs_in && !factors.is_empty();
        Ok(is_ready.then_some(Self { row, factors }))
    }

    /// Tells whether another counts in what this one asks for, or approves as well.
    async fn counts(&self, tx: &mut Tx, other: &Self, now: UnixMillis) -> Result<bool> {
        let side = Side { who: &self.row, since: now, dev: false };
        let who = administrator(tx, &other.row.id.to_string()).await?;
        if !is_allowed(side.check_administrator(tx, who, now).await)? {
            return Ok(false);
        }
        for factor in &other.factors {
            if is_allowed(side.check_factor_still(tx, factor).await)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Tells how many administrators could hold a ceremony together that one of them asks for at a moment,
/// in a vault that is not for development; not more than are needed.
///
/// # Errors
/// What the store answers; [`Error::Tampered`] where a row that it needs is not what was sealed.
pub async fn administrators_apart(tx: &mut Tx, needed: usize, now: UnixMillis) -> Result<usize> {
    let Some(group) = identities::group_named(tx, &ADMINISTRATORS.parse()?).await? else {
        return Ok(0);
    };
    let mut ready = Vec::new();
    for member in identities::humans_of(tx, group.row.id, now, LOOKED_AT).await? {
        ready.extend(Ready::find(tx, member.row.identity_id, now).await?);
    }
    let mut most = 0;
    for first in &ready {
        let mut together = vec![first];
        for next in &ready {
            if together.len() < needed && are_apart(tx, &together, next, now).await? {
                together.push(next);
            }
        }
        most = most.max(together.len());
        if most >= needed {
            break;
        }
    }
    Ok(most)
}

async fn are_apart(tx: &mut Tx, all: &[&Ready], next: &Ready, now: UnixMillis) -> Result<bool> {
    for one in all {
        if !one.counts(tx, next, now).await? || !next.counts(tx, one, now).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_allowed(checked: Result<()>) -> Result<bool> {
    match checked {
        Ok(()) => Ok(true),
        Err(Error::Denied(_)) => Ok(false),
        Err(other) => Err(other),
    }
}
