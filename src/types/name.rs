//! Names, canonical or refused: nothing is ever repaired silently.
//!
//! Every check is on bytes, so that whitespace, case, `//`, `..`, `%2f`, NUL, control characters
//! and `*` are refused by one rule: what is not in the grammar is not a name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Segments an identity's name may have.
pub(super) const IDENTITY_SEGMENTS: usize = 4;
/// Segments a resource's path may have, its noun not counted.
pub(super) const PATH_SEGMENTS: usize = 16;
/// Bytes a resource's path may have.
pub(super) const PATH_BYTES: usize = 512;
/// Bytes a segment may have.
pub(super) const SEGMENT_BYTES: usize = 63;

const GRAMMAR: &str = "a name has segments of 1 to 63 characters a-z 0-9 . _ -, each beginning \
                       with a letter or digit, joined by single slashes";

/// Tells whether text is one segment: `[a-z0-9][a-z0-9._-]{0,62}`.
#[must_use]
pub(super) fn is_segment(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= SEGMENT_BYTES
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..")
}

fn check(text: &str, most: usize) -> Result<()> {
    let fits = text.len() <= PATH_BYTES && text.split('/').count() <= most;
    if fits && text.split('/').all(is_segment) { Ok(()) } else { Err(Error::invalid(GRAMMAR)) }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $most:expr),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Shows the canonical text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                check(text, $most)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )+};
}

names! {
    /// One segment: a connection, a role, a group.
    Segment: 1,
    /// An identity's name: one to four segments.
    IdentityName: IDENTITY_SEGMENTS,
    /// A named key's name: up to sixteen segments.
    KeyName: PATH_SEGMENTS,
    /// A secret's name: up to sixteen segments.
    SecretPath: PATH_SEGMENTS,
    /// A resource's full name, `<noun>/<path>`.
    ResourceName: PATH_SEGMENTS + 1,
}

impl ResourceName {
    /// Joins a noun and the parts of a path that were parsed before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the whole is too long.
    pub fn join(noun: &str, parts: &[&str]) -> Result<Self> {
        let mut text = String::from(noun);
        for part in parts {
            text.push('/');
            text.push_str(part);
        }
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_canonical_is_refused() {
        let long = "a".repeat(64);
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/..",
            "a..b",
            "A",
            "alice ",
            " alice",
            "a%2fb",
            "a\0",
            "a\n",
            "*",
            "a/*",
            "é",
            "a'b",
            "a\"b",
            "a;b",
            ".a",
            "-a",
            "_a",
            "a\u{2028}b",
            &long,
        ];
        for name in bad {
            assert!(name.parse::<IdentityName>().is_err(), "{name:?}");
            assert!(name.parse::<ResourceName>().is_err(), "{name:?}");
            assert!(name.parse::<Segment>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!("a/b/c/d".parse::<IdentityName>().is_ok());
        assert!("a/b/c/d/e".parse::<IdentityName>().is_err());
        assert!(vec!["a"; 17].join("/").parse::<ResourceName>().is_ok());
        assert!(vec!["a"; 18].join("/").parse::<ResourceName>().is_err());
        assert!("a/b".parse::<Segment>().is_err());
    }
}
