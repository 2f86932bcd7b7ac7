//! What the page about authorization says of the rules is what they hold.

use std::collections::BTreeSet;

const POLICY: &str = include_str!("../builtin.rego");
const PAGE: &str = include_str!("../../../docs/authorization.md");

/// The actions of one of the policy's sets.
fn set(name: &str) -> BTreeSet<&'static str> {
    let begin = format!("\n{name} := {{");
    let (_, rest) = POLICY.split_once(&begin).expect(name);
    let (body, _) = rest.split_once('}').unwrap();
    body.split('"').skip(1).step_by(2).collect()
}

/// The actions that the one row with these words is about.
fn row(words: &str) -> BTreeSet<&'static str> {
    let mut rows = PAGE.lines().filter(|line| line.starts_with("| ") && line.contains(words));
    let row = rows.next().expect(words);
    assert_eq!(rows.next(), None, "{words}");
    row.split('`').skip(1).step_by(2).filter(|word| word.contains('.')).collect()
}

#[test]
fn the_page_lists_the_actions_of_each_set_of_the_policy() {
    for (name, words) in [
        ("receives", "an identity without an active owner asks for"),
        ("for_self", "on oneself | rule"),
        ("for_all", "rule `everybody`"),
        ("for_holder", "by the holder of the lease"),
        ("for_requester", "by whoever asked for the elevation"),
        ("for_owner", "by the owner of the resource:"),
        ("for_secrets_owner", "by the identity whose data the secret is"),
        ("for_keys_owner", "by the identity whose key it is"),
        ("for_machines_owner", "by the owner of the machine"),
        ("mints", "by an administrator for an identity without"),
        ("mints", "by anybody else, even with a grant"),
    ] {
        let set = set(name);
        assert!(!set.is_empty());
        assert_eq!(row(words), set, "{name}");
    }
}
