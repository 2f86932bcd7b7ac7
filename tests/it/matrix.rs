//! The authorization matrix: every RPC by every role through the real socket, against the table in
//! `docs/authorization-matrix.md`. An RPC without its row, or whose row says something else than
//! what the vault answers, fails here.

mod enrolments;
mod issuers;
mod keys;
mod requests;
mod roles;
mod secrets;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use prost_reflect::DescriptorPool;
use strongroom::proto::DESCRIPTORS;
use strongroom::types::VERBS;

use self::roles::{ROLES, Scene};
use crate::support::node::BACKENDS;

const PAGE: &str = "docs/authorization-matrix.md";

/// One row of the page: an RPC, and what each role is answered.
type Row = (String, Vec<String>);

#[test]
fn every_rpc_has_its_row_and_every_row_its_rpc() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let rpcs: BTreeSet<_> = pool
        .services()
        .flat_map(|service| {
            let methods: Vec<_> = service.methods().collect();
            methods.into_iter().map(move |method| format!("{}/{}", service.name(), method.name()))
        })
        .collect();
    let rows = page();
    let named: BTreeSet<_> = rows.iter().map(|(rpc, _)| rpc.clone()).collect();
    assert_eq!(named.len(), rows.len(), "a row stands twice");
    assert_eq!(rpcs, named, "left: the protos; right: {PAGE}");
}

#[test]
fn the_page_lets_no_machine_administer_and_no_stranger_in() {
    let rows: BTreeMap<_, _> = page().into_iter().collect();
    for verb in VERBS {
        let row = &rows[verb.rpc];
        // Whoever wants to sign in asks where, before they are anybody.
        if verb.action == "issuers.list-providers" {
            assert!(row.iter().all(|cell| cell == "ok"), "{}", verb.rpc);
            continue;
        }
        let of = |role: &str| row[ROLES.iter().position(|known| *known == role).unwrap()].as_str();
        for role in ["nobody", "suspended"] {
            assert_eq!(of(role), "stranger", "{} by {role}", verb.rpc);
        }
        if verb.administrative {
            // The granted machine is asked about itself there.
            let itself = verb.action == "identities.show";
            for role in ["machine", "granted machine"].into_iter().take(2 - usize::from(itself)) {
                assert_eq!(of(role), "denied", "{} by {role}", verb.rpc);
            }
            assert_ne!(of("administrator"), "denied", "{}", verb.rpc);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vault_answers_every_role_as_the_page_says() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let mut different = Vec::new();
        for (rpc, said) in page() {
            let answered = scene.ask_all(&rpc).await;
            if said != answered {
                different.push(format!("| `{rpc}` | {} |", answered.join(" | ")));
            }
        }
        assert!(different.is_empty(), "on {backend:?} it answers\n{}", different.join("\n"));
    }
}

/// Reads the page, and that its columns are the roles.
fn page() -> Vec<Row> {
    let text = fs::read_to_string(PAGE).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let head = text.lines().find(|line| line.starts_with("| RPC |")).unwrap();
    assert_eq!(cells(head)[1..], ROLES);
    text.lines()
        .filter(|line| line.starts_with("| `") && line.contains("Service/"))
        .map(|line| {
            let mut cells = cells(line);
            let rpc = cells.remove(0).trim_matches('`').to_owned();
            assert_eq!(cells.len(), ROLES.len(), "{rpc}");
            (rpc, cells)
        })
        .collect()
}
