//! What is made with a token for somebody else ends with it, and a handle is bound as its token was.

use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::{
    GetHoldingsRequest, IssueLoginCertificateRequest, MintTokenRequest, MintTokenResponse,
    RenewLeaseRequest, ResumeIdentityRequest, TransferIdentityRequest, UpdateIdentityRequest,
};

use super::spending::issue;
use super::*;
use crate::support::logins::fingerprint;
use crate::support::node::{Login, csr};
use crate::support::restored::restored;
use crate::support::target::{World, ask, until};

/// An administrator's token that may let in the machine `etl` and nothing else.
async fn letting_in(f: &Fixture) -> (Bearing, Token) {
    let scope = ["tokens/etl:tokens.mint", "identities/etl:identities.issue-cert"];
    let scope = scope.map(str::to_owned).to_vec();
    let admin = f.connect(&f.admin).await;
    let made = create(&admin, TokenOrder { scope, max_ttl_s: 600, ..with(600) }).await.unwrap();
    (bearing(&admin, &made.bearer), made.token.unwrap())
}

async fn minted(by: &Bearing, identity: &str) -> MintTokenResponse {
    let order = Some(TokenOrder { max_ttl_s: 9_000, ..with(9_000) });
    let request = MintTokenRequest { identity: identity.into(), order, ..Default::default() };
    TokenServiceClient::new(by.clone()).mint_token(request).await.unwrap().into_inner()
}

