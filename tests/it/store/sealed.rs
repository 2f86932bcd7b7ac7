//! Rows that carry authority, edited by hand: refused, and never refused without cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A refusal that reaches the caller of a view.
fn is_tampered<T: std::fmt::Debug>(answer: &Result<T>) -> bool {
    matches!(answer, Err(Error::Tampered { table: "identities", .. }))
}

/// What the store itself answers to a lookup.
async fn lookup(node: &Node, number: u64) -> Result<Option<i64>, StoreError> {
    node.reader
        .view(move |tx| {
            async move {
                let found = tx.lookup::<IdentityRow>(&id(number)).await;
                Ok(found.map(|row| row.map(|row| row.version)))
            }
            .boxed()
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_edited_or_inserted_by_hand_is_refused() {
    for place in Place::both().await {
        let node = place.node().await;
        for number in 1..=11 {
            node.insert(&identity(number, &format!("i{number}"))).await;
        }
        let copy = "INSERT INTO identities SELECT '00000000-0000-0000-0000-0000000000ff', 'forged',\
            kind, state, owner, owned_since, former_owners, person, purpose, needs, tier, labels, expires_at, revocation_epoch, authority_rev,\
            created_at, created_by, changed_at, changed_by, changers, row_version, seal_version, mac \
            FROM identities WHERE name = 'i9'";
        for edit in [
            "UPDATE identities SET kind = 'human' WHERE name = 'i1'",
            "UPDATE identities SET expires_at = 5 WHERE name = 'i2'",
            "UPDATE identities SET row_version = 7 WHERE name = 'i3'",
            "UPDATE identities SET mac = (SELECT mac FROM identities WHERE name = 'i9') \
             WHERE name = 'i4'",
            "UPDATE identities SET purpose = 'testspipeline', kind = '' WHERE name = 'i5'",
            "UPDATE identities SET seal_version = 0 WHERE name = 'i6'",
            "UPDATE identities SET seal_version = 99 WHERE name = 'i7'",
            copy,
        ] {
            place.by_hand(edit).await;
        }
        // Two that changed places, each with all that is its own.
        let (ten, eleven) = (id(10).to_string(), id(11).to_string());
        place
            .by_hand(&format!(
                "UPDATE identities SET id = 'between' WHERE id = '{ten}'; \
                 UPDATE identities SET id = '{ten}' WHERE id = '{eleven}'; \
                 UPDATE identities SET id = '{eleven}' WHERE id = 'between'"
            ))
            .await;
        for number in [1, 2, 3, 4, 5, 6, 7, 10, 11, 255] {
            let answer = lookup(&node, number).await;
            let named = id(number).to_string();
            assert_eq!(answer, Err(StoreError::Tampered { table: "identities", id: named }));
            assert!(is_tampered(&node.identity(IdentityId(id(number))).await));
        }
        assert_eq!(lookup(&node, 9).await, Ok(Some(1)), "what nobody touched stays readable");
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_number_or_a_blob_in_a_column_of_sqlite_is_refused_as_tampered() {
    let place = Place::sqlite();
    let node = place.node().await;
    node.insert(&identity(1, "a")).await;
    node.insert(&identity(2, "b")).await;
    place.by_hand("UPDATE identities SET expires_at = 1.5 WHERE name = 'a'").await;
    place.by_hand("UPDATE identities SET purpose = X'00ff' WHERE name = 'b'").await;
    for number in [1, 2] {
        assert!(matches!(lookup(&node, number).await, Err(StoreError::Tampered { .. })));
    }
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_row_put_back_is_refused_by_the_node_that_saw_the_newer() {
    for place in Place::both().await {
        let node = place.node().await;
        let row = identity(1, "a");
        node.insert(&row).await;
        place.by_hand("CREATE TABLE kept AS SELECT * FROM identities").await;
        let mut suspended = row.clone();
        suspended.state = IdentityState::Suspended;
        node.done(update(1, suspended)).await;
        assert_eq!(lookup(&node, 1).await, Ok(Some(2)));
        place.by_hand("DELETE FROM identities; INSERT INTO identities SELECT * FROM kept").await;
        assert!(matches!(lookup(&node, 1).await, Err(StoreError::Tampered { .. })));
        // The writer refuses it as well: nothing is renewed on top of it.
        let settled = node
            .commit(Act::new(|tx| {
                async move { Ok(tx.lookup::<IdentityRow>(&id(1)).await.map(drop)?) }.boxed()
            }))
            .await;
        assert!(matches!(settled, Settled::Durable { outcome: Err(Error::Tampered { .. }), .. }));
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_not_read_without_the_key_nor_with_another() {
    for place in Place::both().await {
        let node = place.node().await;
        node.insert(&identity(2, "b")).await;
        node.sealer.set_key(None);
        assert_eq!(lookup(&node, 2).await, Err(StoreError::Sealed));
        let settled = node.commit(insert(identity(3, "c"))).await;
        assert_eq!(settled, Settled::Durable { outcome: Err(Error::Sealed), epoch: 1 });
        node.sealer.set_key(Some(MacKey::new(&[1; 32])));
        assert_eq!(lookup(&node, 2).await, Ok(Some(1)));
        node.sealer.set_key(Some(MacKey::new(&[9; 32])));
        assert!(matches!(lookup(&node, 2).await, Err(StoreError::Tampered { .. })));
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_older_than_many_commits_raises_no_false_alarm() {
    for place in Place::both().await {
        let node = Arc::new(Node::open(&place.location(2)).await.unwrap());
        for number in 0..8 {
            node.insert(&identity(number, &format!("i{number}"))).await;
        }
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for reader in 0..3 {
            let (node, over) = (Arc::clone(&node), Arc::clone(&over));
            readers.push(spawn(async move {
                let mut views = 0;
                while !over.load(Ordering::Relaxed) {
                    node.reader.view(move |tx| two_reads(tx, reader == 0).boxed()).await.unwrap();
                    views += 1;
                }
                views
            }));
        }
        let mut versions = [1_i64; 8];
        for round in 0_usize..250 {
            // Groups of several, so that marks and commits interleave.
            let mut settled = Vec::new();
            for step in 0..3 {
                let number = (round + step * 3) % 8;
                let row = identity(number as u64, &format!("i{number}"));
                settled.push(node.submit(update(versions[number], row)).await);
                versions[number] += 1;
            }
            for settled in settled {
                let settled = settled.await.unwrap();
                assert!(matches!(settled, Settled::Durable { outcome: Ok(()), .. }), "{settled:?}");
            }
        }
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
        Arc::into_inner(node).unwrap().close().await;
    }
}

/// Reads everything twice in one snapshot, which must not move in between.
async fn two_reads(tx: &mut Tx, linger: bool) -> Result<()> {
    let first = tx.select::<IdentityRow>("ORDER BY id", vec![]).await?;
    if linger {
        for _ in 0..20 {
            tx.epoch().await?;
        }
    }
    let again = tx.select::<IdentityRow>("ORDER BY id", vec![]).await?;
    assert_eq!(first, again);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_sets_what_differs_and_seals_all_of_it() {
    for place in Place::both().await {
        let node = place.node().await;
        node.insert(&identity(1, "a")).await;
        let read = node.identity(IdentityId(id(1))).await.unwrap().unwrap();
        let changed =
            IdentityRow { purpose: "another".into(), expires_at: None, ..read.row.clone() };
        let change = |read: &Versioned<IdentityRow>, row: &IdentityRow| {
            let (read, row) = (read.clone(), row.clone());
            Act::new(move |tx| {
                let (read, row) = (read.clone(), row.clone());
                async move { Ok(tx.change(&read, &row).await.map(drop)?) }.boxed()
            })
        };
        node.done(change(&read, &changed)).await;
        let found = node.identity(IdentityId(id(1))).await.unwrap().unwrap();
        assert_eq!(found, Versioned { row: changed.clone(), version: 2 });
        let late = node.submit(change(&read, &changed)).await.await.unwrap();
        assert!(
            matches!(late, Settled::Durable { outcome: Err(Error::Conflict(_)), .. }),
            "{late:?}: who read the first version comes late"
        );
        // What somebody else wrote into a column that stays is not covered up.
        place.by_hand("UPDATE identities SET kind = 'human' WHERE name = 'a'").await;
        let again = IdentityRow { purpose: "a third".into(), ..changed };
        node.done(change(&found, &again)).await;
        assert!(is_tampered(&node.identity(IdentityId(id(1))).await));
        node.close().await;
    }
}
