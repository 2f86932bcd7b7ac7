//! `[notices]`: how long a notice is tried, and how it is worded.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "notices";
pub(super) const KEYS: &[&str] = &["give_up_after_s", "subjects", "texts"];

/// Three days, and a week: what is older is not kept.
const GIVE_UP_S: u64 = 3 * 86_400;
const LONGEST_S: u64 = 7 * 86_400;
/// An hour: a receiver that is started again is back by then.
const SHORTEST_S: u64 = 3_600;
/// Bytes of a template at most.
const TEMPLATE_BYTES: usize = 8_192;

/// How long a notice is tried, and how it is worded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notices {
    /// After how long one that cannot be delivered is given up.
    pub give_up_after: Duration,
    /// Subjects by kind of notice, in place of those that are built in.
    pub subjects: BTreeMap<String, String>,
    /// Texts by kind of notice, in place of the one that is built in.
    pub texts: BTreeMap<String, String>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            give_up_after: Duration::from_secs(GIVE_UP_S),
            subjects: BTreeMap::new(),
            texts: BTreeMap::new(),
        }
    }
}

pub(super) fn read(document: &Document<'_>) -> Result<Notices, ConfigError> {
    let section = document.section(SECTION);
    let fits = |_: &str, text: &str| !text.is_empty() && text.len() <= TEMPLATE_BYTES;
    let expected = "templates by kind of notice, each of 1 to 8192 bytes";
    let give_up_s = section.integer("give_up_after_s", SHORTEST_S..=LONGEST_S, GIVE_UP_S)?;
    Ok(Notices {
        give_up_after: Duration::from_secs(give_up_s),
        subjects: section.strings("subjects", expected, fits)?,
        texts: section.strings("texts", expected, fits)?,
    })
}
