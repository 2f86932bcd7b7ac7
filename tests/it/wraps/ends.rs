//! What ends a wrap: its time, who takes it back, and everything that it hangs on.

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    CreateTokenRequest, GetHoldingsRequest, ResumeIdentityRequest, RevokeTokenRequest,
    SuspendIdentityRequest,
};

use super::*;
use crate::support::hand::Hand;
use crate::support::logins::login;
use crate::support::node::BACKENDS;
use crate::support::restored::restored;
use crate::support::target::until;
use crate::support::tokens::{bearing, token};

/// How a wrap is refused now: the words, and what its creator is shown.
async fn over(p: &Place, wrapped: &Wrapped, says: &str, state: &str) {
    let refusal = unwrap(p.etl(), expecting(wrapped)).await.unwrap_err();
    assert_eq!(reason(&refusal), "PRECONDITION", "{refusal}");
    assert!(refusal.message().contains(says), "{refusal}");
    let admin = p.f().connect(&p.f().admin).await;
    let shown = shown(&admin, &wrapped.accessor).await.unwrap();
    assert_eq!(shown.state, state, "{}", shown.void_because);
}

async fn admin(p: &Place) -> IdentityServiceClient<Channel> {
    IdentityServiceClient::new(p.f().connect(&p.f().admin).await)
}

async fn suspend(p: &Place, name: &str) {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    admin(p).await.suspend_identity(request).await.unwrap();
}

