//! Each house rule broken once on purpose: a check that never fails checks nothing.

use super::{
    BTreeSet, MAX_LINES, Source, dependency_faults, difference, machine_path_faults, room_faults,
    rpcs_of, size_faults,
};

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

fn faults_of(path: &str, text: &str) -> Vec<String> {
    room_faults(&[source(path, text)])
}

#[test]
fn an_import_upward_is_found_however_it_is_written() {
    let table = [
        ("src/store/kv.rs", "use crate::vault::View;"),
        ("src/store/kv.rs", "use crate::{types::Id, vault::{View, Limits as L}};"),
        ("src/store/kv.rs", "use crate::vault as v;"),
        ("src/store/kv.rs", "use super::super::vault::View;"),
        ("src/store/mod.rs", "pub use super::vault::*;"),
        ("src/store/mod.rs", "mod tests { use super::super::vault::View; }"),
        ("src/store.rs", "fn f() { crate::vault::run(); }"),
        ("src/store.rs", "fn f(v: &Option<crate::vault::View>) {}"),
        ("src/store.rs", "impl crate::vault::Operation for X {}"),
        ("src/store.rs", "#[derive(crate::vault::Derive)] struct S;"),
        ("src/store.rs", "fn f() { println!(\"{}\", crate::vault::NAME); }"),
        ("src/store.rs", "macro_rules! m { () => { $crate::vault::run() } }"),
        ("src/store.rs", "pub(in crate::vault) fn f() {}"),
    ];
    for (path, text) in table {
        let faults = faults_of(path, text);
        assert!(faults.iter().any(|f| f.contains("imports `vault`, which is higher")), "{text}");
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
    }
}

