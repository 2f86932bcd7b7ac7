//! What notices are about, and who is told: the one table of it.
//!
//! `docs/notices.md` prints it; a test compares the two.

use std::fmt;
use std::str::FromStr;

use super::kind::words;
use crate::error::{Error, Result};

words! {
    /// What a notice is about.
    NoticeKind, "kind of notice" {
        /// An elevation was asked for and has to be approved.
        Requested = "elevation.requested",
        /// A step is approved; the next one's turn has come.
        StepApproved = "elevation.step-approved",
        /// It is approved, and may be activated.
        Approved = "elevation.approved",
        /// So many denied it as it takes.
        Denied = "elevation.denied",
        /// Who asked took it back.
        Withdrawn = "elevation.withdrawn",
        /// Nobody approved or activated it in time.
        Expired = "elevation.expired",
        /// It is in force.
        Activated = "elevation.activated",
        /// What it was approved on did not stand any more.
        ActivationFailed = "elevation.activation-failed",
        /// It is in force for longer.
        Prolonged = "elevation.prolonged",
        /// Its time is over, or it was given back.
        Ended = "elevation.ended",
        /// Somebody ended it before its time.
        Revoked = "elevation.revoked",
        /// Something was made under it that stays when it is over.
        StandingMade = "elevation.standing-made",
        /// Somebody is about to break the glass.
        EmergencyRequested = "elevation.emergency-requested",
        /// The glass is broken: nobody approved what is in force.
        EmergencyActivated = "elevation.emergency-activated",
        /// Nobody reviewed in time an emergency, or what could make something that stays.
        ReviewOverdue = "elevation.review-overdue",
        /// Somebody reviewed it.
        Reviewed = "elevation.reviewed",
        /// There is a new role.
        RoleCreated = "elevation-role.created",
        /// Somebody wants a role to say something else.
        RoleProposed = "elevation-role.proposed",
        /// Another administrator confirmed what a role is to say.
        RoleConfirmed = "elevation-role.confirmed",
        /// A role says something else from now on.
        RoleChanged = "elevation-role.changed",
        /// What a role was to say came to nothing: what it stood on does not stand any more.
        RoleDropped = "elevation-role.dropped",
        /// An administrator asks for what several do together: others have to approve it.
        CeremonyOpened = "ceremony.opened",
        /// An administrator approved it.
        CeremonyApproved = "ceremony.approved",
        /// An administrator denied it.
        CeremonyDenied = "ceremony.denied",
        /// Who asked took it back.
        CeremonyCancelled = "ceremony.cancelled",
        /// What it was about was done.
        CeremonyPerformed = "ceremony.performed",
        /// Nobody approved it, or who asked did not come back, in time.
        CeremonyExpired = "ceremony.expired",
        /// Two keys were shown where an enrolment has one: all that came of it is over.
        EnrolmentLocked = "enrolment.locked",
    }
}

words! {
    /// Whom a notice is for.
    Audience, "audience" {
        /// Who asked; of a machine, who answers for it.
        Requester = "requester",
        /// The owners of what was asked for.
        Owners = "owners",
        /// Who may approve the step whose turn it is; of a role, all of its steps.
        Approvers = "approvers",
        /// The groups that review emergencies, and what could make something that stays.
        Reviewers = "reviewers",
        /// The administrators.
        Administrators = "administrators",
    }
}

/// Every kind of notice, and whom it is for.
pub const NOTICES: &[(NoticeKind, &[Audience])] = {
    use Audience::{Administrators, Approvers, Owners, Requester, Reviewers};
    use NoticeKind as Of;
    &[
        (Of::Requested, &[Approvers]),
        (Of::StepApproved, &[Requester, Approvers]),
        (Of::Approved, &[Requester, Owners]),
        (Of::Denied, &[Requester]),
        (Of::Withdrawn, &[Approvers]),
        (Of::Expired, &[Requester]),
        (Of::Activated, &[Requester, Owners]),
        (Of::ActivationFailed, &[Requester, Owners]),
        (Of::Prolonged, &[Requester, Owners, Reviewers]),
        (Of::Ended, &[Requester, Owners, Reviewers]),
        (Of::Revoked, &[Requester, Owners, Reviewers]),
        (Of::StandingMade, &[Requester, Owners, Reviewers, Administrators]),
        (Of::EmergencyRequested, &[Owners, Reviewers, Administrators]),
        (Of::EmergencyActivated, &[Requester, Owners, Reviewers, Administrators]),
        (Of::ReviewOverdue, &[Requester, Owners, Reviewers, Administrators]),
        (Of::Reviewed, &[Requester, Owners, Reviewers]),
        (Of::RoleCreated, &[Approvers, Reviewers, Administrators]),
        (Of::RoleProposed, &[Approvers, Reviewers, Administrators]),
        (Of::RoleConfirmed, &[Approvers, Reviewers, Administrators]),
        (Of::RoleChanged, &[Approvers, Reviewers, Administrators]),
        (Of::RoleDropped, &[Approvers, Reviewers, Administrators]),
        (Of::CeremonyOpened, &[Requester, Administrators]),
        (Of::CeremonyApproved, &[Requester, Administrators]),
        (Of::CeremonyDenied, &[Requester, Administrators]),
        (Of::CeremonyCancelled, &[Requester, Administrators]),
        (Of::CeremonyPerformed, &[Requester, Administrators]),
        (Of::CeremonyExpired, &[Requester, Administrators]),
        (Of::EnrolmentLocked, &[Requester, Administrators]),
    ]
};

impl NoticeKind {
    /// Lists whom it is for.
    #[must_use]
    pub fn audiences(self) -> &'static [Audience] {
        NOTICES.iter().find(|(kind, _)| *kind == self).map_or(&[], |(_, audiences)| audiences)
    }
}

/// Digits of a number as it is stored: so that text sorts as numbers do.
const DIGITS: usize = 16;

/// The place of a notice among all that were ever written, from 1 and without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeNumber(pub i64);

impl NoticeNumber {
    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for NoticeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$}", self.0)
    }
}

impl FromStr for NoticeNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| Error::invalid("a notice's number has 16 digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_notice_is_for_somebody_and_stands_in_the_table_once() {
        for kind in NoticeKind::ALL {
            assert!(!kind.audiences().is_empty(), "{kind}");
            assert_eq!(NOTICES.iter().filter(|(one, _)| one == kind).count(), 1, "{kind}");
        }
    }

    #[test]
    fn the_page_prints_the_table() {
        let page = std::fs::read_to_string("docs/notices.md").unwrap();
        for (kind, audiences) in NOTICES {
            let audiences: Vec<_> = audiences.iter().map(|one| one.as_str()).collect();
            let row = format!("| `{kind}` | {} |", audiences.join(", "));
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn numbers_are_stored_as_text_that_sorts_as_they_do() {
        let (nine, ten) = (NoticeNumber(9), NoticeNumber(9).next());
        assert!(nine.to_string() < ten.to_string());
        assert_eq!(ten.to_string().parse(), Ok(ten));
        for bad in ["", "10", "+000000000000010", "000000000000001x"] {
            assert!(bad.parse::<NoticeNumber>().is_err(), "{bad:?}");
        }
    }
}
