//! `docs/elevation.md` says what the table of transitions in the code says.

use std::collections::BTreeSet;
use std::fs;

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
