//! SQLite, embedded: one writer's thread that groups commits, a few readers' threads.
//!
//! `rusqlite` and threads of our own, because a whole commit or view then takes one hop between
//! threads instead of one per statement.

mod idle;
mod log;
mod reader;
mod room;
mod writer;

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, OpenFlags, ToSql};
use rustix::fs::{Access, access};

use crate::store::{Row, StoreError, Value};

pub use idle::tell_of_idle_workers;
pub(super) use reader::{Readers, Turn};
pub(super) use writer::{Settings, start as start_writer};

/// An answer of the database, and whether it may have rolled the whole transaction back.
pub(super) type Fault = (StoreError, bool);

/// The oldest SQLite that writes our files: 3.51.3.
const LEAST_VERSION: i32 = 3_051_003;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    Write,
    /// To write, making the file where there is none: at the start alone, because a file that
    /// vanished later must not be replaced by an empty one.
    Create,
}

/// Opens a connection the way every connection of ours is.
pub(super) fn open(path: &Path, mode: Mode) -> Result<rusqlite::Connection, StoreError> {
    // Of older ones, two connections that move the log at once may corrupt the file: a build that takes
    // another library than ours must not (<https://www.sqlite.org/wal.html#walresetbug>).
    if mode != Mode::Read && rusqlite::version_number() < LEAST_VERSION {
        let version = rusqlite::version();
        return Err(StoreError::Failed(format!("SQLite {version} is older than 3.51.3")));
    }
    let flags = match mode {
        Mode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Mode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection =
        rusqlite::Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| fault(&error).0)?;
    let set = || -> rusqlite::Result<()> {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(128);
        if mode != Mode::Read {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "secure_delete", "ON")?;
            connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        }
        connection.pragma_update(None, "foreign_keys", "ON")?;
        // What a statement sets aside is not written to a file.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // A crafted schema must not run anything of its own.
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        // A plan stands whatever the parameters are. Without this a statement with `LIMIT $n` is
        // planned anew each time that it is run, which is most of what it costs.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(())
    };
    set().map_err(|error| {
        // With a log left beside it, a file that may not be written does not even open.
        let writable = mode == Mode::Read || access(path, Access::WRITE_OK).is_ok();
        if writable { fault(&error).0 } else { StoreError::ReadOnly }
    })?;
    // SQLite opens a file that it may not write for reading, and says so at the first write.
    if mode != Mode::Read && connection.is_readonly("main").map_err(|error| fault(&error).0)? {
        return Err(StoreError::ReadOnly);
    }
    Ok(connection)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(int) => ValueRef::Integer(*int),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(super) fn execute(
    connection: &rusqlite::Connection,
    sql: &str,
    params: &[Value],
) -> Result<u64, Fault> {
    let run = || -> rusqlite::Result<usize> {
        let mut statement = connection.prepare_cached(&numbered(sql))?;
        statement.execute(rusqlite::params_from_iter(params))
    };
    run().map(|count| u64::try_from(count).unwrap_or(u64::MAX)).map_err(|error| fault(&error))
}

pub(super) fn query(
    connection: &rusqlite::Connection,
    sql: &str,
    params: &[Value],
) -> Result<Vec<Row>, Fault> {
    let run = || -> rusqlite::Result<Vec<Row>> {
        let mut statement = connection.prepare_cached(&numbered(sql))?;
        let width = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut values = Vec::with_capacity(width);
            for column in 0..width {
                values.push(value(row.get_ref(column)?));
            }
            found.push(Row::new(values));
        }
        Ok(found)
    };
    run().map_err(|error| fault(&error))
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(int) => Value::Int(int),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        // No column of ours is REAL: as bytes it fails its type or its seal.
        ValueRef::Real(real) => Value::Bytes(real.to_be_bytes().to_vec()),
    }
}

/// `$n` is a name to SQLite, numbered by its first appearance; `?n` is the number itself. Where the
/// two are the same, and they mostly are, the text stays as it is.
fn numbered(sql: &str) -> Cow<'_, str> {
    let mut highest = 0_u32;
    for after in sql.split('$').skip(1) {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        match after.get(..digits).and_then(|digits| digits.parse::<u32>().ok()) {
            Some(number) if number <= highest => {}
            Some(number) if number == highest.saturating_add(1) => highest = number,
            Some(_) | None => return Cow::Owned(sql.replace('$', "?")),
        }
    }
    Cow::Borrowed(sql)
}

/// Reads an error: what it means, and whether SQLite may have rolled the transaction back
/// (<https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction>).
pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    let Some(code) = error.sqlite_error_code() else {
        return (StoreError::Failed(error.to_string()), false);
    };
    let unique = matches!(
        extended(error),
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
    );
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of codes is SQLite's")]
    match code {
        // The index of the log, which is a file as well, grows in a way of its own.
        ErrorCode::DiskFull => (StoreError::Full, true),
        ErrorCode::SystemIoFailure
            if extended(error) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) =>
        {
            (StoreError::Full, true)
        }
        ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::DatabaseBusy
        | ErrorCode::OperationInterrupted
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::CannotOpen => (StoreError::Unavailable(error.to_string()), true),
        ErrorCode::ReadOnly => (StoreError::ReadOnly, true),
        ErrorCode::ConstraintViolation if unique => (StoreError::Taken, false),
        _ => (StoreError::Failed(error.to_string()), false),
    }
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Drives a future that never waits to its end.
///
/// # Errors
/// [`StoreError::Failed`] when it waited: a commit on SQLite must not.
pub(super) fn drive<T, E: From<StoreError>>(
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => Err(StoreError::Failed("a commit waited".into()).into()),
    }
}
