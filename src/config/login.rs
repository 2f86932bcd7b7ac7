//! `[login]`: how long login certificates live.

use std::time::Duration;

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "login";
pub(super) const KEYS: &[&str] = &["certificate_ttl_s", "certificate_max_ttl_s"];

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;

/// Lifetimes of login certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Where nobody asks for another.
    pub certificate_ttl: Duration,
    /// The longest that anybody may ask for.
    pub certificate_max_ttl: Duration,
}

pub(super) fn read(document: &Document<'_>) -> Result<Login, ConfigError> {
    let section = document.section(SECTION);
    let most = section.integer("certificate_max_ttl_s", 300..=365 * DAY_S, 30 * DAY_S)?;
    let usual = section.integer("certificate_ttl_s", 60..=365 * DAY_S, DAY_S.min(most))?;
    if usual > most {
        return Err(section.fault("certificate_ttl_s", "more than certificate_max_ttl_s"));
    }
    Ok(Login {
        certificate_ttl: Duration::from_secs(usual),
        certificate_max_ttl: Duration::from_secs(most),
    })
}
