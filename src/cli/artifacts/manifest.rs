//! A manifest of artifacts, line by line: what `sha256sum` writes and checks, and stricter.
//!
//! `64 lowercase hexadecimal digits, two spaces, a path`, each line ended by a line feed, in the order
//! of the paths' bytes. No I/O.

use crate::crypto::{HASH_BYTES, hex, parse_hex};

/// Files that a manifest lists at most, as the vault signs it.
pub(super) const FILES: u64 = 1_000_000;
/// Bytes of a path at most.
pub(super) const PATH_BYTES: usize = 4_096;
/// Bytes of a line at most, with its end.
pub(super) const LINE_BYTES: usize = 64 + 2 + PATH_BYTES + 1;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// SHA-256 of its content.
    pub(super) digest: [u8; HASH_BYTES],
    /// Where it is, below the directory.
    pub(super) path: String,
}

/// Refuses a path that leads elsewhere than below a directory, or could be read in two ways.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > PATH_BYTES {
        return Err("a path has 1 to 4,096 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err("a path has no control characters and no backslash");
    }
    if path.starts_with('/') {
        return Err("a path is relative");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a path has no empty part, and neither `.` nor `..`");
    }
    Ok(())
}

impl Line {
    /// Writes it, with its end.
    pub(super) fn write(&self) -> String {
        format!("{}  {}\n", hex(&self.digest), self.path)
    }

    /// Reads it, without its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(line).map_err(|_encoding| "it is no UTF-8")?;
        let malformed = "it is not `SHA-256, two spaces, path`";
        let (digest, rest) = text.split_at_checked(64).ok_or(malformed)?;
        let digest = parse_hex(digest).map_err(|_digits| malformed)?;
        let digest = digest.try_into().map_err(|_length| malformed)?;
        let path = rest.strip_prefix("  ").ok_or(malformed)?;
        check_path(path)?;
        Ok(Self { digest, path: path.to_owned() })
    }
}

/// The order in which lines stand: each path once.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: Option<String>,
    files: u64,
}

impl Order {
    /// Takes the next path.
    ///
    /// # Errors
    /// Where it is not behind the one before, or there are too many.
    pub(super) fn next(&mut self, path: &str) -> Result<(), &'static str> {
        if self.last.as_deref().is_some_and(|last| last >= path) {
            return Err("its path is not behind the one before");
        }
        self.last = Some(path.to_owned());
        self.files = self.files.saturating_add(1);
        if self.files > FILES { Err("a manifest lists at most 1,000,000 files") } else { Ok(()) }
    }

    /// How many there were.
    pub(super) const fn files(&self) -> u64 {
        self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = Line { digest: [0xab; 32], path: "model/weights 1.bin".to_owned() };
        let text = line.write();
        assert_eq!(text, format!("{}  model/weights 1.bin\n", "ab".repeat(32)));
        assert_eq!(Line::parse(text.trim_end_matches('\n').as_bytes()), Ok(line));
    }

    #[test]
    fn paths_that_lead_elsewhere_or_could_be_read_in_two_ways_are_refused() {
        for good in ["a", "a/b", "..a", "a..", "a b", "-", "ä/ö", ".hidden"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let long = "a".repeat(PATH_BYTES + 1);
        for bad in [
            "", "/", "/a", ".", "..", "../a", "a/..", "a/../b", "a//b", "a/", "./a", "a\0b",
            "a\nb", "a\rb", "a\u{85}b", "a\\b", "\\a", &long,
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let digest = "ab".repeat(32);
        for bad in [
            String::new(),
            digest.clone(),
            format!("{digest} a"),
            format!("{digest} *a"),
            format!("{digest}  /a"),
            format!("{digest}\ta"),
            format!("\\{digest}  a"),
            format!("{}  a", "AB".repeat(32)),
            format!("{}  a", "ab".repeat(31)),
            format!("{digest}  a\r"),
        ] {
            assert!(Line::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Line::parse(&[digest.as_bytes(), b"  \xff"].concat()).is_err());
        assert!(Line::parse(&[0xc3; 70]).is_err());
    }

    #[test]
    fn each_path_stands_once_and_in_order() {
        let mut order = Order::default();
        order.next("a").unwrap();
        order.next("a.b").unwrap();
        order.next("a/b").unwrap();
        for again in ["a/b", "a.b", "a"] {
            assert!(Order { last: Some("a/b".to_owned()), files: 1 }.next(again).is_err());
        }
        assert_eq!(order.files(), 3);
        assert!(Order { last: None, files: FILES }.next("b").is_err());
    }
}
