//! `strongroom actions`: every verb, from the same table that grants are checked against.

use serde_json::json;

use super::failure::Outcome;
use super::output::{Format, show, table};
use crate::types::VERBS;

/// Prints every verb.
pub(super) fn print_all(format: Format) -> Outcome {
    let verbs: Vec<_> = VERBS
        .iter()
        .map(|verb| {
            json!({
                "action": verb.action,
                "rpc": verb.rpc,
                "resource": verb.resource,
                "administrative": verb.administrative,
                "standing": verb.standing,
                "ceremony": verb.ceremony,
            })
        })
        .collect();
    show(format, &verbs, |_| {
        let rows = VERBS.iter().map(|verb| {
            let yes = |it| if it { "yes" } else { "no" };
            let (administrative, standing) = (yes(verb.administrative), yes(verb.standing));
            [verb.action, verb.resource, administrative, standing, verb.rpc].map(str::to_owned)
        });
        table(["ACTION", "RESOURCE", "ADMINISTRATIVE", "MAKES WHAT STANDS", "RPC"], rows)
    })
}
