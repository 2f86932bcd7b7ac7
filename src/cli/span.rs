//! Spans of time as people write them: `90d`, `1h30m`, `45m`. Parsed here and nowhere else.

use std::fmt;
use std::str::FromStr;

const UNITS: [(&str, i64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// Longest span in seconds: a hundred years.
const MOST_S: i64 = 36_525 * 86_400;

/// A span of whole seconds, more than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(i64);

impl Span {
    /// Shows the seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0
    }
}

/// Shows the seconds of a span that may be left out: 0 then.
#[must_use]
pub(super) fn seconds_or_default(span: Option<Span>) -> i64 {
    span.map_or(0, Span::seconds)
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || "a time span is like 45m, 1h30m or 90d (units w d h m s)".to_owned();
        let mut rest = text;
        let mut total: i64 = 0;
        let mut larger = i64::MAX;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at_checked(digits).ok_or_else(malformed)?;
            let number: i64 = number.parse().map_err(|_not_a_number| malformed())?;
            let (unit, seconds) =
                UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(malformed)?;
            if *seconds >= larger {
                return Err(malformed());
            }
            larger = *seconds;
            total = number
                .checked_mul(*seconds)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(malformed)?;
            rest = after.strip_prefix(unit).unwrap_or_default();
        }
        if total == 0 {
            return Err(malformed());
        }
        if total > MOST_S {
            Err("a time span is at most 100 years".into())
        } else {
            Ok(Self(total))
        }
    }
}

impl fmt::Display for Span {
    /// Writes it as it is read, in the fewest parts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        // Weeks are read, not written: 90d says more than 12w6d.
        for (unit, seconds) in UNITS.iter().skip(1) {
            if rest >= *seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

/// Writes seconds for people: `-` for none.
#[must_use]
pub(super) fn show_seconds(seconds: i64) -> String {
    if seconds > 0 { Span(seconds).to_string() } else { "-".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("45m", 2_700),
            ("1h", 3_600),
            ("90d", 7_776_000),
            ("2w", 1_209_600),
            ("1h30m", 5_400),
            ("1d1h1m1s", 90_061),
            ("1s", 1),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in [
            "",
            "0s",
            "60",
            "h",
            "1 h",
            "-1h",
            "+1h",
            "1.5h",
            "1H",
            "1h ",
            "1m1h",
            "1h1h",
            "1y",
            "1ms",
            "9223372036854775807w",
            "99999999999999999999s",
            "36526d",
            "1é",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_span_is_written_as_it_is_read() {
        for text in ["45m", "1h", "90d", "1h30m", "1d1h1m1s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!(show_seconds(0), "-");
    }
}
