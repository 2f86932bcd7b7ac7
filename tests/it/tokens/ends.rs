//! How what is below a revoked token ends: in few commits, and whatever became of a row of it.

use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{EntryFilter, ListEntriesRequest};

use super::*;
use crate::support::hand::Hand;
use crate::support::target::until;

async fn states(of: &Channel) -> Vec<String> {
    let mut client = TokenServiceClient::new(of.clone());
    let request = ListTokensRequest { include_ended: true, page_size: 1_000, ..Default::default() };
    let listed = client.list_tokens(request).await.unwrap().into_inner().tokens;
    listed.into_iter().map(|token| token.state).collect()
}

/// Entries of the worker that ends what is below tokens.
async fn steps(f: &Fixture) -> usize {
    f.node().vault.integrate().await.unwrap();
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    let filter = Some(EntryFilter { action: "tokens.end".to_owned(), ..Default::default() });
    let request = ListEntriesRequest { filter, page_size: 1_000, ..Default::default() };
    client.list_entries(request).await.unwrap().into_inner().entries.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_altered_child_holds_up_neither_its_parents_end_nor_anybody_elses() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let hand = Hand::new(&f.parts.location);
        let (etl, other) = (machine(&f, "etl").await, machine(&f, "other").await);
        let made = token(&etl, 3_000).await;
        let (parent, accessor) = (bearing(&etl, &made.bearer), made.token.unwrap().accessor);
        let mut below = Vec::new();
        for _ in 0..3 {
            let one = bearing(&etl, &child(&parent, with(2_000)).await.unwrap());
            // So that the worker has something to do below it.
            child(&one, with(1_000)).await.unwrap();
            below.push((inspect(&one, "").await.unwrap().accessor, one));
        }
        let (altered, _) = &below[1];
        let edit =
            |by: &str| format!("UPDATE credentials SET tries = tries {by} WHERE id = '{altered}'");
        hand.run(&edit("+ 1")).await;
        assert_eq!(revoke(&plain(&etl), &accessor).await.unwrap().state, "revoking");
        for (_, one) in &below {
            assert_eq!(knock(one).await, Code::Unauthenticated);
        }
        let is_over = async |of: &Channel, id: &str| {
            inspect(&plain(of), id).await.is_ok_and(|token| token.state == "revoked")
        };
        until("the others end", async || {
            is_over(&etl, &below[0].0).await && is_over(&etl, &below[2].0).await
        })
        .await;
        // Of somebody else what is due meanwhile ends too.
        let theirs = token(&other, 0).await;
        let asks = bearing(&other, &theirs.bearer);
        let next = bearing(&other, &child(&asks, with(0)).await.unwrap());
        child(&next, with(0)).await.unwrap();
        let theirs = theirs.token.unwrap().accessor;
        revoke(&asks, "").await.unwrap();
        until("theirs ends", async || {
            is_over(&other, &theirs).await && states(&other).await.iter().all(|it| it == "revoked")
        })
        .await;
        assert_eq!(inspect(&plain(&etl), &accessor).await.unwrap().state, "revoking");
        // Where somebody puts it back, it ends as well.
        hand.run(&edit("- 1")).await;
        f.clock.advance(Duration::from_secs(301));
        until("all of it ends", async || states(&etl).await.iter().all(|it| it == "revoked")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_on_which_nothing_hangs_end_many_in_a_commit() {
    let f = Fixture::new().await;
    let etl = machine(&f, "etl").await;
    let parent = bearing(&etl, &token(&etl, 0).await.bearer);
    for _ in 0..30 {
        let calls = (0..10).map(|_| child(&parent, with(1)));
        futures_util::future::try_join_all(calls).await.unwrap();
    }
    f.clock.advance(Duration::from_secs(10));
    revoke(&parent, "").await.unwrap();
    until("all of it ends", async || states(&etl).await.iter().all(|it| it == "revoked")).await;
    assert_eq!(steps(&f).await, 1, "256 in the commit that revokes, the others in one more");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_again_what_is_revoked_moves_nothing() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let hand = Hand::new(&f.parts.location);
        let epoch = async || hand.ask("SELECT '' || epoch FROM authority").await;
        let etl = machine(&f, "etl").await;
        let accessor = token(&etl, 0).await.token.unwrap().accessor;
        let before = epoch().await;
        revoke(&plain(&etl), &accessor).await.unwrap();
        let revoked = epoch().await;
        assert_ne!(before, revoked);
        for _ in 0..3 {
            assert_eq!(revoke(&plain(&etl), &accessor).await.unwrap().state, "revoked");
        }
        assert_eq!(epoch().await, revoked);
    }
}