async fn signed(by: &Bearing, name: &str) -> Login {
    let (key_pem, csr_pem) = csr();
    let request = IssueLoginCertificateRequest {
        name: name.into(),
        csr_pem,
        ttl_s: 9_000,
        ..Default::default()
    };
    let mut client = IdentityServiceClient::new(by.clone());
    let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
    Login { key_pem, certificate_pem: issued.certificate_pem }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_minted_or_signed_with_a_token_is_dead_as_soon_as_that_is_revoked() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let (asks, token) = letting_in(&f).await;
        let made = minted(&asks, "etl").await;
        let found = made.token.unwrap();
        assert_eq!(found.parent, token.accessor);
        assert_eq!(found.expires_at_ms, token.expires_at_ms);
        assert_eq!(found.max_expires_at_ms, token.max_expires_at_ms);
        let nobody = f.connect_as_nobody().await;
        let other = bearing(&nobody, &made.bearer);
        let below = bearing(&nobody, &child(&other, with(0)).await.unwrap());
        let renewed = renew(&other, "", 900).await.unwrap();
        assert_eq!(renewed.expires_at_ms, token.expires_at_ms);
        // A login makes tokens, and they hang on it.
        let login = f.connect(&signed(&asks, "etl").await).await;
        let by_login = create(&login, with(5_000)).await.unwrap();
        let last = by_login.token.unwrap();
        assert!(last.expires_at_ms <= token.expires_at_ms);
        let by_login = bearing(&nobody, &by_login.bearer);
        let all = [other, below, plain(&login), by_login];
        for one in &all {
            assert_eq!(knock(one).await, Code::Ok);
        }
        revoke(&asks, "").await.unwrap();
        for one in &all {
            assert_eq!(knock(one).await, Code::Unauthenticated);
        }
        assert_eq!(knock(&plain(&etl)).await, Code::Ok, "its own login hangs on nothing");
        until("the rows follow", async || {
            inspect(&plain(&etl), &last.accessor).await.unwrap().state == "revoked"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_minted_or_signed_with_a_token_ends_when_that_does() {
    let f = Fixture::new().await;
    machine(&f, "etl").await;
    let (asks, _) = letting_in(&f).await;
    let other = bearing(&f.connect_as_nobody().await, &minted(&asks, "etl").await.bearer);
    let login = signed(&asks, "etl").await;
    let login = plain(&f.connect(&login).await);
    for one in [&other, &login] {
        assert_eq!(knock(one).await, Code::Ok);
    }
    f.clock.advance(Duration::from_secs(602));
    for one in [&other, &login] {
        assert_eq!(knock(one).await, Code::Unauthenticated);
    }
}

/// How much of others hangs on somebody's tokens.
async fn lent(admin: &Channel, name: &str) -> i64 {
    let request = GetHoldingsRequest { name: name.to_owned() };
    let mut client = IdentityServiceClient::new(admin.clone());
    client.get_holdings(request).await.unwrap().into_inner().lent
}

async fn suspend(admin: &Channel, name: &str) {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    IdentityServiceClient::new(admin.clone()).suspend_identity(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebodys_token_made_for_others_is_dead_as_soon_as_they_are_contained() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let (carol, name) = (human(&world.f, "carol").await, "nightly-etl");
        let mut identities = IdentityServiceClient::new(world.admin.clone());
        let (machine, owner) = (name.to_owned(), "carol".to_owned());
        let transfer = TransferIdentityRequest { name: machine, owner, ..Default::default() };
        identities.transfer_identity(transfer).await.unwrap();
        let scope =
            ["tokens/nightly-etl:tokens.mint", "identities/nightly-etl:identities.issue-cert"];
        let scope = scope.map(str::to_owned).to_vec();
        let order = TokenOrder { scope, max_ttl_s: 600, ..with(600) };
        let asks = bearing(&carol, &create(&carol, order).await.unwrap().bearer);
        let nobody = world.f.connect_as_nobody().await;
        let made = minted(&asks, name).await;
        let other = bearing(&nobody, &made.bearer);
        let below = bearing(&nobody, &child(&other, with(0)).await.unwrap());
        let login = plain(&world.f.connect(&signed(&asks, name).await).await);
        let lease = issue(&below, ask()).await.unwrap().lease_id;
        // With her certificate: that hangs on nothing.
        let free = bearing(&nobody, &mint(&carol, name, with(0)).await.unwrap());
        let (own, hung) = ([free, plain(&world.etl)], [other, below, login]);
        for one in own.iter().chain(&hung) {
            assert_eq!(knock(one).await, Code::Ok);
        }
        assert_eq!(lent(&world.admin, "carol").await, 2);
        suspend(&world.admin, "carol").await;
        for one in &hung {
            assert_eq!(knock(one).await, Code::Unauthenticated);
        }
        let resume = ResumeIdentityRequest { name: "carol".into(), ..Default::default() };
        identities.resume_identity(resume).await.unwrap();
        for one in &hung {
            assert_eq!(knock(one).await, Code::Unauthenticated, "for good");
        }
        for one in &own {
            assert_eq!(knock(one).await, Code::Ok);
        }
        until("the lease ends", async || world.lease(&lease).await.state == "revoked").await;
        let accessor = made.token.unwrap().accessor;
        until("the rows follow", async || {
            inspect(&own[1], &accessor).await.unwrap().state == "revoked"
        })
        .await;
        assert_eq!(lent(&world.admin, "carol").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_tokens_of_theirs_lent_something_all_of_it_ends() {
    // More than one commit revokes.
    const MANY: usize = 300;
    let f = Fixture::new().await;
    let (carol, admin) = (human(&f, "carol").await, f.connect(&f.admin).await);
    register(&f, "etl", "pipeline", "carol").await;
    let scope = vec!["tokens/etl:tokens.mint".to_owned()];
    let mut all = Vec::new();
    for _ in 0..MANY {
        let order = TokenOrder { scope: scope.clone(), ..with(600) };
        let asks = bearing(&carol, &create(&carol, order).await.unwrap().bearer);
        all.push(bearing(&carol, &minted(&asks, "etl").await.bearer));
    }
    // The node remembers all of them from here on.
    for one in &all {
        assert_eq!(knock(one).await, Code::Ok);
    }
    assert_eq!(lent(&admin, "carol").await, i64::try_from(MANY).unwrap());
    suspend(&admin, "carol").await;
    until("all of it is dead", async || {
        let mut alive = 0;
        for one in &all {
            alive += usize::from(knock(one).await == Code::Ok);
        }
        alive == 0
    })
    .await;
    until("the rows follow", async || {
        let identity = "etl".to_owned();
        let request = ListTokensRequest { identity, page_size: 1_000, ..Default::default() };
        let listed = TokenServiceClient::new(admin.clone()).list_tokens(request).await.unwrap();
        listed.into_inner().tokens.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_end_brings_nothing_back_that_others_held_by_a_token() {
    let f = Fixture::new().await;
    let (carol, admin) = (human(&f, "carol").await, f.connect(&f.admin).await);
    register(&f, "etl", "pipeline", "carol").await;
    let scope = vec!["tokens/etl:tokens.mint".to_owned()];
    let order = TokenOrder { scope, ..with(600) };
    let asks = bearing(&carol, &create(&carol, order).await.unwrap().bearer);
    let other = bearing(&f.connect_as_nobody().await, &minted(&asks, "etl").await.bearer);
    let ends_in = async |ttl_s| {
        let name = "carol".to_owned();
        let request = UpdateIdentityRequest { name, ttl_s: Some(ttl_s), ..Default::default() };
        IdentityServiceClient::new(admin.clone()).update_identity(request).await.unwrap();
    };
    ends_in(20).await;
    assert_eq!(knock(&other).await, Code::Ok);
    // Before the worker, which looks once a minute, has suspended her.
    f.clock.advance(Duration::from_secs(21));
    ends_in(86_400).await;
    assert_eq!(knock(&other).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_hangs_as_deep_as_a_token_may_lets_in_nobody_deeper() {
    let f = Fixture::new().await;
    machine(&f, "etl").await;
    let admin = f.connect(&f.admin).await;
    let scope = vec!["identities/etl:identities.issue-cert".to_owned()];
    let order = || TokenOrder { scope: scope.clone(), ..with(0) };
    let mut asks = bearing(&admin, &create(&admin, order()).await.unwrap().bearer);
    for _ in 0..8 {
        asks = bearing(&admin, &child(&asks, order()).await.unwrap());
    }
    let mut client = IdentityServiceClient::new(asks);
    let (name, csr_pem) = ("etl".to_owned(), csr().1);
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    let refusal = client.issue_login_certificate(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_accepted_only_where_its_token_was_and_is_void_after_a_restore() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let thumbprint = fingerprint(&world.f.admin.certificate_pem);
        let certificate_sha256 = data_encoding::HEXLOWER.encode(&thumbprint);
        let bound = TokenOrder { uses: 1, certificate_sha256, ..with(0) };
        let token = mint(&world.admin, "nightly-etl", bound).await.unwrap();
        let issued = issue(&bearing(&world.admin, &token), ask()).await.unwrap();
        let nobody = world.f.connect_as_nobody().await;
        let renewal = async |channel: &Channel| {
            let mut client = LeaseServiceClient::new(bearing(channel, &issued.lease_handle));
            let request = RenewLeaseRequest { id: issued.lease_id.clone(), ttl_s: 1_200 };
            client.renew_lease(request).await.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
        };
        assert_eq!(renewal(&nobody).await, Code::Unauthenticated);
        assert_eq!(renewal(&world.admin).await, Code::Ok);
        restored(&world.f).await;
        assert_eq!(renewal(&world.admin).await, Code::Unauthenticated);
    }
}
