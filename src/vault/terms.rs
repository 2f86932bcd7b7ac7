//! What a grant's row says besides who, what and on what: when it begins, and its conditions.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::policy::{Cidr, Conditions, LoginTerms, Mask};
use crate::types::UnixMillis;

/// When a grant begins, and what else must be true.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// The first moment at which it holds.
    pub not_before: Option<UnixMillis>,
    /// Its conditions.
    pub conditions: Conditions,
}

/// As the row holds it, in JSON: an unknown field is refused, because it would be a condition that
/// nobody checks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    sources: Vec<Cidr>,
    max_ttl_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    masks: Vec<Mask>,
    #[serde(default, skip_serializing_if = "LoginTerms::is_none")]
    login: LoginTerms,
}

impl Terms {
    /// Reads what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(text: &str) -> Result<Self> {
        let stored: Stored = serde_json::from_str(text).map_err(Error::internal)?;
        Ok(Self {
            not_before: stored.not_before_ms.map(UnixMillis),
            conditions: Conditions {
                sources: stored.sources,
                max_ttl_s: stored.max_ttl_s,
                masks: stored.masks,
                login: stored.login,
            },
        })
    }

    /// Writes what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`], which a value of this type excludes.
    pub fn to_json(&self) -> Result<String> {
        let stored = Stored {
            sources: self.conditions.sources.clone(),
            max_ttl_s: self.conditions.max_ttl_s,
            not_before_ms: self.not_before.map(|from| from.0),
            masks: self.conditions.masks.clone(),
            login: self.conditions.login.clone(),
        };
        serde_json::to_string(&stored).map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_come_back_as_they_were_written() {
        let sources = vec!["10.0.0.0/8".parse().unwrap()];
        for terms in [
            Terms::default(),
            Terms {
                not_before: Some(UnixMillis(7)),
                conditions: Conditions {
                    sources,
                    max_ttl_s: Some(3_600),
                    masks: vec![Mask::parse("card.number", "last4").unwrap()],
                    login: LoginTerms {
                        max_auth_age_s: Some(600),
                        amr: vec!["otp".to_owned()],
                        groups: vec!["ops".to_owned()],
                    },
                },
            },
        ] {
            assert_eq!(Terms::read(&terms.to_json().unwrap()), Ok(terms));
        }
    }

    #[test]
    fn a_condition_that_nobody_checks_is_refused() {
        for bad in [r#"{"sources":[],"max_ttl_s":null,"weekday":1}"#, "{}", "", "[]"] {
            assert_eq!(Terms::read(bad), Err(Error::Internal), "{bad}");
        }
    }
}
