//! Invitations: for one human, once, for a while.

use strongroom::proto::{
    InviteFactorRequest, InviteFactorResponse, ResumeIdentityRequest, SuspendIdentityRequest,
};

use super::*;

async fn order(f: &Fixture, identity: &str, ttl_s: i64) -> Result<InviteFactorResponse, Status> {
    let mut client = FactorServiceClient::new(f.connect(&f.admin).await);
    let (identity, reason) = (identity.to_owned(), "a drill".to_owned());
    Ok(client.invite_factor(InviteFactorRequest { identity, ttl_s, reason }).await?.into_inner())
}

/// What a human hears who shows an invitation.
async fn refused(bearer: &Bearing, invitation: &str) -> String {
    let refusal = enrol(bearer, invitation).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal:?}");
    refusal.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_for_one_human_once() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let carol = plain(&human(&f, "carol").await);
        let dave = plain(&human(&f, "dave").await);
        let first = invite(&f, "carol").await;
        let second = invite(&f, "carol").await;
        let replaced = refused(&carol, &first).await;
        let foreign = refused(&dave, &second).await;
        assert_ne!(list(&carol, "").await.unwrap().invited_until_ms, 0);
        // Until it is confirmed it may be asked for again: what was shown before counts no more.
        let lost = enrol(&carol, &second).await.unwrap();
        let app = enrol(&carol, &second).await.unwrap();
        let over = confirm(&carol, &lost, &lost.code(&f, 0)).await.unwrap_err();
        assert_eq!(over.code(), Code::NotFound);
        confirm(&carol, &app, &app.code(&f, 0)).await.unwrap();
        let used = refused(&carol, &second).await;
        assert_eq!((&replaced, &replaced), (&foreign, &used), "nobody hears what is wrong");
        assert_eq!(list(&carol, "").await.unwrap().invited_until_ms, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_confirm_with_one_invitation_one_does() {
    let f = Fixture::on(Backend::Postgres).await;
    let other = f.second_node().await;
    let carol = human(&f, "carol").await;
    let login = login(&f, "carol").await;
    let bearers = [plain(&carol), plain(&f.connect_to(&other, &login).await)];
    let invitation = invite(&f, "carol").await;
    let calls = (0..8).map(|n| {
        let (bearer, invitation, f) = (bearers[n % 2].clone(), invitation.clone(), &f);
        async move {
            let app = enrol(&bearer, &invitation).await.ok()?;
            confirm(&bearer, &app, &app.code(f, 0)).await.ok()
        }
    });
    let won = futures_util::future::join_all(calls).await.into_iter().flatten().count();
    assert!(won <= 1, "{won}");
    let active = list(&bearers[0], "").await.unwrap().factors;
    assert_eq!(active.iter().filter(|one| one.state == "active").count(), won);
    drop(bearers);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_ends_by_time_by_reset_and_with_a_suspension() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let carol = plain(&human(&f, "carol").await);
        let short = order(&f, "carol", 60).await.unwrap().invitation;
        let app = enrol(&carol, &short).await.unwrap();
        f.clock.advance(Duration::from_mins(1));
        refused(&carol, &short).await;
        let late = confirm(&carol, &app, &app.code(&f, 0)).await.unwrap_err();
        assert_eq!(late.code(), Code::PermissionDenied, "nor is what it began confirmed");

        let taken = invite(&f, "carol").await;
        let app = enrol(&carol, &taken).await.unwrap();
        assert_eq!(reset(&plain(&admin), "carol").await.unwrap(), 1);
        refused(&carol, &taken).await;
        let over = confirm(&carol, &app, &app.code(&f, 0)).await.unwrap_err();
        assert_eq!(over.code(), Code::NotFound);

        let of_before = invite(&f, "carol").await;
        let mut identities = IdentityServiceClient::new(admin);
        let (name, reason) = ("carol".to_owned(), String::new());
        let suspend = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        identities.suspend_identity(suspend).await.unwrap();
        assert!(order(&f, "carol", 0).await.is_err(), "nobody invites who is suspended");
        identities.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        let carol = plain(&f.connect(&login(&f, "carol").await).await);
        refused(&carol, &of_before).await;
        let app = enrol(&carol, &invite(&f, "carol").await).await.unwrap();
        confirm(&carol, &app, &app.code(&f, 0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_have_no_factors_and_what_is_no_invitation_is_refused() {
    let f = Fixture::new().await;
    let etl = plain(&machine(&f, "etl").await);
    let refusal = order(&f, "etl", 0).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
    for refusal in [
        enrol(&etl, "").await.unwrap_err(),
        verify(&etl, "123456").await.unwrap_err(),
        list(&etl, "").await.unwrap_err(),
        codes(&etl).await.unwrap_err(),
    ] {
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal:?}");
        assert!(refusal.message().contains("only humans"), "{}", refusal.message());
    }
    assert_eq!(order(&f, "nobody", 0).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(order(&f, "admin", -1).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(order(&f, "admin", 8 * 86_400).await.unwrap_err().code(), Code::InvalidArgument);
    let channel = human(&f, "carol").await;
    let carol = plain(&channel);
    let token = crate::support::tokens::token(&channel, 900).await.bearer;
    let single = strongroom::proto::TokenOrder { uses: 1, ..Default::default() };
    let single = crate::support::tokens::create(&channel, single).await.unwrap().bearer;
    let whole = invite(&f, "carol").await;
    for bad in
        [token.as_str(), &single, "sri_", &whole[1..], &format!("{whole}0"), &whole.to_uppercase()]
    {
        let refusal = enrol(&carol, bad).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{bad}");
        assert!(!refusal.message().contains(bad));
    }
    // It is the bearer of no call.
    let mut client = IdentityServiceClient::new(bearing(&channel, &whole));
    let refusal = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}
