//! Once is once, whatever races.

use strongroom::proto::{IssueLoginCertificateRequest, ResumeIdentityRequest};

use super::spending::{findings, is_spent, issue};
use super::*;
use crate::support::logins::registration;
use crate::support::node::{Login, csr};
use crate::support::program::Installation;
use crate::support::target::{World, ask, until};

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
async fn of_sixty_four_clients_of_two_servers_on_one_postgresql_one_wins() {
    let real = Installation::on_postgres().await;
    assert!(real.init().status.success());
    let (one, other) = (real.serve(), real.serve_beside());
    let alice = real.register(&one, &real.bootstrap(), "alice").login();
    let admin = real.connect(&one, &alice).await;
    let mut identities = IdentityServiceClient::new(admin.clone());
    identities.create_identity(registration("etl", "pipeline", "alice")).await.unwrap();
    let order = TokenOrder { uses: 1, ..with(0) };
    let token = mint(&admin, "etl", order).await.unwrap();
    let mut calls = Vec::new();
    for server in [&one, &other] {
        for _ in 0..4 {
            let bearer = bearing(&real.connect(server, &alice).await, &token);
            calls.extend((0..CLIENTS / 8).map(|_| TokenServiceClient::new(bearer.clone())));
        }
    }
    let calls = calls
        .into_iter()
        .map(|mut client| async move { client.list_tokens(ListTokensRequest::default()).await });
    let answers = futures_util::future::join_all(calls).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, CLIENTS - 1));
    assert!(lost.into_iter().all(|refusal| is_spent(&refusal.unwrap_err())));
    drop((admin, identities));
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_token_and_renewing_it_take_no_use_however_many_do_it_at_once() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let order = TokenOrder { uses: 1, max_ttl_s: 900, ..with(300) };
        let token = create(&etl, order).await.unwrap().bearer;
        let bearer = bearing(&etl, &token);
        let looks = (0..48).map(|n| {
            let bearer = bearer.clone();
            async move {
                match n % 3 {
                    0 => knock(&bearer).await,
                    1 => inspect(&bearer, "").await.map_or_else(|no| no.code(), |_| Code::Ok),
                    _ => renew(&bearer, "", 0).await.map_or_else(|no| no.code(), |_| Code::Ok),
                }
            }
        });
        for code in futures_util::future::join_all(looks).await {
            // Of many renewals at once some are asked to come again.
            assert!([Code::Ok, Code::Aborted].contains(&code), "{code:?}");
        }
        assert_eq!(inspect(&bearer, "").await.unwrap().uses_left, 1);
        let mut client = TokenServiceClient::new(bearer.clone());
        client.list_tokens(ListTokensRequest::default()).await.unwrap();
        assert!(is_spent(&client.list_tokens(ListTokensRequest::default()).await.unwrap_err()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_renewals_in_the_last_second_carry_a_token_no_further_than_its_maximum() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let order = TokenOrder { max_ttl_s: 1_000, ..with(999) };
        let made = create(&etl, order).await.unwrap();
        let bearer = bearing(&etl, &made.bearer);
        let below = bearing(&etl, &child(&bearer, with(999)).await.unwrap());
        let most = made.token.unwrap().max_expires_at_ms;
        let now = f.node().vault.now().unwrap().0;
        let left = u64::try_from(most - now).unwrap();
        // The token itself has a second less: it is renewed in that one as well.
        f.clock.advance(Duration::from_millis(left - 1_900));
        renew(&bearer, "", 1_000_000).await.unwrap();
        let now = f.node().vault.now().unwrap().0;
        let left = u64::try_from(most - now).unwrap();
        f.clock.advance(Duration::from_millis(left.saturating_sub(900)));
        let races = [&bearer, &below].into_iter().cycle().take(32).map(|token| {
            let token = token.clone();
            async move { renew(&token, "", 1_000_000).await }
        });
        for renewed in futures_util::future::join_all(races).await {
            match renewed {
                Ok(token) => assert!(token.expires_at_ms <= most, "{token:?}"),
                Err(refusal) => {
                    let over = [Code::Aborted, Code::Unauthenticated, Code::FailedPrecondition];
                    assert!(over.contains(&refusal.code()), "{refusal}");
                }
            }
        }
        f.clock.advance(Duration::from_secs(1));
        for token in [&bearer, &below] {
            assert_eq!(knock(token).await, Code::Unauthenticated);
            let refusal = renew(token, "", 1_000_000).await.unwrap_err();
            assert_eq!(refusal.code(), Code::Unauthenticated);
        }
    }
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

/// What somebody got while their identity was being suspended.
enum Minted {
    Nothing,
    Token(String),
    Login(Login),
    Certificate(String),
    Lease(String),
}

/// Asks for one thing of each kind in turn.
async fn get(world: &World, own: &Bearing, n: u32) -> Minted {
    let (admin, etl, name) = (world.admin.clone(), plain(&world.etl), "nightly-etl");
    let got = match n % 6 {
        0 => mint(&admin, name, with(0)).await.ok().map(Minted::Token),
        1 => child(&etl, with(0)).await.ok().map(Minted::Token),
        2 => child(own, with(0)).await.ok().map(Minted::Token),
        3 => {
            let (key_pem, csr_pem) = csr();
            let request =
                IssueLoginCertificateRequest { name: name.into(), csr_pem, ..Default::default() };
            let issued = IdentityServiceClient::new(admin).issue_login_certificate(request).await;
            issued.ok().map(|issued| {
                let certificate_pem = issued.into_inner().certificate_pem;
                Minted::Login(Login { key_pem, certificate_pem })
            })
        }
        4 => {
            let issued = certificates::issue(&etl, "", false).await.ok();
            issued.map(|issued| Minted::Certificate(issued.certificate.unwrap().id))
        }
        _ => issue(&etl, ask()).await.ok().map(|issued| Minted::Lease(issued.lease_id)),
    };
    got.unwrap_or(Minted::Nothing)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_minted_while_an_identity_is_suspended_outlives_it() {
    for backend in BACKENDS {
        let world = certificates::world(backend).await;
        let own = bearing(&world.etl, &token(&world.etl, 0).await.bearer);
        let mut identities = IdentityServiceClient::new(world.admin.clone());
        let name = "nightly-etl".to_owned();
        let request = SuspendIdentityRequest { name: name.clone(), reason: String::new() };
        let minting = futures_util::future::join_all((0..48).map(|n| get(&world, &own, n)));
        let (made, suspended) = tokio::join!(minting, identities.suspend_identity(request));
        suspended.unwrap();
        // Resumed, it refuses nobody by its state: what was minted is dead by the epoch it carries.
        let request = ResumeIdentityRequest { name, ..Default::default() };
        identities.resume_identity(request).await.unwrap();
        let nobody = world.f.connect_as_nobody().await;
        let anew = mint(&world.admin, "nightly-etl", with(0)).await.unwrap();
        assert_eq!(knock(&bearing(&nobody, &anew)).await, Code::Ok);
        for made in made {
            match made {
                Minted::Nothing => {}
                Minted::Token(token) => {
                    assert_eq!(knock(&bearing(&nobody, &token)).await, Code::Unauthenticated);
                }
                Minted::Login(login) => {
                    let channel = world.f.connect(&login).await;
                    assert_eq!(knock(&plain(&channel)).await, Code::Unauthenticated);
                }
                Minted::Certificate(id) => {
                    assert_eq!(certificates::state(&world, &id).await, "revoked");
                }
                Minted::Lease(id) => {
                    until("it ends", async || world.lease(&id).await.state == "revoked").await;
                }
            }
        }
    }
}