async fn waiting(p: &Place, name: &str) -> i64 {
    let request = GetHoldingsRequest { name: name.to_owned() };
    admin(p).await.get_holdings(request).await.unwrap().into_inner().wraps
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrap_that_is_over_or_taken_back_opens_no_more_and_what_was_in_it_is_gone() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let (short, long) =
            (p.wrap("60", "etl").await.unwrap(), p.wrap("120", "etl").await.unwrap());
        assert_eq!(revoke(&p.eve, &long.accessor).await, Err(Code::PermissionDenied));
        // The recipient may as well.
        let revoked = revoke(p.etl(), &long.accessor).await.unwrap();
        assert_eq!((revoked.state.as_str(), revoked.changed_by.as_str()), ("revoked", "etl"));
        assert_eq!(revoke(p.alice(), &long.accessor).await, Ok(revoked), "again changes nothing");
        over(&p, &long, "was taken back", "revoked").await;

        p.place.advance(59);
        assert_eq!(shown(p.alice(), &short.accessor).await.unwrap().state, "pending");
        p.place.advance(2);
        over(&p, &short, "has expired", "expired").await;
        let hand = Hand::new(&p.f().parts.location);
        // A node whose clock is behind finds it yet, and takes nothing for altered.
        assert_eq!(hand.ask("SELECT id FROM wrap_payloads").await.len(), 1);
        p.place.advance(60);
        until("the worker has been round", async || {
            hand.ask("SELECT id FROM wrap_payloads").await.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containing_who_made_it_or_who_it_is_for_voids_it_for_good() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let wrapped = p.wrap("3600", "etl").await.unwrap();
        assert_eq!((waiting(&p, "alice").await, waiting(&p, "etl").await), (1, 1));
        suspend(&p, "alice").await;
        assert_eq!((waiting(&p, "alice").await, waiting(&p, "eve").await), (0, 0));
        over(&p, &wrapped, "whoever made it was contained", "void").await;
        let resume = ResumeIdentityRequest { name: "alice".into(), reason: String::new() };
        admin(&p).await.resume_identity(resume).await.unwrap();
        over(&p, &wrapped, "whoever made it was contained", "void").await;

        let alice = p.f().connect(&login(p.f(), "alice").await).await;
        let wrapped = wrap_with(&alice, "3600", "etl").await.unwrap().wrapped.unwrap();
        suspend(&p, "etl").await;
        let refusal = unwrap(p.etl(), expecting(&wrapped)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
        assert_eq!(shown(&alice, &wrapped.accessor).await.unwrap().state, "void");
        // Nobody wraps for who is contained, nor for nobody.
        for name in ["etl", "mallory"] {
            let refusal = wrap_with(&alice, "60", name).await.unwrap_err();
            assert_eq!(refusal.code(), Code::NotFound, "{refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_and_a_restore_void_what_was_wrapped() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let made = token(p.alice(), 600).await;
        let bearer = bearing(p.alice(), &made.bearer);
        let get = GetSecretRequest { path: "team/key".into(), version: 0 };
        let mut secrets = SecretServiceClient::new(bearer.clone());
        let answer = secrets.get_secret(asked(get, "3600", "etl")).await;
        let wrapped = answer.unwrap().into_inner().wrapped.unwrap();
        TokenServiceClient::new(bearer).revoke_token(RevokeTokenRequest::default()).await.unwrap();
        over(&p, &wrapped, "the credential that it was asked for with", "void").await;

        let wrapped = p.wrap("3600", "etl").await.unwrap();
        restored(p.f()).await;
        over(&p, &wrapped, "the vault was restored", "void").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_voids_what_was_wrapped_far_below_it_before_any_worker_came() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let top = token(p.alice(), 600).await;
        let mut last = bearing(p.alice(), &top.bearer);
        for _ in 0..3 {
            let order = CreateTokenRequest::default();
            let below = TokenServiceClient::new(last).create_token(order).await.unwrap();
            last = bearing(p.alice(), &below.into_inner().bearer);
        }
        let get = GetSecretRequest { path: "team/key".into(), version: 0 };
        let answer = SecretServiceClient::new(last).get_secret(asked(get, "3600", "etl")).await;
        let wrapped = answer.unwrap().into_inner().wrapped.unwrap();
        let top = bearing(p.alice(), &top.bearer);
        TokenServiceClient::new(top).revoke_token(RevokeTokenRequest::default()).await.unwrap();
        over(&p, &wrapped, "the credential that it was asked for with", "void").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_expired_leaves_what_was_wrapped() {
    let p = Place::new(Backend::Sqlite).await;
    let made = token(p.alice(), 60).await;
    let bearer = bearing(p.alice(), &made.bearer);
    let get = GetSecretRequest { path: "team/key".into(), version: 0 };
    let answer = SecretServiceClient::new(bearer).get_secret(asked(get, "3600", "etl")).await;
    let wrapped = answer.unwrap().into_inner().wrapped.unwrap();
    p.place.advance(61);
    assert_eq!(value(p.etl(), &wrapped).await.unwrap(), CANARY);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_thousand_that_wait_wraps_no_more_until_they_are_over() {
    const SAME: &str = "handle, creator, creator_epoch, credential, action, resource, message, state, \
                        restore_epoch, created_at, expires_at, opened_from, changed_at, changed_by, \
                        row_version, seal_version, mac";
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        p.wrap("60", "").await.unwrap();
        // They are counted whatever their seals say.
        let hand = Hand::new(&p.f().parts.location);
        hand.run(&format!(
            "INSERT INTO wraps (id, {SAME}) WITH RECURSIVE n (i) AS \
             (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             SELECT 'copy-' || n.i, {SAME} FROM wraps, n"
        ))
        .await;
        let refusal = p.wrap("60", "").await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
        p.place.advance(61);
        p.wrap("60", "").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_of_an_identity_is_bounded_in_bytes_as_well() {
    const LARGE: usize = 700 * 1_024;
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        f.parts.limits.wrapped_bytes = 2 * 1_024 * 1_024;
        f.restart().await;
        let p = Place::of(f).await;
        p.place.grant("etl", "get", "secrets/team/**").await;
        let large = vec![7; LARGE];
        put(&mut p.place.alice(), "team/key", &large, 1).await.unwrap();
        let (first, second) = (p.wrap("60", "").await.unwrap(), p.wrap("60", "").await.unwrap());
        let refusal = p.wrap("60", "").await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
        assert!(refusal.message().contains("may hold 2097152"), "{refusal}");
        // Refused, it stored nothing: less than what is left fits as before, and others have their own.
        let sql = "SELECT id FROM wrap_payloads";
        let hand = Hand::new(&p.f().parts.location);
        assert_eq!(hand.ask(sql).await.len(), 2);
        put(&mut p.place.alice(), "team/key", CANARY, 2).await.unwrap();
        p.wrap("60", "").await.unwrap();
        wrap_with(p.etl(), "60", "").await.unwrap();
        put(&mut p.place.alice(), "team/key", &large, 3).await.unwrap();
        assert_eq!(p.wrap("60", "").await.unwrap_err().code(), Code::ResourceExhausted);
        // What is opened, taken back or over makes room.
        assert_eq!(value(p.etl(), &first).await.unwrap().len(), LARGE);
        p.wrap("60", "").await.unwrap();
        assert_eq!(p.wrap("60", "").await.unwrap_err().code(), Code::ResourceExhausted);
        revoke(p.alice(), &second.accessor).await.unwrap();
        p.wrap("60", "").await.unwrap();
        assert_eq!(p.wrap("60", "").await.unwrap_err().code(), Code::ResourceExhausted);
        p.place.advance(61);
        p.wrap("60", "").await.unwrap();
    }
}
