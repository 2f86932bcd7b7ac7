//! Once is once, whatever races.

use super::spending::{findings, is_spent, issue};
use super::*;
use crate::support::target::{World, ask};

const CLIENTS: usize = 64;

/// Lets clients race for one use; how many won, and what the others heard.
async fn race(bearers: Vec<Bearing>) -> (usize, Vec<Status>) {
    let calls = bearers.into_iter().map(|bearer| async move { issue(&bearer, ask()).await });
    let answers = futures_util::future::join_all(calls).await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    (won, answers.into_iter().filter_map(Result::err).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_clients_on_one_node_one_wins() {
    let world = World::new(Backend::Sqlite).await;
    let order = TokenOrder { uses: 1, ..with(0) };
    let token = mint(&world.admin, "nightly-etl", order).await.unwrap();
    let mut bearers = Vec::new();
    for _ in 0..8 {
        let channel = world.f.connect_as_nobody().await;
        bearers.extend((0..CLIENTS / 8).map(|_| bearing(&channel, &token)));
    }
    let (won, refusals) = race(bearers).await;
    assert_eq!((won, refusals.len()), (1, CLIENTS - 1));
    assert!(refusals.iter().all(is_spent), "{refusals:?}");
    assert_eq!(world.leases().await.len(), 1);
    // Each is on the record, the first ten of a second one by one.
    assert!(findings(&world.f).await.len() >= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_clients_on_two_nodes_one_wins() {
    let world = World::new(Backend::Postgres).await;
    let other = world.f.second_node().await;
    let order = TokenOrder { uses: 1, ..with(0) };
    let token = mint(&world.admin, "nightly-etl", order).await.unwrap();
    let mut bearers = Vec::new();
    for node in [world.f.node(), &other] {
        let channel = world.f.connect_to(node, &world.f.admin).await;
        bearers.extend((0..CLIENTS / 2).map(|_| bearing(&channel, &token)));
    }
    let (won, refusals) = race(bearers).await;
    assert_eq!((won, refusals.len()), (1, CLIENTS - 1));
    assert!(refusals.iter().all(is_spent), "{refusals:?}");
    assert_eq!(world.leases().await.len(), 1);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_five_uses_pays_for_five_calls_however_many_race() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let order = TokenOrder { uses: 5, ..with(0) };
        let bearer = bearing(&etl, &create(&etl, order).await.unwrap().bearer);
        let calls = (0..20).map(|_| {
            let mut client = TokenServiceClient::new(bearer.clone());
            async move { client.list_tokens(ListTokensRequest::default()).await }
        });
        let answers = futures_util::future::join_all(calls).await;
        let paid = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(paid, 5, "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_minted_while_an_identity_is_suspended_outlives_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let etl = machine(&f, "etl").await;
        let own = bearing(&etl, &token(&etl, 0).await.bearer);
        let minting = (0..32).map(|n| {
            let (admin, etl, own) = (admin.clone(), etl.clone(), own.clone());
            async move {
                match n % 3 {
                    0 => mint(&admin, "etl", with(0)).await.ok(),
                    1 => create(&etl, with(0)).await.ok().map(|made| made.bearer),
                    _ => child(&own, with(0)).await.ok(),
                }
            }
        });
        let suspending = async {
            let mut client = IdentityServiceClient::new(admin.clone());
            let request = SuspendIdentityRequest { name: "etl".into(), reason: String::new() };
            client.suspend_identity(request).await.unwrap();
        };
        let (made, ()) = tokio::join!(futures_util::future::join_all(minting), suspending);
        let nobody = f.connect_as_nobody().await;
        for token in made.into_iter().flatten() {
            assert_eq!(knock(&bearing(&nobody, &token)).await, Code::Unauthenticated);
        }
    }
}
