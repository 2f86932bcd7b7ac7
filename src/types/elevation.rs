//! Where an elevation is in its life: the one table of states, what moves them, and what follows.
//!
//! `docs/elevation.md` prints it and the model in `tests/it/elevations/model.rs` walks it.

use std::fmt;
use std::str::FromStr;

use super::kind::words;
use crate::error::{Error, Result};

words! {
    /// Where an elevation is in its life.
    ElevationState, "elevation state" {
        /// It was asked for; its scope is frozen.
        Requested = "requested",
        /// Others have to approve it.
        AwaitingApproval = "awaiting-approval",
        /// It is approved and waits for who asked to activate it.
        Scheduled = "scheduled",
        /// Whether everything still stands is looked at once more.
        Activating = "activating",
        /// It is in force: decisions carry it.
        Active = "active",
        /// Its time is over, or who has it gave it back.
        Ended = "ended",
        /// So many denied it as it takes.
        Denied = "denied",
        /// Nobody approved or activated it in time.
        Expired = "expired",
        /// Who asked took it back before it was in force.
        Withdrawn = "withdrawn",
        /// Somebody ended it before its time.
        Revoked = "revoked",
        /// What it was approved on did not stand any more.
        ActivationFailed = "activation-failed",
    }
}

words! {
    /// What moves an elevation.
    ElevationEvent, "elevation event" {
        /// It is handed to who has to approve it.
        Submit = "submit",
        /// Its role is one for emergencies, which nobody approves beforehand.
        BreakGlass = "break-glass",
        /// The last approval that it takes is given.
        Complete = "complete",
        /// The last denial that it takes is given.
        Deny = "deny",
        /// Who asked takes it back.
        Withdraw = "withdraw",
        /// Its time to be approved, or to be activated, is over.
        Expire = "expire",
        /// Who asked wants it in force.
        Activate = "activate",
        /// Everything stands.
        Confirm = "confirm",
        /// Something does not.
        Fail = "fail",
        /// Its time is over, or who has it gives it back.
        End = "end",
        /// Somebody ends it before its time.
        Revoke = "revoke",
    }
}

/// Every transition there is: from a state, by an event, to a state.
pub const TRANSITIONS: &[(ElevationState, ElevationEvent, ElevationState)] = &[
    (ElevationState::Requested, ElevationEvent::Submit, ElevationState::AwaitingApproval),
    (ElevationState::Requested, ElevationEvent::BreakGlass, ElevationState::Scheduled),
    (ElevationState::AwaitingApproval, ElevationEvent::Complete, ElevationState::Scheduled),
    (ElevationState::AwaitingApproval, ElevationEvent::Deny, ElevationState::Denied),
    (ElevationState::AwaitingApproval, ElevationEvent::Withdraw, ElevationState::Withdrawn),
    (ElevationState::AwaitingApproval, ElevationEvent::Revoke, ElevationState::Revoked),
    (ElevationState::AwaitingApproval, ElevationEvent::Expire, ElevationState::Expired),
    (ElevationState::Scheduled, ElevationEvent::Deny, ElevationState::Denied),
    (ElevationState::Scheduled, ElevationEvent::Withdraw, ElevationState::Withdrawn),
    (ElevationState::Scheduled, ElevationEvent::Revoke, ElevationState::Revoked),
    (ElevationState::Scheduled, ElevationEvent::Expire, ElevationState::Expired),
    (ElevationState::Scheduled, ElevationEvent::Activate, ElevationState::Activating),
    (ElevationState::Activating, ElevationEvent::Confirm, ElevationState::Active),
    (ElevationState::Activating, ElevationEvent::Fail, ElevationState::ActivationFailed),
    (ElevationState::Active, ElevationEvent::End, ElevationState::Ended),
    (ElevationState::Active, ElevationEvent::Revoke, ElevationState::Revoked),
];

impl ElevationState {
    /// Finds the state that an event leads to, if the table has it.
    #[must_use]
    pub fn after(self, event: ElevationEvent) -> Option<Self> {
        let found = TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == event);
        found.map(|(_, _, to)| *to)
    }

    /// As [`ElevationState::after`], for whoever is told.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the table does not have it.
    pub fn moved(self, event: ElevationEvent) -> Result<Self> {
        self.after(event).ok_or_else(|| {
            Error::precondition(format!("the elevation is {self}; nothing follows on {event} then"))
        })
    }

    /// Tells whether nothing follows any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        TRANSITIONS.iter().all(|(from, _, _)| *from != self)
    }
}

#[cfg(test)]
mod tests {
    use super::{ElevationEvent as By, ElevationState as In, *};

    #[test]
    fn each_event_leads_from_a_state_to_one_state_alone() {
        for (i, (from, by, _)) in TRANSITIONS.iter().enumerate() {
            let same = |(other, event, _): &&(_, _, _)| other == from && event == by;
            assert_eq!(TRANSITIONS.iter().filter(same).count(), 1, "{i}");
        }
    }

    #[test]
    fn only_what_was_approved_or_is_for_emergencies_is_ever_in_force() {
        let into = |to: ElevationState| {
            let reached = TRANSITIONS.iter().filter(move |(_, _, state)| *state == to);
            reached.map(|(from, by, _)| (*from, *by)).collect::<Vec<_>>()
        };
        assert_eq!(into(In::Active), [(In::Activating, By::Confirm)]);
        assert_eq!(into(In::Activating), [(In::Scheduled, By::Activate)]);
        let scheduled = [(In::Requested, By::BreakGlass), (In::AwaitingApproval, By::Complete)];
        assert_eq!(into(In::Scheduled), scheduled);
        let over: Vec<_> = In::ALL.iter().filter(|state| state.is_over()).collect();
        assert_eq!(over.len(), 6);
    }
}
