//! `[ceremonies]`: how many administrators do together what nobody does alone.

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "ceremonies";
pub(super) const KEYS: &[&str] = &["administrators"];

/// How ceremonies are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceremonies {
    /// How many administrators each takes, who asks among them; never fewer than two.
    pub administrators: u32,
}

pub(super) fn read(document: &Document<'_>) -> Result<Ceremonies, ConfigError> {
    let section = document.section(SECTION);
    Ok(Ceremonies { administrators: section.small("administrators", 2..=10, 2)? })
}
