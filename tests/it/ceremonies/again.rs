//! Whom a restore of the store brings back: shredded again before anybody is served, though nobody said
//! who they were.

use std::fs;
use std::path::PathBuf;

use strongroom::Error;
use strongroom::engines::identities::ShredAgain;
use strongroom::hsm::memory::MemoryFault;
use strongroom::keyring::Shredded;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{EntryFilter, ListEntriesRequest};
use strongroom::server::{AcceptOrder, Accepted, Node};
use strongroom::store::Location;
use strongroom::types::{Caller, Id, IdentityId, State};
use tempfile::TempDir;

use super::shred::{Place, all_shredded};
use super::*;
use crate::support::hand::Hand;
use crate::support::logins::sign;
use crate::support::node::{BACKENDS, pin};

/// The files of a SQLite store.
fn files(f: &Fixture) -> [PathBuf; 3] {
    let Location::Sqlite { path, .. } = &f.parts.location else { panic!("not SQLite") };
    ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())))
}

async fn stop(f: &mut Fixture) {
    f.node.take().unwrap().stop().await.unwrap();
}

async fn start(f: &mut Fixture) {
    f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
}

/// Stops the node, copies its store, and starts it again.
async fn copied(f: &mut Fixture) -> TempDir {
    stop(f).await;
    let copy = tempfile::tempdir().unwrap();
    for file in files(f).into_iter().filter(|file| file.exists()) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    start(f).await;
    copy
}

/// Puts a copy in the place of the store, and starts the node.
async fn put_back(f: &mut Fixture, copy: &TempDir) {
    if f.node.is_some() {
        stop(f).await;
    }
    for file in files(f) {
        drop(fs::remove_file(&file));
        let old = copy.path().join(file.file_name().unwrap());
        if old.exists() {
            fs::copy(old, file).unwrap();
        }
    }
    start(f).await;
}

/// Why the node waits.
fn held(f: &Fixture) -> String {
    let state = f.node().life.standing().state();
    let State::Held(why) = &state else { panic!("{state:?}") };
    why.clone()
}

/// Accepts the store as the administrator of a development vault.
async fn accept(f: &Fixture) {
    let life = &f.node().life;
    let waits = life.rollback().await.unwrap();
    let (certificate_der, signature) = sign(&f.admin, &waits.statement());
    let order = AcceptOrder { certificate_der, signature, ceremony: None, code: None };
    assert_eq!(life.accept(order).await, Ok(Accepted::Wholly));
    assert_eq!(life.standing().state(), State::Serving);
}

/// Nothing of alice opens, and the store says that a restore is why.
async fn is_shredded_again(p: &Place) {
    assert!(p.wraps().await.is_empty());
    let bob = p.f.connect(&p.bob).await;
    let uses = p.uses(&bob).await;
    assert!(all_shredded(&uses), "{uses:?}");
    let shown = shredding(&p.f.connect(&p.f.admin).await, "alice").await.shred.unwrap();
    assert_eq!((shown.shredded_by.as_str(), shown.key_versions), ("restore", 1));
}

