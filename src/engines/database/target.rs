//! What every kind of target database can do, and how it fails.
//!
//! PostgreSQL is the first; `MariaDB` and Redis implement the same trait. Every call that changes a
//! role takes a [`RoleName`] and refuses one that this vault did not mint. Callers commit their
//! intent before [`DatabaseTarget::create`] and run [`DatabaseTarget::revoke`] as often as it takes.

use std::fmt;

use async_trait::async_trait;

use super::names::RoleName;
use super::template::{Disposal, RoleDefinition};
use crate::error::{Error, Message};
use crate::types::{SecretBytes, UnixMillis};

/// The result of a call to a target.
pub type Result<T, E = TargetError> = std::result::Result<T, E>;

/// Why a target gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// No connection could be opened: down, starting, full, unknown host.
    NoConnection,
    /// Every connection that this node may have is in use.
    Busy,
    /// The TLS handshake failed: the target is not who the configuration says, or has no TLS.
    Tls,
    /// The connection broke on the way; what was asked may have happened.
    Lost,
    /// It took longer than a call may; what was asked may have happened.
    Silent,
}

/// How a target fails, by what the caller does next. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Retry with back-off: the target does not answer.
    #[error("the target database {0}")]
    Unreachable(Outage),
    /// Let an operator of the target look: it refused a step.
    #[error("the target database refused to {step} (SQLSTATE {sqlstate})")]
    Refused {
        /// What was tried, as a verb phrase.
        step: &'static str,
        /// The five characters of SQLSTATE.
        sqlstate: String,
    },
    /// Mend the role: the target does not run it. Told at configuration time only, when no
    /// credential is in play, so that it may quote the target.
    #[error("{0}")]
    Rejected(String),
    /// Retry with back-off: sessions of the role do not end, or new ones kept coming.
    #[error("sessions of the role do not end")]
    StillConnected,
    /// Retry, or let an operator look: the role owns something in a database that the management
    /// account cannot enter.
    #[error("the role still owns something in a database that the management account cannot enter")]
    Leftover {
        /// The database's name on the target.
        database: String,
    },
    /// The role is gone from the target.
    #[error("the role is gone from the target database")]
    Gone,
    /// Stop: the name was not minted by this vault, and nothing was done.
    #[error("the role was not minted by this vault")]
    NotOurs,
    /// Fix the definition.
    #[error("{0}")]
    Invalid(Message),
    /// Call the operator: the random generator failed, or the target answered nonsense.
    #[error("internal error")]
    Internal,
}

impl TargetError {
    /// Tells failures that time may heal; the caller tries again with back-off.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::StillConnected => true,
            Self::Refused { .. }
            | Self::Rejected(_)
            | Self::Leftover { .. }
            | Self::Gone
            | Self::NotOurs
            | Self::Invalid(_)
            | Self::Internal => false,
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoConnection => "accepts no connection",
            Self::Busy => "keeps busy every connection that this node may have (max_connections)",
            Self::Tls => "failed the TLS handshake",
            Self::Lost => "broke the connection",
            Self::Silent => "did not answer in time",
        })
    }
}

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Unreachable(_) | TargetError::StillConnected => {
                Self::Unavailable(error.to_string().into())
            }
            TargetError::Refused { .. } | TargetError::Leftover { .. } => {
                Self::Precondition(error.to_string().into())
            }
            TargetError::Rejected(why) => Self::Invalid(why.into()),
            TargetError::Invalid(why) => Self::Invalid(why),
            TargetError::Gone => Self::NotFound(error.to_string().into()),
            TargetError::NotOurs | TargetError::Internal => Self::internal(error),
        }
    }
}

/// A database in which credentials are minted.
#[async_trait]
pub trait DatabaseTarget: Send + Sync + fmt::Debug {
    /// Connects and checks that the management account may mint roles; answers what the server
    /// calls its version.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`], [`TargetError::Refused`] when the login fails,
    /// [`TargetError::Rejected`] when the account or the server cannot serve.
    async fn test(&self) -> Result<String>;

    /// Plays a role's whole life, from creation to removal, without leaving anything behind.
    ///
    /// # Errors
    /// [`TargetError::Rejected`] with what the target said, [`TargetError::Invalid`],
    /// [`TargetError::Unreachable`].
    async fn check_role(&self, role: &RoleDefinition) -> Result<()>;

    /// Creates a role that may log in until `valid_until`. All or nothing.
    ///
    /// `verifier` is what the target stores in the password's place (RFC 5803 on PostgreSQL): the
    /// password itself never travels.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`] with [`Outage::Lost`] or [`Outage::Silent`] when the role may
    /// exist nevertheless; [`TargetError::Refused`], [`TargetError::NotOurs`],
    /// [`TargetError::Invalid`].
    async fn create(
        &self,
        role: &RoleDefinition,
        name: &RoleName,
        verifier: &SecretBytes,
        valid_until: UnixMillis,
    ) -> Result<()>;

    /// Moves the time after which the role may not log in.
    ///
    /// # Errors
    /// [`TargetError::Gone`], [`TargetError::Unreachable`], [`TargetError::Refused`],
    /// [`TargetError::NotOurs`].
    async fn extend(&self, name: &RoleName, valid_until: UnixMillis) -> Result<()>;

    /// Tells whether the role stands on the target.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`], [`TargetError::Refused`], [`TargetError::NotOurs`].
    async fn exists(&self, name: &RoleName) -> Result<bool>;

    /// Ends the role: no login, no session, nothing owned, no role. A role that is gone is success.
    ///
    /// # Errors
    /// Any but [`TargetError::Gone`]; what was done stays done and the next call goes on from it.
    async fn revoke(&self, name: &RoleName, disposal: &Disposal) -> Result<()>;

    /// Lists this vault's roles on the target, at most 10,000 by name, for recovery to compare.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`], [`TargetError::Refused`].
    async fn sweep(&self) -> Result<Vec<RoleName>>;
}
