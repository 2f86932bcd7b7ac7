//! What a database can answer, by what the store does about it.

use crate::error::Error;

/// What went wrong in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The disk or the configured size is full. Beside SQLite room is kept for suspending, revoking
    /// and sealing; the disk of a PostgreSQL is not ours.
    #[error("the store is full")]
    Full,
    /// The file or the server accepts no writes.
    #[error("the store is read-only")]
    ReadOnly,
    /// Serialisation failure or deadlock: run it again.
    #[error("the transaction must run again")]
    Again,
    /// An earlier failure may have rolled the transaction back: nothing more reaches it.
    #[error("the transaction is poisoned")]
    Poisoned,
    /// A unique key is taken.
    #[error("the key is taken")]
    Taken,
    /// A compare-and-set lost: somebody else changed the row first.
    #[error("the row changed")]
    Stale,
    /// A row that carries authority is not what was sealed: an alarm.
    #[error("row {id} of {table} is not what was sealed")]
    Tampered {
        /// The table.
        table: &'static str,
        /// The row's key, as the database holds it.
        id: String,
    },
    /// The keys that verify sealed rows are out of memory.
    #[error("the vault is sealed")]
    Sealed,
    /// The database was written by a newer binary.
    #[error("the store's schema {found} is newer than this binary's {known}")]
    Newer {
        /// Version in the store.
        found: i64,
        /// Version that this binary knows.
        known: i64,
    },
    /// A PostgreSQL was written by an older binary: it is backed up before it is changed.
    #[error(
        "the store's schema {found} is older than this program's {known}: back the database up, then \
         run `strongroom migrate --backed-up`"
    )]
    Outdated {
        /// Version in the store.
        found: i64,
        /// Version that this binary knows.
        known: i64,
    },
    /// Nobody knows whether the commit took effect.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown,
    /// A value is not of the type its column promises.
    #[error("a column holds what it must not")]
    Malformed,
    /// Anything else, with the database's words for the log.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Takes a row that cannot be vouched for as one that is not there, with the alarm: it gives nobody
/// anything, and must not keep others from being contained.
///
/// # Errors
/// Any other failure.
pub fn intact<T>(found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Err(error @ StoreError::Tampered { .. }) => {
            drop(Error::from(error));
            Ok(None)
        }
        found => found,
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(%cause, "the store does not answer");
                Self::unavailable("the store does not answer")
            }
            StoreError::Full => {
                // Beside PostgreSQL no room is kept: its disk is its own.
                Self::unavailable(
                    "the store is full and records nothing more; on SQLite, suspending, revoking \
                     and sealing still work",
                )
            }
            StoreError::ReadOnly => Self::unavailable("the store is read-only"),
            StoreError::Again | StoreError::Poisoned => {
                Self::unavailable("the store gave the transaction up; retry")
            }
            StoreError::Taken => Self::AlreadyExists("the name is taken".into()),
            StoreError::Stale => Self::Conflict("somebody else changed it first".into()),
            StoreError::Tampered { table, id } => {
                tracing::error!(table, id, alarm = true, "a row is not what was sealed");
                Self::Tampered { table, id }
            }
            StoreError::Sealed => Self::Sealed,
            StoreError::OutcomeUnknown => Self::OutcomeUnknown,
            StoreError::Outdated { .. } => Self::precondition(error.to_string()),
            StoreError::Newer { .. } | StoreError::Malformed | StoreError::Failed(_) => {
                Self::internal(error)
            }
        }
    }
}
