//! The built-in group of administrators never runs empty.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::identities::{self, GroupRow, IdentityRow};
use crate::store::pki;
use crate::store::{Tx, Versioned, intact};
use crate::types::{GroupId, IdentityId, Kind, UnixMillis};
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
/// Runs in the transaction of the change, which excludes every other change of authority. Whoever
/// is no administrator is looked at alone; a stored row that is not what was sealed makes nobody
/// one, and keeps nobody else from being contained.
///
/// # Errors
/// [`Error::Precondition`] when it is the last.
pub(in crate::engines) async fn keep_an_administrator(
    tx: &mut Tx,
    without: IdentityId,
    now: UnixMillis,
) -> Result<()> {
    let found = tx.lookup::<IdentityRow>(&without).await?;
    if !found.is_some_and(|found| administers(&found.row, now)) {
        return Ok(());
    }
    let group = administrators(tx).await?.row.id;
    if !is_member(tx, group, without).await? {
        return Ok(());
    }
    let mut after = String::new();
    loop {
        let members = identities::said_members(tx, group, &after, MEMBERS).await?;
        let Some(last) = members.last() else { break };
        last.clone_into(&mut after);
        for member in members {
            // A forged row may hold what is no id at all.
            let Ok(id) = member.parse::<IdentityId>() else { continue };
            if id != without && stays(tx, group, id, now).await? {
                return Ok(());
            }
        }
    }
    Err(Error::precondition(
        "this is the last active administrator who can log in; make another one first, with a \
         login certificate",
    ))
}

/// Tells whether an identity is in the built-in group.
///
/// # Errors
/// What the store answers; a row that is not what was sealed among it.
pub(super) async fn is_administrator(tx: &mut Tx, id: IdentityId) -> Result<bool> {
    let group = administrators(tx).await?.row.id;
    let member = identities::member(tx, group, id).await?;
    Ok(member.is_some_and(|member| member.row.active))
}

async fn is_member(tx: &mut Tx, group: GroupId, id: IdentityId) -> Result<bool> {
    let member = intact(identities::member(tx, group, id).await)?;
    Ok(member.is_some_and(|member| member.row.active))
}

fn administers(row: &IdentityRow, now: UnixMillis) -> bool {
    row.kind == Kind::Human && is_active(row, now)
}

/// Tells whether a member can go on administering: one without a certificate in force would need
/// another administrator to get one.
async fn stays(tx: &mut Tx, group: GroupId, id: IdentityId, now: UnixMillis) -> Result<bool> {
    let Some(found) = tx.lookup_intact::<IdentityRow>(&id).await? else { return Ok(false) };
    let row = found.row;
    if !administers(&row, now.plus(MEMBER_LASTS)?) || !is_member(tx, group, id).await? {
        return Ok(false);
    }
    let login = intact(pki::lasting_login(tx, id, row.revocation_epoch).await)?;
    let until = now.plus(LOGIN_LASTS)?;
    Ok(login.is_some_and(|login| login.row.expires_at > until))
}
