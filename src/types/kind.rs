//! What identities are: kind, tier, state.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Shows the canonical word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    let words: Vec<_> = Self::ALL.iter().map(|word| word.as_str()).collect();
                    Error::invalid(format!(concat!($what, " is one of {}"), words.join(", ")))
                })
            }
        }
    };
}

pub(super) use words;

words! {
    /// What stands behind an identity. Only humans may administer.
    Kind, "kind" {
        /// A person.
        Human = "human",
        /// An AI agent.
        Agent = "agent",
        /// A model.
        Model = "model",
        /// A dataset.
        Dataset = "dataset",
        /// A data or build pipeline.
        Pipeline = "pipeline",
        /// A long-running service.
        Service = "service",
        /// A CI runner.
        Runner = "runner",
        /// The holder of the bootstrap certificate: registers the first administrators, no more.
        Bootstrap = "bootstrap",
    }
}

words! {
    /// How much harm a misuse of the identity could do.
    Tier, "tier" {
        /// Little.
        Low = "low",
        /// Some.
        Medium = "medium",
        /// Much.
        High = "high",
        /// More than the organisation can bear.
        Critical = "critical",
    }
}

words! {
    /// Where an identity is in its life.
    IdentityState, "state" {
        /// Nothing was issued to it yet.
        Registered = "registered",
        /// May authenticate and act.
        Active = "active",
        /// Contained: everything it holds is dead.
        Suspended = "suspended",
        /// Contained for good.
        Retired = "retired",
    }
}

words! {
    /// What a credential is.
    CredentialKind, "credential kind" {
        /// A certificate that logs an identity in.
        Login = "login",
        /// A certificate of the certificate engine.
        Certificate = "certificate",
        /// A lease on something outside, such as a database role.
        Lease = "lease",
        /// A bearer token.
        Token = "token",
        /// A join token, and from its use on what its login certificates hang on.
        Enrolment = "enrolment",
    }
}

words! {
    /// Where a credential is in its life.
    CredentialState, "credential state" {
        /// The intent is committed; nobody holds it yet.
        Pending = "pending",
        /// In force until it expires.
        Active = "active",
        /// A token whose last use is made: it proves nothing more, what it paid for lives on.
        Spent = "spent",
        /// To be ended; what hangs outside is not proven gone yet.
        Revoking = "revoking",
        /// Over, and nothing of it is left outside.
        Ended = "ended",
    }
}

words! {
    /// Where the recovery of an administrator is.
    RecoveryState, "recovery state" {
        /// None was asked for since the vault was founded.
        Never = "never",
        /// It was asked for, and waits.
        Pending = "pending",
        /// It took effect.
        Done = "done",
        /// An administrator stopped it.
        Cancelled = "cancelled",
    }
}

words! {
    /// By what a human proves to be there, besides the credential that asks.
    FactorKind, "factor kind" {
        /// A code of an authenticator app, by time (RFC 6238).
        Totp = "totp",
        /// A code of a set that was printed once, each of which works once.
        Recovery = "recovery",
    }
}

words! {
    /// Where a factor is in its life.
    FactorState, "factor state" {
        /// Its secret was shown; no code of it yet.
        Pending = "pending",
        /// A code of it proves something.
        Active = "active",
        /// Over, for good.
        Removed = "removed",
    }
}

words! {
    /// What became of a wrapped answer. That one is over or void is seen by its times and epochs.
    WrapState, "wrap state" {
        /// It may be opened until it expires.
        Pending = "pending",
        /// It was opened, once and for ever.
        Opened = "opened",
        /// It was taken back.
        Revoked = "revoked",
    }
}

words! {
    /// What became of an invitation to enrol a factor.
    InvitationState, "invitation state" {
        /// It may be used until it expires.
        Live = "live",
        /// A factor was enrolled with it.
        Used = "used",
        /// It was taken back.
        Void = "void",
    }
}

impl IdentityState {
    /// Tells who was contained from who may act, or will with a first credential.
    #[must_use]
    pub const fn stands(self) -> bool {
        match self {
            Self::Registered | Self::Active => true,
            Self::Suspended | Self::Retired => false,
        }
    }
}

impl Kind {
    /// Tells machines, which never administer and must expire, from people.
    #[must_use]
    pub const fn is_machine(self) -> bool {
        match self {
            Self::Human | Self::Bootstrap => false,
            Self::Agent
            | Self::Model
            | Self::Dataset
            | Self::Pipeline
            | Self::Service
            | Self::Runner => true,
        }
    }
}
words! {
    /// Where a version of a secret is in its life.
    SecretState, "state" {
        /// It is read until it expires.
        Live = "live",
        /// It is not read, and comes back when it is undeleted in time.
        Deleted = "deleted",
        /// Its data key is gone for ever.
        Destroyed = "destroyed",
    }
}
