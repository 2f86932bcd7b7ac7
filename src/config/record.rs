//! `[record]`: the name under which checkpoints are signed, and how often.

use std::time::Duration;

use super::reader::Document;
use super::{ConfigError, Vault};

pub(super) const SECTION: &str = "record";
pub(super) const KEYS: &[&str] = &["origin", "checkpoint_interval_ms"];

/// The record's name and pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// First line of each checkpoint and name of its key (C2SP tlog-checkpoint, signed-note).
    pub origin: String,
    /// How often entries that wait are covered by a checkpoint.
    pub checkpoint_interval: Duration,
}

pub(super) fn read(document: &Document<'_>, vault: &Vault) -> Result<Record, ConfigError> {
    let section = document.section(SECTION);
    let expected = "a name like \"vault.example.org/main\": no spaces, no +, no scheme";
    let origin = section.parsed("origin", expected, |text| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"./_-".contains(&b);
        let fits = (1..=200).contains(&text.len()) && text.bytes().all(plain);
        (fits && !text.starts_with('/') && !text.ends_with('/')).then(|| text.to_owned())
    })?;
    let interval_ms = section.integer("checkpoint_interval_ms", 50..=1000, 1000)?;
    Ok(Record {
        origin: origin.unwrap_or_else(|| format!("{}/{}", vault.trust_domain, vault.name)),
        checkpoint_interval: Duration::from_millis(interval_ms),
    })
}
