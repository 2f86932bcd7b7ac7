//! A token whose answer was lost: within a minute the same call revokes it and makes another.

use strongroom::proto::{CreateTokenResponse, MintTokenRequest, MintTokenResponse};

use super::spending::{entries, issue};
use super::*;
use crate::support::target::{World, ask, log_in, until};

fn keyed(order: TokenOrder, replace: bool) -> CreateTokenRequest {
    CreateTokenRequest { idempotency_key: "a-key-of-the-test".into(), order: Some(order), replace }
}

fn minted(order: TokenOrder, replace: bool) -> MintTokenRequest {
    MintTokenRequest {
        idempotency_key: "a-key-of-the-test".into(),
        identity: "nightly-etl".into(),
        order: Some(order),
        replace,
    }
}

async fn make(
    bearer: &Bearing,
    request: CreateTokenRequest,
) -> Result<CreateTokenResponse, Status> {
    Ok(TokenServiceClient::new(bearer.clone()).create_token(request).await?.into_inner())
}

async fn mint_it(
    channel: &Channel,
    request: MintTokenRequest,
) -> Result<MintTokenResponse, Status> {
    Ok(TokenServiceClient::new(channel.clone()).mint_token(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_minute_a_repeated_call_ends_the_first_token_and_all_below_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = plain(&machine(&f, "etl").await);
        let nobody = f.connect_as_nobody().await;
        let first = make(&etl, keyed(with(600), true)).await.unwrap();
        let (bearer, token) = (bearing(&nobody, &first.bearer), first.token.unwrap());
        let below = bearing(&nobody, &child(&bearer, with(300)).await.unwrap());
        // Without being asked for it, a replay tells what there is.
        let known = make(&etl, keyed(with(600), false)).await.unwrap();
        assert!(known.bearer.is_empty());
        assert_eq!(known.token.unwrap().accessor, token.accessor);
        assert_eq!(knock(&bearer).await, Code::Ok);
        let second = make(&etl, keyed(with(600), true)).await.unwrap();
        let now = second.token.unwrap();
        assert_ne!(now.accessor, token.accessor);
        for dead in [&bearer, &below] {
            assert_eq!(knock(dead).await, Code::Unauthenticated);
        }
        assert_eq!(inspect(&etl, &token.accessor).await.unwrap().state, "revoked");
        let second = bearing(&nobody, &second.bearer);
        assert_eq!(knock(&second).await, Code::Ok);
        // One entry holds both: what ended, and what took its place.
        let made = entries(&f, "tokens.create", "ok").await;
        let replaced = made.iter().find(|entry| entry.subject_id == now.accessor).unwrap();
        let rows: Vec<_> = replaced.changes.iter().map(|change| change.key.as_str()).collect();
        assert!(rows.contains(&&*token.accessor) && rows.contains(&&*now.accessor), "{rows:?}");
        // Another request under the key, and replacing without one, are refused.
        for wrong in [
            keyed(with(601), true),
            CreateTokenRequest { idempotency_key: String::new(), ..keyed(with(600), true) },
        ] {
            assert_eq!(make(&etl, wrong).await.unwrap_err().code(), Code::InvalidArgument);
        }
        // Whoever asks by another credential made nothing under it.
        let own = make(&second, keyed(with(600), true)).await.unwrap();
        assert!(!own.bearer.is_empty());
        assert_eq!(knock(&second).await, Code::Ok);
        // After that minute there is no other.
        f.clock.advance(Duration::from_secs(61));
        let late = make(&etl, keyed(with(600), true)).await.unwrap();
        assert!(late.bearer.is_empty());
        assert_eq!(late.token.unwrap().accessor, now.accessor);
        assert_eq!(knock(&second).await, Code::Ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replaced_token_paid_for_is_gone_before_there_is_another() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let nobody = world.f.connect_as_nobody().await;
        let order = || TokenOrder { uses: 1, ..with(0) };
        let first = mint_it(&world.admin, minted(order(), true)).await.unwrap();
        let bearer = bearing(&nobody, &first.bearer);
        let lost = issue(&bearer, ask()).await.unwrap();
        drop(log_in(&lost, world.port).await.unwrap());
        let second = parking_lot::Mutex::new(None);
        until("it is replaced", async || {
            match mint_it(&world.admin, minted(order(), true)).await {
                Ok(made) => {
                    let over = world.lease(&lost.lease_id).await;
                    assert_eq!(over.state, "revoked", "one lease a use");
                    *second.lock() = Some(made);
                }
                // Not gone yet: ask again.
                Err(refusal) => assert_eq!(refusal.code(), Code::Unavailable, "{refusal}"),
            }
            second.lock().is_some()
        })
        .await;
        let second = second.into_inner().unwrap();
        assert!(second.bearer.starts_with("srs_"));
        assert!(log_in(&lost, world.port).await.is_err());
        assert_eq!(knock(&bearer).await, Code::Unauthenticated);
        let issued = issue(&bearing(&nobody, &second.bearer), ask()).await.unwrap();
        drop(log_in(&issued, world.port).await.unwrap());
        let active = world.leases().await.into_iter().filter(|lease| lease.state == "active");
        assert_eq!(active.count(), 1);
        // Somebody else who may mint for the machine has keys of their own.
        let carol = human(&world.f, "carol").await;
        let refusal = mint_it(&carol, minted(order(), true)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_retries_at_once_one_token_is_left_in_force() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let other = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(f.second_node().await),
        };
        register(&f, "etl", "pipeline", "admin").await;
        let login = login(&f, "etl").await;
        let here = plain(&f.connect(&login).await);
        let there = match &other {
            Some(node) => plain(&f.connect_to(node, &login).await),
            None => here.clone(),
        };
        let calls = (0..24).map(|n| {
            let node = if n % 2 == 0 { here.clone() } else { there.clone() };
            async move { make(&node, keyed(with(600), true)).await }
        });
        let mut bearers = Vec::new();
        for made in futures_util::future::join_all(calls).await {
            match made {
                Ok(made) => bearers.push(made.bearer),
                Err(refusal) => {
                    let later = [Code::Unavailable, Code::Aborted];
                    assert!(later.contains(&refusal.code()), "{refusal}");
                }
            }
        }
        let mut alive = 0;
        for bearer in bearers.iter().filter(|bearer| !bearer.is_empty()) {
            let node = f.connect_as_nobody().await;
            alive += usize::from(knock(&bearing(&node, bearer)).await == Code::Ok);
        }
        assert_eq!(alive, 1, "{backend:?} of {}", bearers.len());
        let mut client = TokenServiceClient::new(here);
        let listed = client.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.tokens.len(), 1);
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}
