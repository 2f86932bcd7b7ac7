//! What is wrong with a configuration: where, what, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A fault in the configuration, printed as `file:line: section.key: what is wrong; what to do`.
///
/// Never quotes what was written there: it may be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    key: Option<String>,
    fault: String,
}

impl ConfigError {
    /// Blames the file as a whole.
    pub(super) fn of_file(file: &Path, fault: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, key: None, fault: fault.into() }
    }

    /// Blames a key, or a section when `key` names one.
    pub(super) fn of_key(
        file: &Path,
        line: Option<usize>,
        key: impl Into<String>,
        fault: impl Into<String>,
    ) -> Self {
        Self { file: file.into(), line, key: Some(key.into()), fault: fault.into() }
    }

    /// Blames a line that is not TOML.
    pub(super) fn of_line(file: &Path, line: Option<usize>, fault: impl Into<String>) -> Self {
        Self { file: file.into(), line, key: None, fault: fault.into() }
    }

    /// Names the key at fault, as `section.key`.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Counts lines from 1; none when the fault is something that is not there.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(fault: ConfigError) -> Self {
        Self::precondition(fault.to_string())
    }
}