async fn shreds(f: &Fixture) -> String {
    Hand::new(&f.parts.location).ask("SELECT '' || COUNT(*) FROM shreds").await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_store_brings_nobody_back_once_it_is_accepted() {
    let mut p = Place::new(Backend::Sqlite).await;
    let copy = copied(&mut p.f).await;
    shred(&p.f.connect(&p.f.admin).await, "alice").await.unwrap();
    for round in 0..2 {
        put_back(&mut p.f, &copy).await;
        assert!(!held(&p.f).contains("shredded"), "{}", held(&p.f));
        assert_eq!(p.wraps().await.len(), 1, "{round}: as it was before");
        accept(&p.f).await;
        is_shredded_again(&p).await;
    }
    p.f.restart().await;
    is_shredded_again(&p).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_kept_from_the_hsm_is_there_after_the_next_start() {
    let mut p = Place::new(Backend::Sqlite).await;
    let copy = copied(&mut p.f).await;
    let label = format!("strongroom/{}/shredded", p.f.node().vault.installation().id);
    let admin = p.f.connect(&p.f.admin).await;
    p.f.hsm.set_fault(Some(MemoryFault::Unavailable));
    let told = shred(&admin, "alice").await.unwrap_err();
    assert!(told.message().starts_with("it is shredded, but"), "{told}");
    // The process ends here, as far as the HSM knows.
    drop(p.f.node.take().unwrap().stop().await);
    p.f.hsm.set_fault(None);
    start(&mut p.f).await;
    assert!(p.f.parts.hsm.read_data(&label).await.unwrap().is_some());
    put_back(&mut p.f, &copy).await;
    accept(&p.f).await;
    is_shredded_again(&p).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_asks_for_a_shredding_is_told_so_while_the_hsm_does_not_answer() {
    let s = Stage::new(Backend::Sqlite).await;
    s.f.hsm.set_fault(Some(MemoryFault::Unavailable));
    let asked = opened(&s.second, "etl").await;
    s.f.hsm.set_fault(None);
    assert_eq!(asked.state, "open");
    assert!(shredding(&s.admin, "etl").await.shred.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_puts_back_under_a_stopped_node_bring_nobody_back() {
    const ALL: [&str; 5] =
        ["identities", "identity_keys", "key_wraps", "named_key_versions", "shreds"];
    for backend in BACKENDS {
        // All that tells of it, as a restore to a point in time does; and what opens alone.
        for (tables, by) in [(&ALL[..], "restore"), (&ALL[1..3], "admin")] {
            let mut p = Place::new(backend).await;
            stop(&mut p.f).await;
            for table in tables {
                p.hand().run(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
            }
            start(&mut p.f).await;
            shred(&p.f.connect(&p.f.admin).await, "alice").await.unwrap();
            stop(&mut p.f).await;
            for table in tables {
                let sql = format!(
                    "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}; \
                     DROP TABLE kept_{table}"
                );
                p.hand().run(&sql).await;
            }
            assert_eq!(p.wraps().await.len(), 1);
            start(&mut p.f).await;
            assert_eq!(p.f.node().life.standing().state(), State::Serving, "the log is whole");
            assert!(p.wraps().await.is_empty(), "{tables:?}");
            let uses = p.uses(&p.f.connect(&p.bob).await).await;
            assert!(all_shredded(&uses), "{tables:?}: {uses:?}");
            let shown = shredding(&p.f.connect(&p.f.admin).await, "alice").await.shred.unwrap();
            assert_eq!(shown.shredded_by, by);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_ids_shreds_whoever_is_on_it_and_a_line_that_is_none_keeps_the_vault_sealed() {
    let mut p = Place::new(Backend::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("shredded");
    p.f.parts.shredded = Some(list.clone());
    p.f.restart().await;
    assert!(!list.exists(), "nobody was shredded");
    stop(&mut p.f).await;
    fs::write(&list, "alice\n").unwrap();
    let refused = Node::start(p.f.parts.clone(), pin()).await.unwrap_err();
    assert!(matches!(&refused, Error::Precondition(why) if why.contains("line 1 of")), "{refused}");
    assert_eq!(p.wraps().await.len(), 1);
    // As somebody writes it who restored from far back: without an end of the line.
    let alice = p.alice_id().await;
    fs::write(&list, &alice).unwrap();
    start(&mut p.f).await;
    is_shredded_again(&p).await;
    register(&p.f, "later", "human", "").await;
    let later = shred(&p.f.connect(&p.f.admin).await, "later").await.unwrap().identity_id;
    assert_eq!(fs::read_to_string(&list).unwrap(), format!("{alice}\n{later}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_took_out_is_made_again_and_keeps_no_later_start_waiting() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        register(&p.f, "later", "human", "").await;
        for name in ["alice", "later"] {
            shred(&p.f.connect(&p.f.admin).await, name).await.unwrap();
        }
        p.hand().run("DELETE FROM shreds WHERE number = 1").await;
        let told = p.f.node().vault.keep_shreds().await;
        assert!(matches!(told, Err(Error::Tampered { .. })), "{told:?}");
        for round in 0..3 {
            p.f.restart().await;
            assert_eq!(p.f.node().life.standing().state(), State::Serving, "{round}");
            assert_eq!(shreds(&p.f).await, "2", "{round}");
        }
        p.f.node().vault.keep_shreds().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_list_keeps_neither_the_hsm_from_hearing_nor_the_vault_sealed() {
    let mut p = Place::new(Backend::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("none").join("shredded");
    p.f.parts.shredded = Some(list.clone());
    p.f.restart().await;
    let label = format!("strongroom/{}/shredded", p.f.node().vault.installation().id);
    let told = shred(&p.f.connect(&p.f.admin).await, "alice").await.unwrap_err();
    assert!(told.message().starts_with("it is shredded, but"), "{told}");
    assert!(p.f.parts.hsm.read_data(&label).await.unwrap().is_some());
    p.f.restart().await;
    assert_eq!(p.f.node().life.standing().state(), State::Serving);
    fs::create_dir(dir.path().join("none")).unwrap();
    p.f.node().vault.keep_shreds().await.unwrap();
    assert_eq!(fs::read_to_string(&list).unwrap(), format!("{}\n", p.alice_id().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_whom_nobody_names_are_told_of_and_the_list_that_names_them_brings_them_in() {
    let mut f = Fixture::new().await;
    let copy = copied(&mut f).await;
    let id = |n: usize| IdentityId(Id::from_bytes((n as u128).to_be_bytes()));
    let ids: Vec<_> = (0..Shredded::NAMED + 3).map(id).collect();
    let vault = &f.node().vault;
    for id in &ids {
        let ctx = vault.context(Caller::System("restore"), None).unwrap();
        vault.run(&ctx, ShredAgain { id: *id }).await.unwrap();
    }
    vault.keep_shreds().await.unwrap();
    // A row that somebody puts in does not make the HSM count one whom nobody will ever name.
    let label = format!("strongroom/{}/shredded", vault.installation().id);
    let before = f.parts.hsm.read_data(&label).await.unwrap();
    let forged = Hand::new(&f.parts.location);
    let sql = "CREATE TEMP TABLE one AS SELECT * FROM shreds WHERE number = 1; \
               UPDATE one SET id = '0197a1c0-0000-7000-8000-000000000001', number = -1; \
               INSERT INTO shreds SELECT * FROM one";
    forged.run(sql).await;
    let told = vault.keep_shreds().await;
    assert!(matches!(told, Err(Error::Tampered { .. })), "{told:?}");
    assert_eq!(f.parts.hsm.read_data(&label).await.unwrap(), before);
    forged.run("DELETE FROM shreds WHERE number = -1").await;
    let listed = IdentityServiceClient::new(f.connect(&f.admin).await)
        .list_shreds(strongroom::proto::ListShredsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().shreds[0].identity, "", "this store does not know them");

    put_back(&mut f, &copy).await;
    let why = held(&f);
    assert!(why.contains("3 identities that were shredded are in neither"), "{why}");
    accept(&f).await;
    assert_eq!(shreds(&f).await, Shredded::NAMED.to_string());
    f.node().vault.integrate().await.unwrap();
    let action = "system.accept-rollback".to_owned();
    let filter = Some(EntryFilter { action, ..Default::default() });
    let request = ListEntriesRequest { filter, ..Default::default() };
    let mut record = RecordServiceClient::new(f.connect(&f.admin).await);
    let told = record.list_entries(request).await.unwrap().into_inner().entries.remove(0).detail;
    assert!(told.contains(", 3 who were shredded are named nowhere"), "{told}");
    f.restart().await;
    assert_eq!(f.node().life.standing().state(), State::Serving, "they are let go of");

    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("shredded");
    let lines: Vec<_> = ids.iter().map(ToString::to_string).collect();
    fs::write(&list, lines.join("\n")).unwrap();
    f.parts.shredded = Some(list);
    put_back(&mut f, &copy).await;
    assert!(!held(&f).contains("shredded"), "{}", held(&f));
    accept(&f).await;
    assert_eq!(shreds(&f).await, ids.len().to_string());
}
