//! The one place that reads the process's environment.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the configuration takes from the environment: never a setting, only where systemd put
/// credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `$CREDENTIALS_DIRECTORY`, set by systemd for units with `LoadCredential=` or
    /// `LoadCredentialEncrypted=` (systemd.exec(5)).
    pub credentials_dir: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { credentials_dir: lookup("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }
}

/// Names the variables of this process that PostgreSQL's clients take settings from (`PGHOST`,
/// `PGOPTIONS`, `PGSSLCERT`, …): the driver does too, and none of them is a setting of ours.
#[must_use]
pub fn of_postgres() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(b"PG")).collect()
}

/// Looks a variable of this process up, for the PKCS#11 module; never a setting.
#[must_use]
pub fn lookup(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
