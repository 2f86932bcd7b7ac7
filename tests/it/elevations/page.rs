//! `docs/elevation.md` says what the table of transitions in the code says, and its commands are
//! commands.

use std::collections::BTreeSet;
use std::fs;

use clap::Parser as _;
use strongroom::cli::Cli;
use strongroom::types::TRANSITIONS;

#[test]
fn the_page_prints_the_one_table_of_transitions() {
    let text = fs::read_to_string("docs/elevation.md").unwrap();
    let (_, table) = text.split_once("| from | event | to | by |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let said: BTreeSet<_> = rows
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
            cells.take(3).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let known: BTreeSet<_> = TRANSITIONS
        .iter()
        .map(|(from, by, to)| vec![from.to_string(), by.to_string(), to.to_string()])
        .collect();
    assert_eq!(said, known, "left: the page; right: the table in src/types/elevation.rs");
}

/// Splits a line as a shell does, up to the end of its first command.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, end) if "|;)>&".contains(end) || (end == '#' && word.is_none()) => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (Some(_) | None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Who types a command on a page, and the command, without the program's name; with what the page
/// says of it.
pub(crate) type Typed = (String, Vec<String>, String);

/// Lists the commands of this program in the blocks of a page, or of a part of it.
pub(crate) fn typed(page: &str) -> Vec<Typed> {
    let (mut fenced, mut found) = (false, Vec::new());
    let joined = page.replace("\\\n", " ");
    for line in joined.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            continue;
        }
        for (place, _) in line.match_indices("strongroom ") {
            let (before, after) = line.split_at(place);
            let begins = before.is_empty() || before.ends_with([' ', '(', '$']);
            // A word of a command, a comment or a value is no command.
            let quoted = before.contains('#') || before.matches('"').count() % 2 == 1;
            if !begins || (quoted && !before.ends_with('(')) || before.ends_with("-u ") {
                continue;
            }
            let who = before.split('$').next().unwrap_or_default().trim().to_owned();
            let said = after.split_once(" # ").map_or("", |(_, said)| said).trim().to_owned();
            found.push((who, words(after), said));
        }
    }
    found
}

#[test]
fn every_command_on_a_page_is_one_that_the_program_takes() {
    let mut seen = 0;
    let pages = [
        "elevation",
        "enrolment",
        "factors",
        "federation",
        "notices",
        "secrets",
        "tokens",
        "identities",
        "leases",
        "people",
        "wrapping",
        "artifacts",
        "ceremonies",
        "keys",
        "rotation",
        "shredding",
    ];
    for page in pages {
        let text = fs::read_to_string(format!("docs/{page}.md")).unwrap();
        for (_, words, _) in typed(&text) {
            seen += 1;
            if let Err(refused) = Cli::try_parse_from(&words) {
                panic!("docs/{page}.md: {words:?}\n{refused}");
            }
        }
    }
    assert!(seen > 40, "{seen}");
    for wrong in ["strongroom db credentials analytics/admin", "strongroom elevate grant"] {
        assert!(Cli::try_parse_from(words(wrong)).is_err(), "{wrong}");
    }
}
