//! Resource patterns of grants: `*` within one segment, `**` as the last for any number.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::{PATH_BYTES, PATH_SEGMENTS, SEGMENT_BYTES, is_segment};
use crate::error::{Error, Result};

/// A pattern over resource names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ResourcePattern(Arc<str>);

impl ResourcePattern {
    /// Shows the canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the pattern holds a wildcard; administrative actions refuse one.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.0.contains('*')
    }

    /// What every name that the pattern covers begins with.
    #[must_use]
    pub fn literal(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// Tells whether the pattern covers all that another one covers.
    ///
    /// Matching the other's text is enough, because a `*` in it is matched by nothing but a
    /// wildcard; only a `**` could hide behind a `*`, and needs a `**`.
    #[must_use]
    pub fn covers(&self, narrow: &Self) -> bool {
        let any_depth = |pattern: &Self| pattern.0.ends_with("/**");
        self.matches(narrow.as_str()) && (any_depth(self) || !any_depth(narrow))
    }

    /// Tells whether the pattern covers a resource's name.
    #[must_use]
    pub fn matches(&self, resource: &str) -> bool {
        let mut names = resource.split('/');
        for part in self.0.split('/') {
            if part == "**" {
                // One segment at the least: a grant on what is below a path is none on the path.
                return names.next().is_some();
            }
            match names.next() {
                Some(name) if segment_matches(part.as_bytes(), name.as_bytes()) => {}
                Some(_) | None => return false,
            }
        }
        names.next().is_none()
    }
}

/// Matches one segment with any number of `*`, in linear space and bounded time: the last star
/// alone is gone back to, which is enough for globs.
fn segment_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut retry) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if name.get(n) == Some(byte) => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match retry {
                Some((star, from)) => {
                    p = star;
                    n = from + 1;
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl FromStr for ResourcePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::invalid(
                "a resource pattern is <noun> or <noun>/<path> as in names, where `*` stands for any \
                 characters within one segment and `**`, as the last segment, for any segments",
            )
        };
        let parts: Vec<_> = text.split('/').collect();
        if text.len() > PATH_BYTES || parts.len() > PATH_SEGMENTS + 1 {
            return Err(malformed());
        }
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            let doubled = *part == "**";
            // With each star replaced by a letter, what remains must be a segment.
            let glob = part.len() <= SEGMENT_BYTES
                && !part.contains("**")
                && is_segment(&part.replace('*', "x"));
            let plain_noun = i > 0 || is_segment(part);
            if !((doubled && last || glob) && plain_noun) {
                return Err(malformed());
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_segment() {
        for (pattern, name, covered) in [
            ("database/analytics/reader", "database/analytics/reader", true),
            ("database/analytics/reader", "database/analytics/reader2", false),
            ("database/*/reader", "database/analytics/reader", true),
            ("database/*/reader", "database/a/b/reader", false),
            ("database/**", "database/analytics/reader", true),
            ("database/**", "database", false),
            ("database/a*c*e/r", "database/abcde/r", true),
            ("database/a*c*e/r", "database/abcd/r", false),
            ("database/*", "database/analytics/reader", false),
            ("database/a*", "database/a", true),
            ("database", "database", true),
            ("database", "database/a", false),
        ] {
            let parsed: ResourcePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), covered, "{pattern} on {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for bad in [
            "", "*", "**", "a*", "/", "a/", "*/b", "**/b", "a/**/b", "a/b**", "A/b", "a//b",
            "a/ b", "a/..", "a/***",
        ] {
            assert!(bad.parse::<ResourcePattern>().is_err(), "{bad:?}");
        }
    }
}
