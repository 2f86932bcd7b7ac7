//! Tokens through the real socket: what they are accepted for, how often, and how they end.

mod bonds;
mod certificates;
mod ends;
mod forms;
mod leased;
mod limits;
mod places;
mod properties;
mod races;
mod registry;
mod replace;
mod spending;
mod steps;
mod tree;

use std::time::Duration;

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    CreateTokenRequest, InspectTokenRequest, ListTokensRequest, RenewTokenRequest,
    RevokeTokenRequest, SuspendIdentityRequest, Token, TokenOrder, WhoAmIRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::{human, login, machine, register};
use crate::support::node::{BACKENDS, Backend, Fixture};
use crate::support::tokens::{Bearing, bearing, create, mint, plain, token};

/// What `whoami` answers.
async fn knock(bearer: &Bearing) -> Code {
    let mut client = IdentityServiceClient::new(bearer.clone());
    client.who_am_i(WhoAmIRequest {}).await.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

async fn inspect(bearer: &Bearing, accessor: &str) -> Result<Token, Status> {
    let request = InspectTokenRequest { accessor: accessor.to_owned() };
    let found = TokenServiceClient::new(bearer.clone()).inspect_token(request).await?;
    Ok(found.into_inner().token.unwrap())
}

async fn renew(bearer: &Bearing, accessor: &str, ttl_s: i64) -> Result<Token, Status> {
    let request = RenewTokenRequest { accessor: accessor.to_owned(), ttl_s };
    let renewed = TokenServiceClient::new(bearer.clone()).renew_token(request).await?;
    Ok(renewed.into_inner().token.unwrap())
}

async fn revoke(bearer: &Bearing, accessor: &str) -> Result<Token, Status> {
    let request =
        RevokeTokenRequest { accessor: accessor.to_owned(), reason: "a drill".to_owned() };
    let revoked = TokenServiceClient::new(bearer.clone()).revoke_token(request).await?;
    Ok(revoked.into_inner().token.unwrap())
}

async fn child(bearer: &Bearing, order: TokenOrder) -> Result<String, Status> {
    let request = CreateTokenRequest { order: Some(order), ..Default::default() };
    let made = TokenServiceClient::new(bearer.clone()).create_token(request).await?;
    Ok(made.into_inner().bearer)
}

fn with(ttl_s: i64) -> TokenOrder {
    TokenOrder { ttl_s, ..Default::default() }
}

/// Changes one digit and makes the checksum right again, as somebody who guesses would.
fn guess(token: &str) -> String {
    let (body, _) = token.split_at(token.len() - 6);
    let mut body = body.as_bytes().to_vec();
    let last = body.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    checked(body)
}

/// The same bits under another prefix.
fn retyped(token: &str, prefix: &str) -> String {
    checked([prefix.as_bytes(), &token.as_bytes()[4..token.len() - 6]].concat())
}

/// Ends a token's text with its checksum, computed here once more.
fn checked(body: Vec<u8>) -> String {
    let mut crc = u32::MAX;
    for byte in &body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut check = !crc;
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::from_utf8(body).unwrap();
    let mut tail = Vec::new();
    for _ in 0..6 {
        tail.push(char::from(digits[usize::try_from(check % 62).unwrap()]));
        check /= 62;
    }
    text.extend(tail.iter().rev());
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_its_identity_without_any_certificate() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let made = token(&etl, 0).await;
        let nobody = f.connect_as_nobody().await;
        let mut client = IdentityServiceClient::new(bearing(&nobody, &made.bearer));
        for _ in 0..3 {
            let me = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
            assert_eq!((me.identity.as_str(), me.method.as_str()), ("etl", "token"));
        }
        let shown = made.token.unwrap();
        assert_eq!((shown.identity.as_str(), shown.state.as_str()), ("etl", "active"));
        assert_eq!(shown.expires_at_ms - shown.created_at_ms, 900_000);
        assert_eq!(shown.max_expires_at_ms - shown.created_at_ms, 86_400_000);
        // Beside the certificate of somebody else it is the token that counts.
        let mut client =
            IdentityServiceClient::new(bearing(&f.connect(&f.admin).await, &made.bearer));
        let me = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
        assert_eq!(me.identity, "etl");
        assert_eq!(knock(&plain(&nobody)).await, Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_never_falls_back_to_the_certificate() {
    let f = Fixture::new().await;
    let admin = f.connect(&f.admin).await;
    let good = token(&admin, 0).await.bearer;
    assert_eq!(knock(&bearing(&admin, &good)).await, Code::Ok);
    let mut bad = vec![
        String::new(),
        " ".to_owned(),
        "hvs.CAESIJ".to_owned(),
        good.to_uppercase(),
        format!("{good} "),
        format!(" {good}"),
        good[..good.len() - 1].to_owned(),
        format!("{good}0"),
        guess(&good),
        "z".repeat(8_000),
    ];
    bad.extend(["srs_", "srh_", "srw_", "sri_", "srj_"].map(|prefix| retyped(&good, prefix)));
    for bad in bad {
        assert_eq!(knock(&bearing(&admin, &bad)).await, Code::Unauthenticated, "{bad:?}");
    }
    let single = TokenOrder { uses: 1, ..with(0) };
    let single = create(&admin, single).await.unwrap().bearer;
    assert!(single.starts_with("srs_"));
    for prefix in ["srt_", "srh_", "srw_", "sri_", "srj_"] {
        let other = retyped(&single, prefix);
        assert_eq!(knock(&bearing(&admin, &other)).await, Code::Unauthenticated, "{prefix}");
    }
    // Redeemed as another type it is as unspent as before.
    assert_eq!(knock(&bearing(&admin, &single)).await, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_its_time_and_is_renewed_up_to_its_maximum_only() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let order = TokenOrder { max_ttl_s: 1_000, ..with(600) };
        let made = create(&etl, order).await.unwrap();
        let (bearer, first) = (bearing(&etl, &made.bearer), made.token.unwrap());
        f.clock.advance(Duration::from_secs(500));
        let renewed = renew(&bearer, "", 0).await.unwrap();
        assert_eq!(renewed.expires_at_ms, first.max_expires_at_ms, "cut to the maximum");
        f.clock.advance(Duration::from_secs(490));
        assert_eq!(knock(&bearer).await, Code::Ok, "what was kept of its old end does not count");
        // In the last seconds there is nothing to be gained, by whatever span.
        for ttl_s in [0, 1, 100_000, i64::MAX / 2_000] {
            let renewed = renew(&bearer, "", ttl_s).await.unwrap();
            assert_eq!(renewed.expires_at_ms, first.max_expires_at_ms, "{ttl_s}");
        }
        assert_eq!(renew(&bearer, "", -1).await.unwrap_err().code(), Code::InvalidArgument);
        f.clock.advance(Duration::from_secs(11));
        assert_eq!(knock(&bearer).await, Code::Unauthenticated);
        assert_eq!(renew(&bearer, "", 0).await.unwrap_err().code(), Code::Unauthenticated);
        let holder = plain(&etl);
        let over = renew(&holder, &first.accessor, 0).await.unwrap_err();
        assert_eq!(over.code(), Code::FailedPrecondition);
        assert_eq!(inspect(&holder, &first.accessor).await.unwrap().state, "expired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_owner_and_administrators_mint_and_nobody_does_for_a_human() {
    let f = Fixture::new().await;
    let admin = f.connect(&f.admin).await;
    let (carol, dave) = (human(&f, "carol").await, human(&f, "dave").await);
    register(&f, "etl", "pipeline", "carol").await;
    for (who, allowed) in [(&carol, true), (&admin, true), (&dave, false)] {
        let minted = mint(who, "etl", with(0)).await;
        match minted {
            Ok(minted) => {
                assert!(allowed);
                assert_eq!(knock(&bearing(&dave, &minted)).await, Code::Ok);
            }
            Err(refusal) => assert!(!allowed && refusal.code() == Code::PermissionDenied),
        }
    }
    for human in ["carol", "admin", "dave"] {
        for who in [&admin, &dave] {
            let refusal = mint(who, human, with(0)).await.unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied, "{human}");
        }
    }
    let unknown = mint(&admin, "nobody", with(0)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // By a token no one mints that does not say so, and a machine's never does.
    let carols = bearing(&carol, &token(&carol, 0).await.bearer);
    let minting = |order| async {
        let request = strongroom::proto::MintTokenRequest {
            identity: "etl".to_owned(),
            order: Some(with(0)),
            ..Default::default()
        };
        TokenServiceClient::new(order).mint_token(request).await
    };
    assert_eq!(minting(carols).await.unwrap_err().code(), Code::PermissionDenied);
    let order = TokenOrder { scope: vec!["tokens/etl:tokens.mint".to_owned()], ..with(0) };
    let exact = bearing(&carol, &create(&carol, order).await.unwrap().bearer);
    minting(exact).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_seen_and_ended_by_their_holder_their_owner_and_administrators_alone() {
    let f = Fixture::new().await;
    let admin = plain(&f.connect(&f.admin).await);
    let carol = plain(&human(&f, "carol").await);
    let dave = plain(&human(&f, "dave").await);
    register(&f, "etl", "pipeline", "carol").await;
    let etl = f.connect(&login(&f, "etl").await).await;
    let made = token(&etl, 0).await;
    let accessor = made.token.unwrap().accessor;
    for who in [&admin, &carol, &plain(&etl)] {
        assert_eq!(inspect(who, &accessor).await.unwrap().identity, "etl");
    }
    for who in [&carol, &admin] {
        assert_eq!(renew(who, &accessor, 0).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let unknown = "00000000-0000-4000-8000-000000000000";
    for id in [&accessor, unknown] {
        for refusal in [
            inspect(&dave, id).await.unwrap_err(),
            renew(&dave, id, 0).await.unwrap_err(),
            revoke(&dave, id).await.unwrap_err(),
        ] {
            assert_eq!(refusal.code(), Code::PermissionDenied, "{id}");
        }
    }
    assert_eq!(inspect(&admin, unknown).await.unwrap_err().code(), Code::NotFound);
    // With a certificate alone there is no token that could be meant.
    assert_eq!(inspect(&admin, "").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(knock(&bearing(&etl, &made.bearer)).await, Code::Ok);
    for _ in 0..2 {
        assert_eq!(revoke(&carol, &accessor).await.unwrap().state, "revoked");
    }
    assert_eq!(knock(&bearing(&etl, &made.bearer)).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_or_contained_token_is_dead_on_both_nodes_and_after_a_restart() {
    let mut f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    let admin = f.connect(&f.admin).await;
    register(&f, "etl", "pipeline", "admin").await;
    let login = login(&f, "etl").await;
    let here = f.connect(&login).await;
    let there = f.connect_to(&other, &login).await;
    let [one, two] = [token(&here, 0).await, token(&here, 0).await];
    for token in [&one.bearer, &two.bearer] {
        for node in [&here, &there] {
            assert_eq!(knock(&bearing(node, token)).await, Code::Ok);
        }
    }
    revoke(&plain(&admin), &one.token.unwrap().accessor).await.unwrap();
    for node in [&here, &there] {
        assert_eq!(knock(&bearing(node, &one.bearer)).await, Code::Unauthenticated);
        assert_eq!(knock(&bearing(node, &two.bearer)).await, Code::Ok);
    }
    let request = SuspendIdentityRequest { name: "etl".into(), reason: String::new() };
    IdentityServiceClient::new(admin).suspend_identity(request).await.unwrap();
    for node in [&here, &there] {
        assert_eq!(knock(&bearing(node, &two.bearer)).await, Code::Unauthenticated);
    }
    drop((here, there));
    other.stop().await.unwrap();
    f.restart().await;
    let nobody = f.connect_as_nobody().await;
    for token in [&one.bearer, &two.bearer] {
        assert_eq!(knock(&bearing(&nobody, token)).await, Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_tokens_in_force_page_by_page_and_the_others_where_asked() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let mut made = Vec::new();
        for ttl_s in [300, 100, 200, 100] {
            made.push(token(&etl, ttl_s).await.token.unwrap().accessor);
        }
        revoke(&plain(&etl), &made[2]).await.unwrap();
        let listed = list(&etl, 1, false).await;
        assert_eq!(listed, [made[1].clone(), made[3].clone(), made[0].clone()]);
        f.clock.advance(Duration::from_secs(150));
        assert_eq!(list(&etl, 0, false).await, [made[0].clone()]);
        assert_eq!(list(&etl, 3, true).await, made);
    }
}

async fn list(of: &Channel, page_size: i32, include_ended: bool) -> Vec<String> {
    let mut client = TokenServiceClient::new(of.clone());
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListTokensRequest { page_size, page_token, identity: String::new(), include_ended };
        let page = client.list_tokens(request).await.unwrap().into_inner();
        found.extend(page.tokens.into_iter().map(|token| token.accessor));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}
