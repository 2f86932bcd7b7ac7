//! The built-in group of administrators never runs empty.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::Versioned;
use crate::store::identities::{self, GroupRow, IdentityRow};
use crate::store::pki;
use crate::types::{IdentityId, Kind, UnixMillis};
use crate::vault::{ADMINISTRATORS, is_active};

/// How long another administrator has to stay one.
const MEMBER_LASTS: Duration = Duration::from_hours(24);
/// How long its login certificate has to last, for it to get the next one in time.
const LOGIN_LASTS: Duration = Duration::from_mins(15);
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

/// Checks that an administrator who can log in is left when one identity no longer is.
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
            let Some(found) = tx.lookup::<IdentityRow>(&member.row.identity_id).await? else {
                continue;
            };
            if found.row.id == without {
                is_one = administers(&found.row, now);
            } else if !others {
                others = stays(tx, &found.row, now).await?;
            }
        }
        let last = tx.lookup::<IdentityRow>(&last).await?;
        after = last.map(|it| it.row.name.to_string()).unwrap_or_default();
    }
    if is_one && !others {
        return Err(Error::precondition(
            "this is the last active administrator who can log in; make another one first, with a \
             login certificate",
        ));
    }
    Ok(())
}

fn administers(row: &IdentityRow, now: UnixMillis) -> bool {
    row.kind == Kind::Human && is_active(row, now)
}

/// Tells whether a member can go on administering: one without a certificate in force would need
/// another administrator to get one.
async fn stays(tx: &mut Tx, row: &IdentityRow, now: UnixMillis) -> Result<bool> {
    if !administers(row, now.plus(MEMBER_LASTS)?) {
        return Ok(false);
    }
    let login = pki::lasting_login(tx, row.id, row.revocation_epoch).await?;
    let until = now.plus(LOGIN_LASTS)?;
    Ok(login.is_some_and(|login| login.row.expires_at > until))
}
