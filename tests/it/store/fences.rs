//! What a decision stood on: a commit holds only while it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strongroom::store::Value;
use strongroom::store::credentials::CredentialRow;
use strongroom::types::{CredentialId, CredentialKind, CredentialState};

use super::*;

/// A lease of an identity, in one statement.
fn lease(number: u64, of: IdentityId, epoch: i64) -> Act {
    let row = CredentialRow {
        id: CredentialId(id(number)),
        kind: CredentialKind::Lease,
        identity: of,
        parent: None,
        elevation: None,
        elevation_too: None,
        handle: None,
        resource: "database/analytics/reader".parse().unwrap(),
        state: CredentialState::Active,
        revocation_epoch: epoch,
        issued_at: UnixMillis(0),
        expires_at: UnixMillis(9),
        max_expires_at: UnixMillis(9),
        next_try: None,
        tries: 0,
        trouble: String::new(),
        proofs: String::new(),
        detail: vec![],
    };
    Act::new(move |tx| {
        let row = row.clone();
        async move { Ok(tx.insert(&row).await.map(drop)?) }.boxed()
    })
    .writes(Writes::One)
    .leaf(b"lease")
}

async fn leases(node: &Node) -> i64 {
    count(node, "SELECT COUNT(*) FROM credentials").await
}

