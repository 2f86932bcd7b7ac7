//! Free text that people write and read: purposes, reasons, tickets.

use crate::error::{Error, Result};

/// Bytes of a purpose or a reason at most.
pub(in crate::engines) const LONG: usize = 1_024;
/// Bytes of a ticket at most.
pub(in crate::engines) const SHORT: usize = 128;

/// Checks text that is shown to people: bounded, on one line, and without characters that move or
/// hide what stands around them.
///
/// # Errors
/// [`Error::Invalid`].
pub(in crate::engines) fn check_text(what: &'static str, text: &str, bytes: usize) -> Result<()> {
    if text.len() > bytes {
        return Err(Error::invalid(format!("{what} has at most {bytes} bytes")));
    }
    if text.chars().any(is_unseen) {
        return Err(Error::invalid(format!("{what} is one line of plain characters")));
    }
    Ok(())
}

/// Checks what an identity is for: somebody has to say.
///
/// # Errors
/// [`Error::Invalid`].
pub(super) fn check_purpose(text: &str) -> Result<()> {
    check_text("a purpose", text, LONG)?;
    if text.trim().is_empty() {
        return Err(Error::invalid("an identity has a purpose: say what it is for"));
    }
    Ok(())
}

/// Control characters, other line ends, zero width and changes of direction (Unicode, section 23.2).
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_deceive_a_reader_is_refused() {
        for bad in ["a\nb", "a\rb", "\u{1b}[31m", "a\0", "a\u{2028}b", "a\u{202e}b", "a\u{feff}"] {
            assert!(check_text("a reason", bad, LONG).is_err(), "{bad:?}");
        }
        for good in ["", "für Müller & Söhne: 'quoted'; <tag>", "夜間バッチ"] {
            assert_eq!(check_text("a reason", good, LONG), Ok(()), "{good:?}");
        }
        assert!(check_text("a ticket", &"x".repeat(SHORT + 1), SHORT).is_err());
        assert!(check_text("a ticket", &"x".repeat(SHORT), SHORT).is_ok());
    }
}
