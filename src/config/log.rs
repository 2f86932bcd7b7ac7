//! `[log]`: how the log is written. The log is for operators; the record is something else.

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "log";
pub(super) const KEYS: &[&str] = &["format", "level"];

/// How the log is written, to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// For machines or for people.
    pub format: LogFormat,
    /// The least that is worth a line.
    pub level: LogLevel,
}

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Text for a terminal.
    Text,
}

/// The least that is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Somebody should look.
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Shows the word that `tracing` understands.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

pub(super) fn read(document: &Document<'_>) -> Result<Log, ConfigError> {
    let section = document.section(SECTION);
    let format = section.parsed("format", "\"json\" or \"text\"", |text| match text {
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    })?;
    let expected = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    let level = section.parsed("level", expected, |text| match text {
        "error" => Some(LogLevel::Error),
        "warn" => Some(LogLevel::Warn),
        "info" => Some(LogLevel::Info),
        "debug" => Some(LogLevel::Debug),
        "trace" => Some(LogLevel::Trace),
        _ => None,
    })?;
    Ok(Log { format: format.unwrap_or(LogFormat::Json), level: level.unwrap_or(LogLevel::Info) })
}
