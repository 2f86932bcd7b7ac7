//! Once is once and five are five, whatever races and whichever credential guesses.

use super::*;
use crate::identities::bad_names;

const CLIENTS: usize = 64;

/// How often each outcome was answered.
fn count(answers: &[Result<(), Code>], what: Result<(), Code>) -> usize {
    answers.iter().filter(|answer| **answer == what).count()
}

async fn race(calls: Vec<(Bearing, String)>) -> Vec<Result<(), Code>> {
    let calls = calls.into_iter().map(|(bearer, code)| async move {
        verify(&bearer, &code).await.map(drop).map_err(|refusal| refusal.code())
    });
    futures_util::future::join_all(calls).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_uses_of_one_code_on_two_nodes_one_wins_and_nobody_is_locked_out() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let app = authenticator(&f, &channel, "carol").await;
        let other = if backend == Backend::Postgres { Some(f.second_node().await) } else { None };
        let mut logins = Vec::new();
        for _ in 0..4 {
            let login = login(&f, "carol").await;
            logins.push(plain(&f.connect(&login).await));
            if let Some(other) = &other {
                logins.push(plain(&f.connect_to(other, &login).await));
            }
        }
        let code = app.code(&f, 0);
        let calls = logins.iter().cycle().take(CLIENTS).map(|one| (one.clone(), code.clone()));
        let answers = race(calls.collect()).await;
        assert_eq!(count(&answers, Ok(())), 1, "{answers:?}");
        let others =
            count(&answers, Err(Code::PermissionDenied)) + count(&answers, Err(Code::Aborted));
        assert_eq!(others, CLIENTS - 1, "{answers:?}");
        let shown = list(&plain(&channel), "").await.unwrap();
        assert_eq!(shown.locked_until_ms, 0, "a client that repeats itself locks nobody");
        let mut proven = 0;
        for login in &logins {
            proven += usize::from(!whoami(login).await.factors.is_empty());
        }
        // Where there are two nodes each login is asked at both.
        assert_eq!(proven, logins.len() / 4, "one credential proved it");
        drop(logins);
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_guesses_at_once_five_are_looked_at() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let app = authenticator(&f, &channel, "carol").await;
        let other = if backend == Backend::Postgres { Some(f.second_node().await) } else { None };
        let login = login(&f, "carol").await;
        let mut bearers = vec![plain(&channel), plain(&f.connect(&login).await)];
        if let Some(other) = &other {
            bearers.push(plain(&f.connect_to(other, &login).await));
        }
        let guesses = app.wrong(&f, CLIENTS).into_iter();
        let calls = bearers.iter().cycle().cloned().zip(guesses).collect();
        let answers = race(calls).await;
        assert_eq!(count(&answers, Err(Code::PermissionDenied)), 4, "{answers:?}");
        assert_eq!(count(&answers, Err(Code::ResourceExhausted)), CLIENTS - 4, "{answers:?}");
        // A right one is not looked at either, on any node, until the time is over.
        for bearer in &bearers {
            let locked = verify(bearer, &app.code(&f, 0)).await.unwrap_err();
            assert_eq!(locked.code(), Code::ResourceExhausted, "{locked:?}");
        }
        let until = list(&bearers[0], "").await.unwrap().locked_until_ms;
        assert!(until > 0);
        bearers.truncate(2);
        if let Some(other) = other {
            // Of several nodes no clock is turned: each would find the other's wrong.
            other.stop().await.unwrap();
        }
        f.clock.advance(Duration::from_mins(14));
        assert!(verify(&bearers[0], &app.code(&f, 0)).await.is_err());
        f.clock.advance(Duration::from_secs(61));
        // As soon as the node takes the time, which the one that stopped did not know.
        crate::support::target::until("a right one is looked at", async || {
            verify(&bearers[0], &app.code(&f, 0)).await.is_ok()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_codes_count_over_all_credentials_and_a_right_one_forgives_none() {
    let mut f = Fixture::new().await;
    let channel = human(&f, "carol").await;
    let app = authenticator(&f, &channel, "carol").await;
    let token = crate::support::tokens::token(&channel, 900).await.bearer;
    let bearers = [
        plain(&channel),
        bearing(&channel, &token),
        plain(&f.connect(&login(&f, "carol").await).await),
    ];
    let wrong = app.wrong(&f, 9);
    for (code, bearer) in wrong.iter().zip(bearers.iter().cycle()).take(4) {
        assert_eq!(verify(bearer, code).await.unwrap_err().code(), Code::PermissionDenied);
    }
    verify(&bearers[0], &app.code(&f, 0)).await.unwrap();
    // What was counted is not forgotten with the process.
    f.restart().await;
    let carol = plain(&f.connect(&login(&f, "carol").await).await);
    let fifth = verify(&carol, &wrong[4]).await.unwrap_err();
    assert_eq!(fifth.code(), Code::ResourceExhausted, "{fifth:?}");
    // Nobody else is: what others do with their own codes counts for them.
    let other = human(&f, "dave").await;
    let theirs = authenticator(&f, &other, "dave").await;
    verify(&plain(&other), &theirs.code(&f, 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_code_is_guarded_as_any_other_is() {
    let f = Fixture::new().await;
    let carol = plain(&human(&f, "carol").await);
    let app = enrol(&carol, &invite(&f, "carol").await).await.unwrap();
    let stolen = plain(&f.connect(&login(&f, "carol").await).await);
    for code in app.wrong(&f, 4) {
        let refusal = confirm(&stolen, &app, &code).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
    let locked = confirm(&stolen, &app, &app.wrong(&f, 5)[4]).await.unwrap_err();
    assert_eq!(locked.code(), Code::ResourceExhausted);
    assert!(whoami(&stolen).await.factors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_names_that_are_none_count_for_nobody() {
    let f = Fixture::new().await;
    let channel = human(&f, "carol").await;
    let app = authenticator(&f, &channel, "carol").await;
    let nobody = plain(&f.connect_as_nobody().await);
    let neighbour = plain(&human(&f, "dave").await);
    let admin = plain(&f.connect(&f.admin).await);
    for code in app.wrong(&f, 20) {
        assert_eq!(verify(&nobody, &code).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(verify(&neighbour, &code).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    let variants = ["Carol", "CAROL", "carol ", " carol"].map(str::to_owned);
    for name in bad_names().into_iter().filter(|name| !name.is_empty()).chain(variants) {
        let (listed, ended) = (list(&admin, &name).await, reset(&admin, &name).await);
        assert_eq!(listed.unwrap_err().code(), Code::InvalidArgument, "{name:?}");
        assert_eq!(ended.unwrap_err().code(), Code::InvalidArgument, "{name:?}");
    }
    let carol = plain(&channel);
    for typed in ["", "12345", "1234567", "12345a", "123456\n", "１２３４５６", "not-a-code"]
    {
        let refusal = verify(&carol, typed).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{typed:?}");
        assert!(typed.is_empty() || !refusal.message().contains(typed), "{}", refusal.message());
    }
    assert_eq!(list(&carol, "").await.unwrap().locked_until_ms, 0);
    verify(&carol, &app.code(&f, 0)).await.unwrap();
}
