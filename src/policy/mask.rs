//! Masks: which fields of a JSON secret a grant hides, and how.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes of a field's path at most.
const FIELD_BYTES: usize = 256;

/// How a field is hidden, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskHow {
    /// Its last four characters are shown, where it has eight or more.
    Last4,
    /// A keyed hash is shown: equal values of the field in one secret are seen to be equal.
    Hash,
    /// That it is there is shown.
    Redact,
    /// Nothing is shown.
    Drop,
}

impl MaskHow {
    const ALL: [Self; 4] = [Self::Last4, Self::Hash, Self::Redact, Self::Drop];

    /// Shows the canonical word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Last4 => "last4",
            Self::Hash => "hash",
            Self::Redact => "redact",
            Self::Drop => "drop",
        }
    }
}

impl FromStr for MaskHow {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|how| how.as_str() == text)
            .ok_or_else(|| Error::invalid("a field is masked as last4, hash, redact or drop"))
    }
}

/// One field, and how it is hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// The keys that lead to the field, joined by dots; through lists without an index.
    pub field: String,
    /// How it is hidden.
    pub how: MaskHow,
}

impl Mask {
    /// Takes a field's path and how it is hidden.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that leads nowhere.
    pub fn parse(field: &str, how: &str) -> Result<Self> {
        let leads = field.len() <= FIELD_BYTES
            && field.split('.').all(|key| !key.is_empty())
            && !field.chars().any(|c| c.is_control() || c == ',' || c == '=');
        if !leads {
            return Err(Error::invalid(
                "a mask names a field by its keys, joined by dots, without commas and equals signs",
            ));
        }
        Ok(Self { field: field.to_owned(), how: how.parse()? })
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field, self.how.as_str())
    }
}

/// Tells whether everything that some masks hide is hidden as well, or better, by others.
pub(super) fn hides_as_much(narrow: &[Mask], wide: &[Mask]) -> bool {
    let hidden = |one: &Mask| narrow.iter().any(|it| it.field == one.field && it.how >= one.how);
    wide.iter().all(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(all: &[(&str, &str)]) -> Vec<Mask> {
        all.iter().map(|(field, how)| Mask::parse(field, how).unwrap()).collect()
    }

    #[test]
    fn what_is_given_on_hides_no_less() {
        for (narrow, wide, good) in [
            (&[][..], &[][..], true),
            (&[("a", "drop")], &[], true),
            (&[], &[("a", "last4")], false),
            (&[("a", "last4")], &[("a", "last4")], true),
            (&[("a", "drop")], &[("a", "last4")], true),
            (&[("a", "last4")], &[("a", "hash")], false),
            (&[("b", "drop")], &[("a", "last4")], false),
            (&[("a", "hash"), ("b", "drop")], &[("b", "redact")], true),
        ] {
            assert_eq!(hides_as_much(&masks(narrow), &masks(wide)), good, "{narrow:?} {wide:?}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused() {
        for (field, how) in [
            ("", "drop"),
            (".a", "drop"),
            ("a..b", "drop"),
            ("a", ""),
            ("a", "Drop"),
            ("a=b", "drop"),
        ] {
            assert!(Mask::parse(field, how).is_err(), "{field:?} {how:?}");
        }
        assert!(Mask::parse(&"a".repeat(257), "drop").is_err());
        assert!(Mask::parse("a.b c.é", "drop").is_ok());
    }
}
