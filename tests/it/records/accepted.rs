//! What becomes of the log when somebody writes to the database while it is accepted.

use strongroom::error::Error;
use strongroom::keyring::FinalTry;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::system_service_client::SystemServiceClient;
use strongroom::proto::{EntryFilter, SealRequest};
use strongroom::server::{Node, Occasion};
use strongroom::store::Location;
use strongroom::vault::Anchored;

use super::tamper::{accept, forgery, state};
use super::{calls, list, quiet};
use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Fixture, pin};
use crate::support::target::until;

/// Statements that somebody planted: they run whenever a batch is written.
async fn plant(f: &Fixture, hand: &Hand, sql: &str) {
    let on = "CREATE TRIGGER planted AFTER INSERT ON record_batches FOR EACH ROW";
    hand.run(&match f.parts.location {
        Location::Sqlite { .. } => format!("{on} BEGIN {sql}; END"),
        Location::Postgres { .. } => format!(
            "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN {sql}; RETURN NEW; END $$; {on} EXECUTE FUNCTION planted()"
        ),
    })
    .await;
}

async fn entries(hand: &Hand) -> i64 {
    let sum = hand.ask("SELECT '' || SUM(entries) FROM record_batches").await.remove(0);
    sum.parse().unwrap()
}

const BROKEN: &str = "UPDATE log_head SET mac = root";

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_swapped_while_another_is_accepted_is_not_vouched_for() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let [tables @ .., head] = forgery(&hand).await;
        hand.run(&format!("{}; {BROKEN}", tables.join(";"))).await;
        plant(&f, &hand, &head).await;
        let seen = f.node().vault.check_anchor().await.unwrap();
        let Anchored::Altered { found, .. } = seen else { panic!("{seen:?}") };
        // What was accepted was vouched for; what took its place in the same moment was not.
        accept(&f, seen).await.unwrap();
        let after = f.node().vault.check_anchor().await.unwrap();
        let Anchored::Altered { kept, found: swapped } = after else { panic!("{after:?}") };
        assert_eq!(swapped.size, found.size + 1);
        assert!(kept.is_none_or(|kept| kept == found), "{kept:?}");
        let refused = f.node().vault.integrate().await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_that_fails_changes_nothing_and_is_on_record() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        hand.run("UPDATE log_head SET root = lanes").await;
        let before = entries(&hand).await;
        let seen = f.node().vault.check_anchor().await.unwrap();
        assert!(matches!(seen, Anchored::Altered { .. }), "{seen:?}");
        let refused = accept(&f, seen).await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
        assert_eq!(entries(&hand).await, before + 1);
        assert_eq!(f.node().vault.check_anchor().await, Ok(seen));
        assert!(hand.ask("SELECT id FROM ceremonies").await.is_empty(), "nor in its ceremony");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_that_does_not_extend_what_was_accepted() {
    for backend in BACKENDS {
        let mut f = quiet(backend).await;
        let hand = Hand::new(&f.parts.location);
        let mut states = Vec::new();
        for _ in 0..3 {
            calls(&f, 2).await;
            f.node().vault.integrate().await.unwrap();
            states.push(state(&hand).await.join(";"));
        }
        f.node.take().unwrap().stop().await.unwrap();
        hand.run(&states[1]).await;
        f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
        let seen = f.node().vault.check_anchor().await.unwrap();
        assert!(matches!(seen, Anchored::RolledBack { .. }), "{seen:?}");
        accept(&f, seen).await.unwrap();
        // An older head, which this vault vouched for as well.
        hand.run(&format!("{}; UPDATE log_head SET checkpoint = ''", states[0])).await;
        let refused = f.node().vault.integrate().await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
        assert_eq!(hand.ask("SELECT checkpoint FROM log_head").await, [""]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_edited_under_a_good_head_are_an_altered_head_that_can_be_accepted() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let hash = hand.literal(&[0; 32]);
        hand.run(&format!(
            "INSERT INTO record_lanes (lane, node, integrated_seq, integrated_hash) \
             VALUES (78, 'node', 1, {hash})"
        ))
        .await;
        let refused = f.node().vault.integrate().await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
        let seen = f.node().vault.check_anchor().await.unwrap();
        assert!(matches!(seen, Anchored::Altered { .. }), "{seen:?}");
        accept(&f, seen).await.unwrap();
        f.node().vault.integrate().await.unwrap();
        let after = f.node().vault.check_anchor().await.unwrap();
        assert!(matches!(after, Anchored::Unknown | Anchored::Extends { .. }), "{after:?}");
    }
}

/// The restore epoch, the version of its row and the authority epoch.
async fn epochs(hand: &Hand) -> [i64; 3] {
    let sql = "SELECT restore_epoch || ' ' || row_version || ' ' || (SELECT epoch FROM authority) \
               FROM vault";
    let row = hand.ask(sql).await.remove(0);
    let numbers: Vec<i64> = row.split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_raises_the_restore_epoch_where_it_is_recorded_and_nowhere_else() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let vault = f.node().vault.clone();
        let [_, _, authority] = epochs(&hand).await;
        assert_eq!(epochs(&hand).await, [0, 1, authority]);
        for accepted in 1..=2 {
            hand.run(BROKEN).await;
            let seen = vault.check_anchor().await.unwrap();
            accept(&f, seen).await.unwrap();
            assert_eq!(epochs(&hand).await, [accepted, accepted + 1, authority + accepted]);
            let again = accept(&f, seen).await;
            assert!(matches!(again, Err(Error::Precondition(_))), "{again:?}");
        }
        // The row is named by the entries of those that were done, and by no other.
        vault.integrate().await.unwrap();
        let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
        let action = "system.accept-rollback".to_owned();
        let told = list(&mut client, EntryFilter { action, ..EntryFilter::default() }).await;
        let changed: Vec<_> = told.iter().flat_map(|entry| &entry.changes).collect();
        let vaults = changed.iter().filter(|change| change.table == "vault");
        let mut versions: Vec<_> = vaults.map(|change| change.row_version).collect();
        versions.sort_unstable();
        assert_eq!((told.len(), versions), (4, vec![2, 3]));

        // A row that was edited by hand is not raised: what it says is nobody's.
        hand.run(&format!("{BROKEN}; UPDATE vault SET restore_epoch = 9")).await;
        let before = epochs(&hand).await;
        let seen = vault.check_anchor().await.unwrap();
        let refused = accept(&f, seen).await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
        assert_eq!(epochs(&hand).await, before);
        assert_eq!(vault.check_anchor().await, Ok(seen));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_row_of_the_vault_or_its_seal_is_refused_by_a_node_that_saw_the_newer() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        let hand = Hand::new(&f.parts.location);
        let life = &f.node().life;
        for table in ["vault", "seal"] {
            hand.run(&format!("CREATE TABLE old_{table} AS SELECT * FROM {table}")).await;
        }
        hand.run(BROKEN).await;
        let seen = f.node().vault.check_anchor().await.unwrap();
        accept(&f, seen).await.unwrap();
        let mut client = SystemServiceClient::new(f.connect(&f.admin).await);
        client.seal(SealRequest::default()).await.unwrap();
        life.obey_seal().await.unwrap();
        until("it is sealed", async || f.node().vault.is_sealed()).await;
        life.unseal(pin(), FinalTry::Refuse, Occasion::Asked).await.unwrap();

        for table in ["vault", "seal"] {
            let put =
                |from| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {from}");
            hand.run(&format!("CREATE TABLE new_{table} AS SELECT * FROM {table}")).await;
            hand.run(&put(format!("old_{table}"))).await;
            life.seal("a test").await.unwrap();
            let refused = life.unseal(pin(), FinalTry::Refuse, Occasion::Start).await.unwrap_err();
            let Error::Tampered { table: named, .. } = &refused else { panic!("{refused:?}") };
            assert_eq!(*named, table);
            assert!(f.node().vault.is_sealed(), "{table}");
            hand.run(&put(format!("new_{table}"))).await;
            life.unseal(pin(), FinalTry::Refuse, Occasion::Start).await.unwrap();
        }
    }
}
