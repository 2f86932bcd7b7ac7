//! The one error that crosses rooms: its variants say what the caller does next.
//!
//! Each room has a small error of its own and converts to this one. Nothing here may hold a
//! secret, a cause meant for operators, or anything that tells a stranger what exists: causes are
//! logged where they are handled.

use std::borrow::Cow;

/// The result of anything that crosses a room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A sentence for the caller: lowercase, no full stop, nothing secret.
pub type Message = Cow<'static, str>;

/// Which factor is wanted, and how fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    /// The kinds of which one is enough, by their words.
    pub kinds: Vec<&'static str>,
    /// How long ago it may have been proven at the most, in seconds.
    pub within_s: u64,
}

impl std::fmt::Display for StepUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kinds, within_s) = (self.kinds.join(" or "), self.within_s);
        write!(
            f,
            "this needs a factor ({kinds}) that was proven within the last {within_s} seconds"
        )
    }
}

/// What went wrong, by what the caller does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fix the request: it can never succeed as it is.
    #[error("{0}")]
    Invalid(Message),
    /// Authenticate: no credential, or one that is not accepted.
    #[error("{0}")]
    Unauthenticated(Message),
    /// Get another token: the last use of this one is made.
    #[error("{0}")]
    Spent(Message),
    /// Raise an alarm, and ask whoever made it for another: the wrapped answer was opened before.
    #[error("{0}")]
    Opened(Message),
    /// Ask for a grant or an approval: policy refused.
    #[error("{0}")]
    Denied(Message),
    /// Prove a factor, then repeat: what was asked for wants one that was proven lately.
    #[error("{0}")]
    StepUp(StepUp),
    /// Fix the name: the caller may know that it does not exist.
    #[error("{0}")]
    NotFound(Message),
    /// Choose another name: it is taken.
    #[error("{0}")]
    AlreadyExists(Message),
    /// Read again and decide: somebody else changed it first.
    #[error("{0}")]
    Conflict(Message),
    /// Change the state first (resume the identity, configure the role).
    #[error("{0}")]
    Precondition(Message),
    /// Have other administrators approve, then repeat: a ceremony is open.
    #[error("{0}")]
    Ceremony(Message),
    /// Wait, or ask for a higher limit.
    #[error("{0}")]
    Exhausted(Message),
    /// Retry with back-off: a part that the vault needs does not answer.
    #[error("{0}")]
    Unavailable(Message),
    /// Unseal the vault first: its keys are out of memory.
    #[error("the vault is sealed")]
    Sealed,
    /// Retry with the same idempotency key: nobody knows whether it took effect.
    #[error("the outcome is unknown; retry with the same idempotency key")]
    OutcomeUnknown,
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// Call the operator at once: a stored row is not what was sealed, which is an alarm. The log
    /// names it; whoever was not allowed to look hears no more.
    #[error("a stored row that this needs is not what was sealed, which is an alarm")]
    Tampered {
        /// The table.
        table: &'static str,
        /// The row's key, as the database holds it.
        id: String,
    },
    /// The same, told by [`Error::told`] to whoever was allowed to look.
    #[error("{0}")]
    TamperedRow(Message),
    /// Call the operator: an invariant is broken. The cause is in the log.
    #[error("internal error; the operator finds the cause in the log by the request id")]
    Internal,
}

impl Error {
    /// Names the reason for machines, as `google.rpc.ErrorInfo.reason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID",
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::Spent(_) => "SPENT",
            Self::Opened(_) => "OPENED",
            Self::Denied(_) => "DENIED",
            Self::StepUp(_) => "STEP_UP_REQUIRED",
            Self::NotFound(_) => "NOT_FOUND",
            Self::AlreadyExists(_) => "ALREADY_EXISTS",
            Self::Conflict(_) => "CONFLICT",
            Self::Precondition(_) => "PRECONDITION",
            Self::Ceremony(_) => "CEREMONY_OPEN",
            Self::Exhausted(_) => "EXHAUSTED",
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::Sealed => "SEALED",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Deadline => "DEADLINE",
            Self::Tampered { .. } | Self::TamperedRow(_) => "TAMPERED",
            Self::Internal => "INTERNAL",
        }
    }

    /// Names the row that is not what was sealed, to a caller that a decision let through.
    #[must_use]
    pub fn told(self) -> Self {
        let Self::Tampered { table, id } = self else { return self };
        // Whoever put the row there chose its key as well.
        let plain = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic());
        let id = if plain { id.as_str() } else { "with a key that is none" };
        Self::TamperedRow(
            format!("row {id} of table {table} is not what was sealed, which is an alarm").into(),
        )
    }

    /// Makes [`Error::Invalid`].
    pub fn invalid(message: impl Into<Message>) -> Self {
        Self::Invalid(message.into())
    }

    /// Makes [`Error::NotFound`].
    pub fn not_found(message: impl Into<Message>) -> Self {
        Self::NotFound(message.into())
    }

    /// Makes [`Error::Precondition`].
    pub fn precondition(message: impl Into<Message>) -> Self {
        Self::Precondition(message.into())
    }

    /// Makes [`Error::Unavailable`].
    pub fn unavailable(message: impl Into<Message>) -> Self {
        Self::Unavailable(message.into())
    }

    /// Logs a broken invariant with its cause and makes [`Error::Internal`].
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a broken invariant");
        Self::Internal
    }
}
