//! Founding a vault: who may be first, and what an interrupted founding leaves.

use std::fs;
use std::sync::Arc;

use strongroom::engines::pki::Request;
use strongroom::hsm::{Hsm as _, MemoryHsm};
use strongroom::server::{First, Founding, Ingredients, Node, found};
use strongroom::store::Location;
use strongroom::types::VaultId;
use tempfile::TempDir;

use crate::support::node::{Backend, Fixture, csr, location, pin};
use crate::support::program::{Installation, text};

fn founding(dev: bool, first: fn(Request) -> First) -> Founding {
    Founding {
        trust_domain: "vault.test".parse().unwrap(),
        origin: "vault.test/log".to_owned(),
        dev,
        first: first(Request::parse(csr().1.as_bytes()).unwrap()),
    }
}

/// An empty store for a token.
async fn place(f: &Fixture, hsm: &Arc<MemoryHsm>) -> (TempDir, Ingredients) {
    let dir = TempDir::new().unwrap();
    let location = location(Backend::Sqlite, dir.path()).await;
    let hsm = Arc::clone(hsm) as Arc<dyn strongroom::hsm::Hsm>;
    (dir, Ingredients { location, hsm, ..f.parts.clone() })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_made_by_hand_is_refused_outside_development() {
    let f = Fixture::new().await;
    let (_dir, parts) = place(&f, &Arc::new(MemoryHsm::new(pin()))).await;
    let refused = found(&parts, &founding(false, First::Administrator), pin()).await.unwrap_err();
    assert_eq!(refused.reason(), "PRECONDITION");
    // And it left nothing.
    found(&parts, &founding(false, First::Bootstrap), pin()).await.unwrap();
    // Its entry has the log's first place before anything else is asked.
    let Location::Sqlite { path, .. } = &parts.location else { panic!("it is on SQLite") };
    let store = rusqlite::Connection::open(path).unwrap();
    let size: i64 = store.query_row("SELECT size FROM log_head", [], |row| row.get(0)).unwrap();
    assert_eq!(size, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founding_whose_note_stayed_is_not_resumed_by_another_store() {
    let f = Fixture::new().await;
    let hsm = Arc::new(MemoryHsm::new(pin()));
    let (_dir, parts) = place(&f, &hsm).await;
    let first = found(&parts, &founding(false, First::Bootstrap), pin()).await.unwrap();
    // As after a crash between the commit and the note's removal.
    hsm.login(pin()).await.unwrap();
    hsm.write_data("strongroom/pending", first.vault.0.as_bytes()).await.unwrap();
    hsm.logout().await.unwrap();

    let (_other, elsewhere) = place(&f, &hsm).await;
    let second = found(&elsewhere, &founding(false, First::Bootstrap), pin()).await.unwrap();
    let ids: [VaultId; 2] = [first.vault, second.vault];
    assert_ne!(ids[0], ids[1]);
    assert_ne!(first.root_pem, second.root_pem, "another key");
    for parts in [parts, elsewhere] {
        Node::start(parts, pin()).await.unwrap().stop().await.unwrap();
    }
}

#[test]
fn init_after_a_crash_before_its_answer_hands_out_the_same_certificate() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let out = real.dir.path().join("out");
    let certificate = fs::read(out.join("bootstrap.pem")).unwrap();
    let root = fs::read(out.join("ca.pem")).unwrap();
    let whole = real.init();
    assert_eq!(whole.status.code(), Some(6), "{}", text(&whole.stderr));

    for lost in [["bootstrap.pem", "ca.pem"].as_slice(), &["bootstrap.pem"]] {
        for name in lost {
            fs::remove_file(out.join(name)).unwrap();
        }
        let again = real.init();
        assert!(again.status.success(), "{}", text(&again.stderr));
        assert_eq!(fs::read(out.join("bootstrap.pem")).unwrap(), certificate);
        assert_eq!(fs::read(out.join("ca.pem")).unwrap(), root);
    }

    // Another key gets nothing.
    fs::remove_file(out.join("bootstrap.pem")).unwrap();
    fs::write(out.join("bootstrap.key"), csr().0).unwrap();
    let refused = real.init();
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("another key"), "{}", text(&refused.stderr));
    assert!(!out.join("bootstrap.pem").exists());
}