#[test]
fn imports_downward_and_within_a_room_pass() {
    let table = [
        (
            "src/vault/run.rs",
            "use crate::store::Reader; use super::View; use crate::vault::Limits;",
        ),
        ("src/store/mod.rs", "mod kv; pub use kv::Kv; use self::kv::X; pub(crate) struct S;"),
        ("src/store/mod.rs", "mod tests { use super::*; use super::super::types::Id; }"),
        ("src/store/kv.rs", "use crate::{Error, Result}; fn f() -> Result<(), crate::Error> {}"),
        ("src/main.rs", "use strongroom::{cli, server};"),
        ("src/lib.rs", "pub mod vault; pub use error::Error;"),
    ];
    for (path, text) in table {
        assert_eq!(faults_of(path, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn an_exported_macro_belongs_to_the_room_that_defines_it() {
    let exported = "#[macro_export] macro_rules! m { () => {} }";
    let below = source("src/store/kv.rs", "fn f() { crate::m!(); }");
    let faults = room_faults(&[source("src/vault/m.rs", exported), below]);
    assert_eq!(faults, ["src/store/kv.rs: `store` imports `vault`, which is higher"]);
    let above = source("src/vault/run.rs", "fn f() { crate::m!(); }");
    assert_eq!(room_faults(&[source("src/store/m.rs", exported), above]), Vec::<String>::new());
}

#[test]
fn a_room_that_is_not_in_the_table_is_found() {
    assert!(faults_of("src/attic.rs", "")[0].contains("room `attic` is not in the table"));
    assert!(faults_of("src/attic/mod.rs", "")[0].contains("room `attic` is not in the table"));
    let faults = faults_of("src/vault.rs", "use crate::attic::Box;");
    assert!(faults[0].contains("`crate::attic` is no room of the table"), "{faults:?}");
    assert!(faults_of("src/vault.rs", "fn {")[0].contains("cannot be parsed"));
}

#[test]
fn imports_that_cannot_be_followed_are_refused() {
    let table = [
        ("src/store/mod.rs", "use crate::*;", "by glob"),
        ("src/store/mod.rs", "use super::*;", "by glob"),
        ("src/store/mod.rs", "use crate as c;", "renamed"),
        ("src/store/mod.rs", "use crate::{self as c};", "renamed"),
        ("src/store/mod.rs", "m! { use crate::{vault::View}; }", "a macro imports a group"),
    ];
    for (path, text, expected) in table {
        let faults = faults_of(path, text);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{text}: {faults:?}");
    }
}

#[test]
fn a_circle_within_a_layer_is_found() {
    let one = source("src/keyring/mod.rs", "use crate::audit::Entry;");
    let two = source("src/audit/mod.rs", "use crate::policy::Decision;");
    let three = source("src/policy/mod.rs", "use crate::keyring::Key;");
    assert_eq!(
        room_faults(&[one, two, three]),
        ["a circle of rooms: audit → policy → keyring → audit"]
    );
    let one = source("src/keyring/mod.rs", "use crate::audit::Entry; use crate::policy::D;");
    let two = source("src/audit/mod.rs", "use crate::policy::Decision;");
    assert_eq!(room_faults(&[one, two]), Vec::<String>::new());
}

#[test]
fn writing_past_the_vault_is_found() {
    let table = [
        ("use crate::store::Writer;", "`Writer`"),
        ("use crate::store::{Reader, Writer as W};", "`Writer`"),
        ("fn f(w: &crate::store::Writer) {}", "`Writer`"),
        ("use crate::store; fn f(w: &store::Writer) {}", "`Writer`"),
        ("fn f() { op.commit(ctx, tx); }", "`.commit(`"),
        ("fn f() { g(|| op\n.prepare(ctx)); }", "`.prepare(`"),
        ("fn f() { Operation::commit(&op); }", "`.commit(`"),
        ("fn f() { ops.map(Operation::prepare); }", "`.prepare(`"),
        ("fn f() { select! { x = op.commit(ctx) => x } }", "`.commit(`"),
    ];
    for (text, expected) in table {
        let faults = faults_of("src/engines/secrets.rs", text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].contains(&format!("{expected} is kept to")), "{text}: {faults:?}");
        for path in ["src/store/kv.rs", "src/vault/run.rs", "src/server.rs"] {
            assert_eq!(faults_of(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }
    let defined = "impl Operation for Put { fn prepare(&self) {} fn commit(&self) {} }";
    assert_eq!(faults_of("src/engines/secrets.rs", defined), Vec::<String>::new());
}

#[test]
fn a_file_that_grew_is_found() {
    let fits = source("src/a.rs", &"\n".repeat(MAX_LINES));
    let grew = source("tests/it/b.rs", &"\n".repeat(MAX_LINES + 1));
    assert_eq!(size_faults(&[fits, grew]), ["tests/it/b.rs: 501 lines, at most 500"]);
}

#[test]
fn an_rpc_without_a_verb_is_found() {
    let proto = "service SecretService {\n  // rpc Old(X) returns (Y);\n  rpc Put(PutRequest) \
                 returns (A) {}\n  rpc Get (GetRequest)\n      returns (stream B);\n}\n\
                 service KeyService { }\nservice PkiService {\nrpc Sign(S) returns (T);\n}";
    let found = rpcs_of(proto);
    let expected = ["PkiService/Sign", "SecretService/Get", "SecretService/Put"];
    assert_eq!(found, BTreeSet::from(expected.map(String::from)));
    let verbs = BTreeSet::from(["SecretService/Put".to_owned(), "PkiService/Sign".to_owned()]);
    assert_eq!(difference(&found, &verbs, "has no verb"), ["SecretService/Get has no verb"]);
}

#[test]
fn a_dependency_without_a_line_is_found_and_a_line_without_one() {
    let manifest = "[dependencies]\na = \"1\"\n[dev-dependencies]\nb = \"1\"\n\
                    [build-dependencies]\nc = { version = \"1\" }";
    let docs = "| `a` | why |\n| `d` | why |\nonly a mention of `b`\n";
    assert_eq!(
        dependency_faults(manifest, docs),
        [
            "b has no line in docs/dependencies.md",
            "c has no line in docs/dependencies.md",
            "d is explained but no dependency",
        ]
    );
}

#[test]
fn a_path_of_a_machine_is_found() {
    let paths = ["work", "root", "home", "Users"].map(|dir| format!("see /{dir}/me/key.pem"));
    for text in &paths {
        let found = machine_path_faults(&source("README.md", &format!("fine\n{text}")));
        assert_eq!(found, ["README.md:2: a path of somebody's machine"], "{text}");
    }
    let fine =
        ["https://example.org/work/x", "strongroom/root/1", "src/home/a", "/etc/strongroom/a"];
    for text in fine {
        assert!(machine_path_faults(&source("README.md", text)).is_empty(), "{text}");
    }
}
