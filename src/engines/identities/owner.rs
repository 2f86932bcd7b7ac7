//! Who answers for a machine, and who did until lately.

use std::time::Duration;

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::{Tx, identities};
use crate::types::{Owner, OwnerName, UnixMillis};
use crate::vault::{Answerable, Decision, View};

/// How long a former owner is remembered on the row: it must not approve for what it handed over.
const REMEMBERED: Duration = Duration::from_hours(24);
/// Former owners remembered at most.
const MOST: usize = 16;

/// Members at most of a group that answers for machines: all are looked at for each of them.
pub(in crate::engines) const TEAM: i64 = 256;

/// Finds who is to answer for a machine.
pub(super) async fn find_owner(view: &View, name: &OwnerName) -> Result<Option<Answerable>> {
    let name = name.clone();
    view.read(move |tx| async move { Answerable::named(tx, &name).await }.boxed()).await
}

/// Takes who is to answer for a machine, as it was decided on. Only an administrator, who may list
/// them, is told whether there is somebody of that name.
pub(super) async fn decided_owner(
    view: &View,
    decision: &Decision,
    name: &OwnerName,
) -> Result<Answerable> {
    let found = find_owner(view, name).await?;
    if found.is_none() && view.subject()?.is_administrator() {
        return Err(Error::not_found("there is no owner of that name"));
    }
    let owner = found
        .filter(|owner| owner.may_own(view.now()))
        .ok_or_else(|| Error::precondition("an owner is an active human, or a group with one"))?;
    let rows = &decision.resource()?.rows;
    if !owner.fence().is_some_and(|row| rows.contains(&row)) {
        // Registered or changed since this was decided: the fence does not hold it.
        return Err(Error::Conflict("the owner changed; retry".into()));
    }
    Ok(owner)
}

/// Checks that a group which is to answer for a machine is no larger than one may be; in the
/// commit, which excludes every other change of the group.
///
/// # Errors
/// [`Error::Exhausted`] when it is.
pub(in crate::engines) async fn check_team(tx: &mut Tx, owner: Owner) -> Result<()> {
    if let Owner::Group(group) = owner
        && identities::count_members(tx, group, TEAM.saturating_add(1)).await? > TEAM
    {
        return Err(team_full());
    }
    Ok(())
}

/// Says that a group which answers for machines is full.
pub(in crate::engines) fn team_full() -> Error {
    Error::Exhausted(format!("a group that owns machines has at most {TEAM} members").into())
}

/// Says that nobody answers for a machine.
pub(in crate::engines) fn orphaned() -> Error {
    Error::precondition(
        "an identity without an active owner receives nothing new; transfer it first",
    )
}

/// Somebody who answered for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Former {
    /// Who.
    pub owner: Owner,
    /// Until when.
    pub until: UnixMillis,
}

/// As the row holds it, in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    owner: String,
    until_ms: i64,
}

impl Former {
    /// Reads the former owners of a row, the latest last.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub(in crate::engines) fn read(json: &str) -> Result<Vec<Self>> {
        let stored: Vec<Stored> = serde_json::from_str(json).map_err(Error::internal)?;
        let read = |one: Stored| {
            let owner = one.owner.parse().map_err(Error::internal)?;
            Ok(Self { owner, until: UnixMillis(one.until_ms) })
        };
        stored.into_iter().map(read).collect()
    }

    /// Writes them anew when an owner leaves, each once, without those who left long ago.
    ///
    /// # Errors
    /// [`Error::Exhausted`] where more changed hands in a day than is remembered.
    pub(super) fn handed_over(json: &str, owner: Owner, now: UnixMillis) -> Result<String> {
        let mut all = Self::read(json)?;
        all.retain(|one| one.owner != owner && now.since(one.until) < REMEMBERED);
        all.push(Self { owner, until: now });
        if all.len() > MOST {
            return Err(Error::Exhausted(
                "this identity changed hands too often within a day; try again later".into(),
            ));
        }
        let write = |one: &Self| Stored { owner: one.owner.to_string(), until_ms: one.until.0 };
        let stored: Vec<_> = all.iter().map(write).collect();
        serde_json::to_string(&stored).map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{GroupId, Id, IdentityId};

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_former_owner_is_remembered_for_a_day_and_not_longer() {
        let one = Owner::Identity(IdentityId(Id::from_bytes([1; 16])));
        let other = Owner::Group(GroupId(Id::from_bytes([2; 16])));
        let first = Former::handed_over("[]", one, UnixMillis(0)).unwrap();
        let second = Former::handed_over(&first, other, UnixMillis(23 * HOUR)).unwrap();
        let both = [(one, 0), (other, 23 * HOUR)];
        let both = both.map(|(owner, until)| Former { owner, until: UnixMillis(until) });
        assert_eq!(Former::read(&second), Ok(both.to_vec()));
        let third = Former::handed_over(&second, one, UnixMillis(24 * HOUR)).unwrap();
        assert_eq!(Former::read(&third).unwrap().first(), Some(&both[1]));
        let mut often = "[]".to_owned();
        for i in 0..64 {
            let to_and_fro = if i % 2 == 0 { one } else { other };
            often = Former::handed_over(&often, to_and_fro, UnixMillis(i)).unwrap();
        }
        let latest = [(one, 62), (other, 63)];
        let latest = latest.map(|(owner, until)| Former { owner, until: UnixMillis(until) });
        assert_eq!(Former::read(&often), Ok(latest.to_vec()), "each once, and the latest counts");
        let another = |i: u8| Owner::Identity(IdentityId(Id::from_bytes([i; 16])));
        for i in 3..17 {
            often = Former::handed_over(&often, another(i), UnixMillis(64)).unwrap();
        }
        assert!(Former::handed_over(&often, another(17), UnixMillis(64)).is_err());
    }
}