async fn count(node: &Node, sql: &'static str) -> i64 {
    node.reader
        .view(move |tx| {
            async move { Ok(tx.query_one(sql, vec![]).await?.unwrap().take()?) }.boxed()
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_rows_moved_writes_nothing_and_leaves_no_entry() {
    for place in Place::both().await {
        let node = place.node().await;
        let row = identity(1, "a");
        node.insert(&row).await;
        let fence = node.fence(row.id).await;
        let read = node.identity(row.id).await.unwrap().unwrap();
        node.done(suspend(&read).leaf(b"suspended")).await;
        assert_eq!(node.epoch().await, fence.epoch + 1);
        let settled = node.commit(lease(1, row.id, 0).fenced(fence)).await;
        assert_eq!(settled, Settled::Moved);
        assert_eq!(leases(&node).await, 0);
        assert_eq!(
            count(&node, "SELECT CAST(SUM(entries) AS BIGINT) FROM record_batches").await,
            1
        );
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_epoch_alone_lets_a_job_through_and_tells_it_the_new_one() {
    for place in Place::both().await {
        let node = place.node().await;
        let (mine, other) = (identity(1, "a"), identity(2, "b"));
        node.insert(&mine).await;
        node.insert(&other).await;
        let fence = node.fence(mine.id).await;
        let read = node.identity(other.id).await.unwrap().unwrap();
        node.done(suspend(&read)).await;
        let settled = node.commit(lease(1, mine.id, 0).fenced(fence.clone())).await;
        assert_eq!(settled, Settled::Durable { outcome: Ok(()), epoch: fence.epoch + 1 });
        assert_eq!(leases(&node).await, 1);
        // A row that is gone has moved as well.
        place.by_hand("DELETE FROM identities WHERE name = 'a'").await;
        let settled = node.commit(lease(2, mine.id, 0).fenced(fence)).await;
        assert_eq!(settled, Settled::Moved);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_by_later_jobs_of_its_group_and_dates_earlier_ones_before_it() {
    for place in Place::both().await {
        let node = place.node().await;
        let (a, b) = (identity(1, "a"), identity(2, "b"));
        node.insert(&a).await;
        node.insert(&b).await;
        let (on_a, on_b) = (node.fence(a.id).await, node.fence(b.id).await);
        let began = on_a.epoch;
        let reads = [
            node.identity(a.id).await.unwrap().unwrap(),
            node.identity(b.id).await.unwrap().unwrap(),
        ];
        let settled = in_one_group(
            &node,
            vec![
                lease(1, a.id, 0).fenced(on_a.clone()).leaf(b"1"),
                suspend(&reads[0]).leaf(b"2"),
                lease(2, a.id, 0).fenced(on_a.clone()).leaf(b"3"),
                lease(3, b.id, 0).fenced(on_b.clone()).leaf(b"4"),
                suspend(&reads[1]).leaf(b"5"),
                lease(4, b.id, 0).fenced(on_b.clone()).leaf(b"6"),
            ],
        )
        .await;
        let durable = |epoch| Settled::Durable { outcome: Ok(()), epoch };
        // What stood before a change is not told the epoch after it: a cached decision would
        // outlive what it stood on.
        assert_eq!(
            settled,
            [
                durable(began),
                durable(began),
                Settled::Moved,
                durable(began + 1),
                durable(began + 1),
                Settled::Moved
            ]
        );
        for (number, mut fence, epoch) in [(5, on_a, began), (6, on_b, began + 1)] {
            fence.epoch = epoch;
            let settled = node.commit(lease(number, a.id, 0).fenced(fence)).await;
            assert_eq!(settled, Settled::Moved, "a cached decision at {epoch}");
        }
        assert_eq!(leases(&node).await, 2);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_change_of_authority_is_an_error_and_writes_nothing() {
    for place in Place::both().await {
        let node = place.node().await;
        let act = Act::new(|tx| {
            async move {
                tx.insert(&identity(1, "a")).await?;
                tx.bump_authority()
            }
            .boxed()
        });
        let settled = node.commit(act).await;
        assert_eq!(settled, Settled::Durable { outcome: Err(Error::Internal), epoch: 1 });
        assert_eq!(node.identity(IdentityId(id(1))).await, Ok(None));
        assert_eq!(node.epoch().await, 1);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_set_back_by_hand_is_refused() {
    for place in Place::both().await {
        let node = place.node().await;
        for _ in 0..3 {
            let bump = Act::new(|tx| async move { tx.bump_authority() }.boxed()).bumping();
            node.done(bump).await;
        }
        place.by_hand("UPDATE authority SET epoch = 2").await;
        let settled = node.commit(insert(identity(1, "a"))).await;
        let alarm = StoreError::Tampered { table: "authority", id: "2".into() };
        assert_eq!(settled, Settled::Lost(alarm));
        assert_eq!(node.identity(IdentityId(id(1))).await, Ok(None));
        place.by_hand("UPDATE authority SET epoch = 4").await;
        node.insert(&identity(1, "a")).await;
        node.close().await;
    }
}

/// A suspension that counts what was issued before it.
fn marked(read: &Versioned<IdentityRow>) -> Act {
    let (version, row) = (read.version, read.row.clone());
    Act::new(move |tx| {
        let row = row.clone();
        async move {
            tx.update(version, &row).await?;
            let sql = "INSERT INTO marks SELECT $1, COUNT(*) FROM witness WHERE decided < $1";
            tx.execute(sql, vec![Value::Int(version + 1)]).await?;
            tx.bump_authority()
        }
        .boxed()
    })
    .bumping()
    .leaf(b"change")
}

/// One node suspends and resumes, the other issues on what it last read: never a lease of an
/// epoch after the suspension that ended it.
async fn race(setting: &str, rounds: u64) {
    let place = Place::postgres().await;
    let Place::Postgres { database, .. } = &place else { panic!("not PostgreSQL") };
    if !setting.is_empty() {
        place.by_hand(&format!("ALTER DATABASE {database} SET {setting}")).await;
    }
    let admin = Node::open(&place.location(1)).await.unwrap();
    let issuer = Arc::new(Node::open(&place.location(3)).await.unwrap());
    // A suspension notes how many leases of earlier versions there are: none may come after.
    place.by_hand("CREATE TABLE marks (version BIGINT, leases BIGINT)").await;
    place.by_hand("CREATE TABLE witness (decided BIGINT)").await;
    place.by_hand("CREATE INDEX witness_by_version ON witness (decided)").await;
    let row = identity(1, "a");
    admin.insert(&row).await;
    let over = Arc::new(AtomicBool::new(false));
    let (passed, moved) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let (issuer, over) = (Arc::clone(&issuer), Arc::clone(&over));
        let (passed, moved) = (Arc::clone(&passed), Arc::clone(&moved));
        tasks.push(spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let fence = issuer.fence(IdentityId(id(1))).await;
                let decided = fence.rows[0].version;
                let witness = Act::new(move |tx| {
                    let sql = "INSERT INTO witness (decided) VALUES ($1)";
                    let decided = vec![Value::Int(decided)];
                    async move { Ok(tx.execute(sql, decided).await.map(drop)?) }.boxed()
                });
                match issuer.commit(witness.fenced(fence).leaf(b"lease")).await {
                    Settled::Durable { outcome: Ok(()), .. } => {
                        passed.fetch_add(1, Ordering::Relaxed)
                    }
                    Settled::Moved => moved.fetch_add(1, Ordering::Relaxed),
                    other @ (Settled::Durable { .. } | Settled::Lost(_)) => {
                        panic!("{other:?}")
                    }
                };
            }
        }));
    }
    for _ in 0..rounds {
        let read = admin.identity(row.id).await.unwrap().unwrap();
        admin.done(marked(&read)).await;
    }
    over.store(true, Ordering::Relaxed);
    for racing in tasks {
        racing.await.unwrap();
    }
    let (passed, moved) = (passed.load(Ordering::Relaxed), moved.load(Ordering::Relaxed));
    assert!(passed > 20 && moved > 20, "the race was one: {passed} issued, {moved} moved");
    let late = "SELECT COUNT(*) FROM marks WHERE leases <> \
                (SELECT COUNT(*) FROM witness WHERE decided < version)";
    assert_eq!(count(&admin, late).await, 0);
    assert_eq!(count(&admin, "SELECT COUNT(*) FROM witness").await, i64::try_from(passed).unwrap());
    admin.close().await;
    Arc::into_inner(issuer).unwrap().close().await;
}

/// How long to race; the suite has little time, a night has more.
fn rounds(usual: u64) -> u64 {
    let asked = std::env::var_os("STRONGROOM_TEST_ROUNDS");
    asked.map_or(usual, |rounds| rounds.to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_races_with_an_issuance_on_two_nodes_leaves_no_live_lease() {
    race("", rounds(400)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fences_hold_whatever_isolation_the_server_defaults_to() {
    race("default_transaction_isolation = 'repeatable read'", rounds(150)).await;
}
