//! What the program prints: tables for people, JSON for scripts, nothing that a terminal would
//! obey.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::{Exit, Failure, Outcome};
use crate::types::UnixMillis;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    Human,
    /// JSON with the names of the protos; lists are arrays.
    Json,
}

/// Prints a value: as JSON, or what `human` makes of it.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> Outcome {
    match format {
        Format::Human => print(&human(value)),
        Format::Json => print(&json_text(value)),
    }
}

/// Prints a list: as a JSON array, or as a table with a row for each item.
pub(super) fn show_list<T: Serialize, const N: usize>(
    format: Format,
    items: &Listed<T>,
    headers: [&str; N],
    row: impl Fn(&T) -> [String; N],
) -> Outcome {
    show(format, &items.items, |items| table(headers, items.iter().map(row)))?;
    if items.more {
        note("there are more; raise --limit to see them");
    }
    Ok(())
}

/// What a list call gave, up to a limit.
#[derive(Debug)]
pub(super) struct Listed<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// Whether the vault has more.
    pub(super) more: bool,
}

/// Writes text to standard output. A reader that went away is no failure.
pub(crate) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            Err(Failure::new(Exit::Unexpected, format!("standard output takes nothing: {error}")))
        }
    }
}

/// Writes bytes to standard output, as they are.
pub(super) fn print_bytes(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| {
        Failure::new(Exit::Unexpected, format!("standard output takes nothing: {error}"))
    })
}

/// Writes a remark to standard error, where it disturbs no script.
pub(crate) fn note(text: &str) {
    // Nobody can be told where standard error is gone.
    drop(writeln!(io::stderr().lock(), "{}", escape(text)));
}

/// Writes to standard error what no person reads, as it is.
pub(super) fn tell(text: &str) -> Outcome {
    io::stderr().lock().write_all(text.as_bytes()).map_err(|error| {
        Failure::new(Exit::Unexpected, format!("standard error takes nothing: {error}"))
    })
}

/// Writes a value as JSON and a newline.
pub(crate) fn json_text<T: Serialize>(value: &T) -> String {
    let Ok(text) = serde_json::to_string_pretty(value) else {
        return "null\n".into();
    };
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Below U+0020 only our own line breaks are left; the rest can only be inside strings.
        if c != '\n' && is_unprintable(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&[String::from("\\u"), format!("{unit:04x}")].concat());
            }
        } else {
            escaped.push(c);
        }
    }
    escaped.push('\n');
    escaped
}

/// Writes a value as JSON on one line, for streams.
pub(super) fn json_line<T: Serialize>(value: &T) -> String {
    let pretty = json_text(value);
    let mut line: String = pretty.lines().map(str::trim_start).collect();
    line.push('\n');
    line
}

/// Prints one item of a stream on a line: columns cannot be aligned with what is still to come.
pub(super) fn show_next<T: Serialize>(format: Format, item: &T, line: &[String]) -> Outcome {
    match format {
        Format::Human => print(&format!("{}\n", escape(line.join("  ").trim_end()))),
        Format::Json => print(&json_line(item)),
    }
}

/// Says that a stream ended that goes on as long as both ends are there.
pub(super) fn stream_ended() -> Failure {
    note("the vault ended the stream");
    Failure::new(Exit::Unavailable, "the stream ended").hint("run it again to go on")
}

/// Escapes what a terminal would obey, or what would make text read as something else.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Escapes text of several lines, such as PEM, and keeps its line breaks.
pub(crate) fn escape_lines(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 1);
    for line in text.lines() {
        escaped.push_str(&escape(line));
        escaped.push('\n');
    }
    escaped
}

/// Tells control characters, line and paragraph separators and marks of direction.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Aligns rows under headers, two spaces between columns.
pub(crate) fn table<const N: usize>(
    headers: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let head = headers.map(str::to_owned);
    let rows: Vec<[String; N]> =
        std::iter::once(head).chain(rows.map(|row| row.map(|cell| show_cell(&cell)))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', (width + 2).saturating_sub(cell.chars().count())));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Aligns names and values, one pair a line; pairs without a value are left out.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}\n", escape(value));
    shown().map(line).collect::<Vec<_>>().concat()
}

fn show_cell(text: &str) -> String {
    if text.is_empty() { "-".into() } else { escape(text) }
}

/// Writes a time for people: nothing for none.
pub(crate) fn time(ms: i64) -> String {
    if ms == 0 { String::new() } else { UnixMillis(ms).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_shown() {
        let rows = [["alice".to_owned(), String::new()], ["bo".to_owned(), "human".to_owned()]];
        assert_eq!(
            table(["NAME", "KIND"], rows.into_iter()),
            "NAME   KIND\nalice  -\nbo     human\n"
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let pairs =
            [("name", "a".to_owned()), ("expires", String::new()), ("owner", "b".to_owned())];
        assert_eq!(fields(&pairs), "name   a\nowner  b\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_everywhere() {
        let hostile =
            "a\x1b]0;title\x07\r\n\u{9b}31m\u{2028}\u{202e}cod\u{200b}\u{feff}\u{2066}b\x7f";
        let shown = [
            escape(hostile),
            table(["H"], [[hostile.to_owned()]].into_iter()),
            fields(&[("f", hostile.to_owned())]),
            json_text(&hostile),
            json_line(&hostile),
            escape_lines(hostile),
        ];
        for text in shown {
            assert!(text.chars().all(|c| c == '\n' || !is_unprintable(c)), "{text:?}");
            assert!(text.contains("31m"), "{text:?}");
        }
        let read: String = serde_json::from_str(&json_text(&hostile)).unwrap();
        assert_eq!(read, hostile, "escaping changes no value");
    }

    #[test]
    fn a_line_of_a_stream_is_one_line() {
        let line = json_line(&serde_json::json!({ "a": [1, 2], "b": "x\n y" }));
        assert_eq!(line.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["b"], "x\n y");
    }
}
