//! What PostgreSQL and the network to it can do: each answer is true.

use super::proxy::{Cut, Proxy};
use super::record::entry;
use super::*;
use crate::support::postgres::Options;

async fn count(place: &Place, what: &str) -> i64 {
    let Place::Postgres { database, .. } = place else { panic!("not PostgreSQL") };
    let answer = Postgres::shared().ask(database, &format!("SELECT COUNT(*) FROM {what}")).await;
    answer.unwrap().parse().unwrap()
}

fn real_leaf() -> Vec<u8> {
    entry(&mut Dice(1), 1).leaf
}

/// A transaction by hand that holds a lock until it is dropped.
async fn hold(database: &str, lock: &str) -> sqlx::PgConnection {
    use sqlx::{ConnectOptions as _, Executor as _};
    let mut held = Postgres::shared().superuser(database).connect().await.unwrap();
    let text = format!("BEGIN; {lock}");
    held.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(text))).await.unwrap();
    held
}

const HIT: &str = "INSERT INTO hits (n) VALUES (1)";

const ONE: &str = "UPDATE hits SET n = n + 10 WHERE n % 10 = 1";
const TWO: &str = "UPDATE hits SET n = n + 10 WHERE n % 10 = 2";

/// A database with a table that counts what took effect.
async fn place_with_hits() -> Place {
    let place = Place::postgres().await;
    place.node().await.close().await;
    place.by_hand("CREATE TABLE hits (n BIGINT)").await;
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_at_commit_is_answered_truthfully_on_both_sides() {
    for (cut, want, hits) in [
        (Cut::Nothing, true, 1),
        (Cut::Before, true, 1),
        (Cut::After, true, 1),
        (Cut::BeforeAndGone, false, 0),
    ] {
        let place = place_with_hits().await;
        let Place::Postgres { port, database } = &place else { panic!("not PostgreSQL") };
        let proxy = Proxy::start(*port).await;
        let node = Node::open(&postgres_at(proxy.port, database, 1)).await.unwrap();
        node.done(insert(identity(1, "a")).leaf(&real_leaf())).await;
        proxy.arm(cut);
        let settled = node.commit(sql(HIT).leaf(&real_leaf())).await;
        assert_eq!(proxy.cuts(), u8::from(cut != Cut::Nothing));
        if want {
            let done = matches!(settled, Settled::Durable { outcome: Ok(()), .. });
            assert!(done, "{cut:?}: {settled:?}");
            let nothing = sql("DELETE FROM identities WHERE id = ''");
            node.done(nothing.leaf(&real_leaf())).await;
            let plan = audit_plan(&node).await;
            assert_eq!(plan, Ok(3), "{cut:?}: every lane's chain holds");
        } else {
            assert_eq!(settled, Settled::Lost(StoreError::OutcomeUnknown));
        }
        assert_eq!(count(&place, "hits").await, hits, "{cut:?}");
        let entries = "record_batches, generate_series(1, entries)";
        assert_eq!(count(&place, entries).await, if want { 3 } else { 1 }, "{cut:?}");
        node.close().await;
    }
}

/// How many entries the next step of the log covers.
async fn audit_plan(node: &Node) -> Result<i64> {
    let plan = strongroom::audit::plan(&node.reader, &node.codec).await?;
    Ok(plan.map_or(0, |plan| plan.head().size))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_at_a_commit_without_an_entry_is_unknown() {
    let place = place_with_hits().await;
    let Place::Postgres { port, database } = &place else { panic!("not PostgreSQL") };
    let proxy = Proxy::start(*port).await;
    let node = Node::open(&postgres_at(proxy.port, database, 1)).await.unwrap();
    proxy.arm(Cut::After);
    assert_eq!(node.commit(sql(HIT)).await, Settled::Lost(StoreError::OutcomeUnknown));
    node.done(sql(HIT)).await;
    assert_eq!(count(&place, "hits").await, 2);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serialisation_failures_and_deadlocks_run_again_at_most_five_times() {
    for (code, fail, want, tries) in
        [("40001", 3, true, 4), ("40P01", 5, true, 6), ("40001", 100, false, 6)]
    {
        let place = place_with_hits().await;
        place.by_hand("CREATE SEQUENCE tries").await;
        let trap = format!(
            "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('tries') <= {fail} THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF; \
             RETURN NEW; END $$"
        );
        place.by_hand(&trap).await;
        let trigger = "CREATE TRIGGER trap BEFORE INSERT ON hits \
                       FOR EACH ROW EXECUTE FUNCTION trap()";
        place.by_hand(trigger).await;
        let node = place.node().await;
        let settled = node.commit(sql(HIT).leaf(b"hit")).await;
        if want {
            assert!(matches!(settled, Settled::Durable { outcome: Ok(()), .. }), "{settled:?}");
        } else {
            assert_eq!(settled, Settled::Lost(StoreError::Again));
        }
        assert_eq!(count(&place, "hits").await, i64::from(want));
        assert_eq!(count(&place, "record_batches").await, i64::from(want));
        assert_eq!(
            count(&place, "generate_series(1, (SELECT last_value FROM tries))").await,
            tries
        );
        node.insert(&identity(1, "after")).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_deadlock_on_rows_all_get_through() {
    let place = place_with_hits().await;
    let Place::Postgres { database, .. } = &place else { panic!("not PostgreSQL") };
    place.by_hand(&format!("ALTER DATABASE {database} SET deadlock_timeout = '20ms'")).await;
    place.by_hand("INSERT INTO hits VALUES (1), (2)").await;
    let nodes = [place.node().await, place.node().await];
    let add = |first: &'static str, second: &'static str| {
        Act::new(move |tx| {
            async move {
                tx.execute(first, vec![]).await?;
                tx.query("SELECT pg_sleep(0.003)::text", vec![]).await?;
                Ok(tx.execute(second, vec![]).await.map(drop)?)
            }
            .boxed()
        })
        .leaf(b"add")
    };
    for _ in 0..15 {
        let (one, other) =
            tokio::join!(nodes[0].commit(add(ONE, TWO)), nodes[1].commit(add(TWO, ONE)));
        for settled in [one, other] {
            assert!(matches!(settled, Settled::Durable { outcome: Ok(()), .. }), "{settled:?}");
        }
    }
    assert_eq!(count(&place, "hits WHERE n IN (301, 302)").await, 2);
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_unavailable_and_one_that_comes_back_serves() {
    let mut server =
        tokio::task::spawn_blocking(|| Postgres::start(Options::default())).await.unwrap();
    let location = postgres_at(server.port(), "postgres", 2);
    let node = Node::open(&location).await.unwrap();
    node.done(insert(identity(1, "a")).leaf(&real_leaf())).await;
    assert!(node.identity(IdentityId(id(1))).await.unwrap().is_some());
    tokio::task::block_in_place(|| server.stop());
    let (settled, seen) = tokio::join!(
        node.commit(insert(identity(2, "b")).leaf(&real_leaf())),
        node.identity(IdentityId(id(1)))
    );
    assert!(matches!(settled, Settled::Lost(StoreError::Unavailable(_))), "{settled:?}");
    assert!(matches!(seen, Err(Error::Unavailable(_))), "{seen:?}");
    tokio::task::block_in_place(|| server.resume());
    node.done(insert(identity(2, "b")).leaf(&real_leaf())).await;
    assert!(node.identity(IdentityId(id(2))).await.unwrap().is_some());
    assert_eq!(audit_plan(&node).await, Ok(2));
    node.close().await;

    server.run("postgres", "ALTER SYSTEM SET fsync = off").await;
    server.run("postgres", "SELECT pg_reload_conf()").await;
    // The reload reaches new sessions only when the server's main process has seen it.
    let refused = loop {
        if server.ask("postgres", "current_setting('fsync')").await.unwrap() == "off" {
            break Node::open(&location).await.err();
        }
    };
    assert_eq!(refused, Some(StoreError::Failed("the server runs with fsync off".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_what_it_acknowledged_is_refused() {
    let place = Place::postgres().await;
    let Place::Postgres { database, .. } = &place else { panic!("not PostgreSQL") };
    place.by_hand(&format!("ALTER DATABASE {database} SET synchronous_commit = off")).await;
    let refused = Node::open(&place.location(1)).await.err();
    let why = "the server runs with synchronous_commit off";
    assert_eq!(refused, Some(StoreError::Failed(why.into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_too_long_costs_its_waiters_alone() {
    let places = [place_with_hits().await, place_with_hits().await];
    let nodes = [places[0].node().await, places[1].node().await];
    places[0].by_hand("INSERT INTO hits VALUES (7)").await;
    let mut held = Vec::new();
    for (place, lock) in [
        (&places[0], "SELECT * FROM hits FOR UPDATE"),
        (&places[1], "SELECT pg_advisory_xact_lock(x'7374726f6e67726d'::bit(64)::bigint)"),
    ] {
        let Place::Postgres { database, .. } = place else { panic!("not PostgreSQL") };
        held.push(hold(database, lock).await);
    }
    let row = async {
        let waits = nodes[0].submit(sql("UPDATE hits SET n = 8").leaf(b"w")).await;
        let passes = nodes[0].submit(insert(identity(1, "a")).leaf(b"p")).await;
        let (waits, passes) = (waits.await.unwrap(), passes.await.unwrap());
        let busy = matches!(&waits, Settled::Durable { outcome: Err(Error::Unavailable(_)), .. });
        assert!(busy, "{waits:?}");
        assert!(matches!(passes, Settled::Durable { outcome: Ok(()), .. }), "{passes:?}");
    };
    let authority = async {
        let settled = nodes[1].commit(insert(identity(1, "a")).leaf(b"w")).await;
        assert!(matches!(settled, Settled::Lost(StoreError::Unavailable(_))), "{settled:?}");
    };
    tokio::join!(row, authority);
    drop(held);
    nodes[1].insert(&identity(1, "a")).await;
    for node in nodes {
        node.close().await;
    }
}
