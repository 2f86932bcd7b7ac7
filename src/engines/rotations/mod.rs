//! What rotations have in common: how far they are, and when what rotates by itself does next.

mod retire;
mod settle;
mod versions;

pub use retire::Retiring;
pub use settle::{SettleKey, Settling};
pub use versions::NextVersion;
pub(super) use versions::{Kept, Versions};

use super::identities::Names;
use super::keys::rotates_at;
use crate::error::{Error, Result};
use crate::store::keys::HsmPurpose;
use crate::store::rotations::{RotationRow, ScheduleRow};
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{RequestContext, Rotates, RotationState, UnixMillis};

/// A rotation as it is shown.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Its row.
    pub row: RotationRow,
    /// The name of who asked for it.
    pub started_by: String,
    /// How much is left under older versions.
    pub left: i64,
    /// How much was moved a second since it began, and how many seconds are left at that; none where
    /// nothing tells.
    pub pace: Option<Pace>,
}

/// How fast a rotation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Moved a second.
    pub per_s: i64,
    /// Seconds that are left.
    pub left_s: i64,
}

impl Progress {
    pub(super) async fn of(
        tx: &mut Tx,
        names: &mut Names,
        row: RotationRow,
        left: i64,
        now: UnixMillis,
    ) -> Result<Self> {
        let started_by = names.actor(tx, &row.started_by).await?;
        let took_ms = now.0.saturating_sub(row.started_at.0);
        let moving = row.state == RotationState::Moving;
        let pace =
            moving.then(|| Pace::of(row.total.saturating_sub(left), left, took_ms)).flatten();
        Ok(Self { row, started_by, left, pace })
    }
}

impl Pace {
    fn of(moved: i64, left: i64, took_ms: i64) -> Option<Self> {
        let (moved, took_ms) = (moved.max(0), took_ms.max(1));
        let left_ms = left.checked_mul(took_ms)?.checked_div(moved)?;
        let per_s = moved.checked_mul(1_000)?.checked_div(took_ms)?;
        Some(Self { per_s, left_s: left_ms.checked_add(999)?.checked_div(1_000)? })
    }
}

/// When something rotates by itself, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How often, in seconds.
    pub every_s: i64,
    /// When it does next.
    pub next_at: UnixMillis,
}

impl Schedule {
    /// Reads the schedule of a subject; none where it does not rotate by itself.
    pub(super) async fn read(tx: &mut Tx, subject: Rotates) -> Result<Option<Self>> {
        let row = tx.lookup::<ScheduleRow>(&subject).await?.map(|found| found.row);
        Ok(row.and_then(|row| Some(Self { every_s: row.every_s?, next_at: row.next_at? })))
    }

    /// Says how often something rotates by itself from now on; none for never.
    pub(super) async fn put(
        ctx: &RequestContext,
        tx: &mut Tx,
        subject: Rotates,
        every_s: Option<i64>,
    ) -> Result<Option<Self>> {
        let next_at = rotates_at(ctx.now, every_s)?;
        let (changed_at, changed_by) = (ctx.now, ctx.actor());
        let row = ScheduleRow { id: subject, every_s, next_at, changed_at, changed_by };
        match tx.lookup::<ScheduleRow>(&subject).await? {
            Some(found) => drop(tx.change(&found, &row).await?),
            None => drop(tx.insert(&row).await.map_err(raced)?),
        }
        Ok(every_s.zip(next_at).map(|(every_s, next_at)| Self { every_s, next_at }))
    }

    /// Takes notice that a subject was rotated, by whomever: it does so next a whole time later.
    pub(super) async fn rotated(ctx: &RequestContext, tx: &mut Tx, subject: Rotates) -> Result<()> {
        let Some(found) = tx.lookup::<ScheduleRow>(&subject).await? else { return Ok(()) };
        let next_at = rotates_at(ctx.now, found.row.every_s)?;
        tx.change(&found, &ScheduleRow { next_at, ..found.row.clone() }).await?;
        Ok(())
    }
}

/// Who lost the race for a row hears what who lost the one for its version does.
pub(super) fn raced(error: StoreError) -> Error {
    if error == StoreError::Taken {
        return Error::Conflict("somebody else does the same at this moment".into());
    }
    error.into()
}

/// A rotation in its next state.
pub(super) fn next(ctx: &RequestContext, row: &RotationRow, state: RotationState) -> RotationRow {
    RotationRow { state, changed_at: ctx.now, changed_by: ctx.actor(), ..row.clone() }
}

/// What a key in the HSM is for that rotates under a subject; none of an identity's, which is not
/// there.
pub(super) const fn purpose(subject: Rotates) -> Option<HsmPurpose> {
    match subject {
        Rotates::Root => Some(HsmPurpose::Root),
        Rotates::RootCa => Some(HsmPurpose::CaRoot),
        Rotates::Issuing => Some(HsmPurpose::CaIssuing),
        Rotates::Login => Some(HsmPurpose::CaLogin),
        Rotates::Identity(_) => None,
    }
}

/// Says that a rotation is not where it was when it was read.
pub(super) fn went_on() -> Error {
    Error::Conflict("the rotation went on meanwhile".into())
}

/// Finds a rotation in one of some states.
pub(super) async fn find(
    tx: &mut Tx,
    id: &str,
    states: &[RotationState],
) -> Result<Versioned<RotationRow>> {
    let found = tx.lookup::<RotationRow>(&id).await?;
    found.filter(|found| states.contains(&found.row.state)).ok_or_else(went_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_what_was_moved_since_the_beginning_and_nothing_moved_tells_none() {
        for (moved, left, took_ms, told) in [
            (0, 10, 1_000, None),
            (-5, 10, 1_000, None),
            (500, 500, 1_000, Some((500, 1))),
            (50_000, 50_000, 7_000, Some((7_142, 7))),
            (1, 3, 0, Some((1_000, 1))),
            (10, 0, 1_000, Some((10, 0))),
            (1, i64::MAX, 2, None),
        ] {
            let told = told.map(|(per_s, left_s)| Pace { per_s, left_s });
            assert_eq!(Pace::of(moved, left, took_ms), told, "{moved} {left} {took_ms}");
        }
    }
}
