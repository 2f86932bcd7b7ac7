//! The recovery of an administrator, as its row has it: when it takes effect, and whether it still
//! can. Asking for one, cancelling it and what it yields are the engine's.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::recovery::RecoveryRow;
use crate::types::{CredentialId, Id, IdentityName, RecoveryState, UnixMillis};

/// How long every administrator has to cancel it before it takes effect.
pub const RECOVERY_WAIT: Duration = Duration::from_hours(1);
/// How long after that it can be made to take effect.
const LASTS: Duration = Duration::from_hours(24);
/// How long administrators are told of one that took effect.
const TOLD: Duration = Duration::from_hours(7 * 24);

/// A recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Its id.
    pub id: Id,
    /// Whose it is.
    pub name: IdentityName,
    /// SHA-256 of the new login's public key.
    pub key_hash: Vec<u8>,
    /// Where it is.
    pub state: RecoveryState,
    /// When it was asked for.
    pub requested_at: UnixMillis,
    /// From when on it can take effect.
    pub due_at: UnixMillis,
    /// Until when.
    pub until: UnixMillis,
    /// The identity's revocation epoch when it was asked for.
    pub revocation_epoch: i64,
    /// When it was last changed.
    pub changed_at: UnixMillis,
    /// The login that it yielded.
    pub credential: Option<CredentialId>,
    /// The vault's restore epoch then.
    pub restore_epoch: i64,
}

impl Recovery {
    /// Reads the row; none where nobody asked for one yet.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn of(row: &RecoveryRow) -> Result<Option<Self>> {
        let (id, name) = match (row.state, row.recovery, &row.name) {
            (RecoveryState::Never, ..) => return Ok(None),
            (_, Some(id), Some(name)) => (id, name.clone()),
            (_, _, _) => return Err(Error::internal("a recovery of nobody")),
        };
        let due_at = row.requested_at.plus(RECOVERY_WAIT)?;
        Ok(Some(Self {
            id,
            name,
            key_hash: row.key_hash.clone(),
            state: row.state,
            requested_at: row.requested_at,
            due_at,
            until: due_at.plus(LASTS)?,
            revocation_epoch: row.revocation_epoch,
            changed_at: row.changed_at,
            credential: row.credential,
            restore_epoch: row.restore_epoch,
        }))
    }

    /// Tells whether it waits to take effect, in a vault of which so many restores were accepted.
    #[must_use]
    pub fn is_pending(&self, now: UnixMillis, restore_epoch: i64) -> bool {
        self.state == RecoveryState::Pending
            && now < self.until
            && self.restore_epoch == restore_epoch
    }

    /// Tells whether administrators are told of it.
    #[must_use]
    pub fn is_told(&self, now: UnixMillis, restore_epoch: i64) -> bool {
        match self.state {
            RecoveryState::Never | RecoveryState::Cancelled => false,
            RecoveryState::Pending => self.is_pending(now, restore_epoch),
            RecoveryState::Done => now.since(self.changed_at) < TOLD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn row(state: RecoveryState) -> RecoveryRow {
        RecoveryRow {
            state,
            recovery: Some(Id::from_bytes([1; 16])),
            name: Some("carol".parse().unwrap()),
            restore_epoch: 3,
            ..RecoveryRow::never(UnixMillis(HOUR), "init".into())
        }
    }

    #[test]
    fn it_can_take_effect_for_a_day_after_its_hour_and_not_after_a_restore() {
        let pending = Recovery::of(&row(RecoveryState::Pending)).unwrap().unwrap();
        assert_eq!(pending.due_at, UnixMillis(2 * HOUR));
        assert_eq!(pending.until, UnixMillis(26 * HOUR));
        assert!(pending.is_pending(UnixMillis(26 * HOUR - 1), 3));
        assert!(!pending.is_pending(UnixMillis(26 * HOUR), 3));
        assert!(!pending.is_pending(UnixMillis(2 * HOUR), 4));
        for state in [RecoveryState::Done, RecoveryState::Cancelled] {
            let over = Recovery::of(&row(state)).unwrap().unwrap();
            assert!(!over.is_pending(UnixMillis(2 * HOUR), 3), "{state}");
        }
        assert_eq!(Recovery::of(&row(RecoveryState::Never)), Ok(None));
    }

    #[test]
    fn administrators_are_told_while_it_waits_and_for_a_week_after_it_took_effect() {
        let told =
            |state, at| Recovery::of(&row(state)).unwrap().unwrap().is_told(UnixMillis(at), 3);
        assert!(told(RecoveryState::Pending, HOUR));
        assert!(!told(RecoveryState::Pending, 26 * HOUR));
        assert!(!told(RecoveryState::Cancelled, HOUR));
        assert!(told(RecoveryState::Done, 7 * 24 * HOUR));
        assert!(!told(RecoveryState::Done, (7 * 24 + 1) * HOUR));
    }
}
