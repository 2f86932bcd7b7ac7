//! What a ticket looks like: `OPS-#`, where `#` stands for digits.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Bytes of a pattern at most.
const MOST: usize = 64;

/// A pattern over tickets: `#` stands for one or more digits, every other character for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TicketPattern(String);

impl TicketPattern {
    /// Tells whether a ticket looks like it.
    pub(super) fn matches(&self, ticket: &str) -> bool {
        let mut rest = ticket;
        for part in self.0.chars() {
            let after = if part == '#' {
                let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                (after.len() < rest.len()).then_some(after)
            } else {
                rest.strip_prefix(part)
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        rest.is_empty()
    }
}

impl FromStr for TicketPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Digits after digits would leave nothing for the second to match.
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= MOST;
        let digits = |pair: &[u8]| pair.iter().all(|b| *b == b'#' || b.is_ascii_digit());
        let greedy = text.as_bytes().windows(2).any(|pair| pair.starts_with(b"#") && digits(pair));
        if !plain || greedy || !text.contains('#') {
            return Err(Error::invalid(
                "a ticket pattern is like OPS-#, where # stands for digits: at most 64 visible \
                 characters, and no digit after a #",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_looks_like_its_pattern_from_end_to_end() {
        let pattern: TicketPattern = "OPS-#/#".parse().unwrap();
        assert!(pattern.matches("OPS-12/3"));
        for bad in
            ["", "OPS-", "OPS-12", "OPS-12/", "ops-12/3", "OPS-12/3 ", "xOPS-12/3", "OPS-a/3"]
        {
            assert!(!pattern.matches(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_or_anything_is_refused() {
        for bad in ["", "OPS", "##", "#1", "a #", "#\n", &"#x".repeat(40)] {
            assert!(bad.parse::<TicketPattern>().is_err(), "{bad:?}");
        }
    }
}
