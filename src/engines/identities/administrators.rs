//! The built-in group of administrators never runs empty.

use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::Versioned;
use crate::store::identities::{self, GroupRow, IdentityRow};
use crate::types::{IdentityId, Kind, UnixMillis};
use crate::vault::{ADMINISTRATORS, is_active};

/// Members looked at in one read.
const MEMBERS: i64 = 1_000;

/// Finds the built-in group.
///
/// # Errors
/// [`Error::Internal`] when it is not there: founding makes it.
pub(super) async fn administrators(tx: &mut Tx) -> Result<Versioned<GroupRow>> {
    let group = identities::group_named(tx, &ADMINISTRATORS.parse()?).await?;
    group.ok_or_else(|| Error::internal("the built-in group is missing"))
}

/// Checks that an active administrator is left when one identity no longer is.
///
/// Runs in the transaction of the change, which excludes every other change of authority.
///
/// # Errors
/// [`Error::Precondition`] when it is the last.
pub(in crate::engines) async fn keep_an_administrator(
    tx: &mut Tx,
    without: IdentityId,
    now: UnixMillis,
) -> Result<()> {
    let group = administrators(tx).await?.row.id;
    let (mut is_one, mut others, mut after) = (false, false, String::new());
    while !(is_one && others) {
        let members = identities::members_after(tx, group, &after, MEMBERS).await?;
        let Some(last) = members.last().map(|member| member.row.identity_id) else { break };
        for member in members {
            let id = member.row.identity_id;
            let found = tx.lookup::<IdentityRow>(&id).await?;
            let administers =
                found.is_some_and(|it| it.row.kind == Kind::Human && is_active(&it.row, now));
            is_one |= administers && id == without;
            others |= administers && id != without;
        }
        let last = tx.lookup::<IdentityRow>(&last).await?;
        after = last.map(|it| it.row.name.to_string()).unwrap_or_default();
    }
    if is_one && !others {
        return Err(Error::precondition(
            "this is the last active administrator; make another one first",
        ));
    }
    Ok(())
}
