//! Factors that a role wants: to ask, to approve, to activate.

use std::time::Duration;

use strongroom::proto::RemoveFactorRequest;
use strongroom::proto::factor_service_client::FactorServiceClient;

use super::*;
use crate::support::factors::{authenticator, verify};
use crate::support::logins::login;
use crate::support::tokens::plain;

fn wants(totp_to: &str) -> ElevationRole {
    let totp = |what: &str| if what == totp_to { vec!["totp".to_owned()] } else { vec![] };
    ElevationRole {
        name: format!("to-{totp_to}"),
        factors_to_ask: totp("ask"),
        factors_to_approve: totp("approve"),
        factors_to_activate: totp("activate"),
        ..role()
    }
}

fn by(role: &str) -> RequestElevationRequest {
    RequestElevationRequest { role: format!("to-{role}"), ..request() }
}

fn steps_up<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let refusal = answer.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("totp"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_approves_and_activates_proves_the_factor_that_the_role_wants() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        for what in ["ask", "approve", "activate"] {
            s.put(wants(what)).await.unwrap();
        }
        steps_up(ask(&s.carol, by("ask")).await);
        let approved =
            approve(&s.dave, &ask(&s.carol, by("activate")).await.unwrap()).await.unwrap();
        let asked = ask(&s.carol, by("approve")).await.unwrap();
        s.f.clock.advance(Duration::from_secs(301));
        steps_up(approve(&s.dave, &asked).await);
        steps_up(activate(&s.carol, &approved).await);
        assert_eq!(show(&s.carol, &approved.id).await.unwrap().state, "scheduled");
        let carols = authenticator(&s.f, &s.carol, "carol").await;
        ask(&s.carol, by("ask")).await.unwrap();
        assert_eq!(activate(&s.carol, &approved).await.unwrap().state, "active");
        s.step_up().await;
        let done = approve(&s.dave, &asked).await.unwrap();
        assert_eq!((done.state.as_str(), &done.votes[0].factor_id), ("scheduled", &s.apps[0].id));
        // A proof does not stay fresh for ever.
        s.f.clock.advance(Duration::from_secs(301));
        steps_up(ask(&s.carol, by("ask")).await);
        verify(&plain(&s.carol), &carols.code(&s.f, 0)).await.unwrap();
        ask(&s.carol, by("ask")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_alone_approves_nothing_whatever_the_role_says_of_factors() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let asked = s.asked().await;
        // As an administrator signs one for a key of their own.
        let signed = s.f.connect(&login(&s.f, "dave").await).await;
        steps_up(approve(&signed, &asked).await);
        s.f.clock.advance(Duration::from_secs(301));
        steps_up(approve(&s.dave, &asked).await);
        assert!(show(&s.carol, &asked.id).await.unwrap().votes.is_empty());
        step_up(&s.f, &signed, "dave", Some(&s.apps[0])).await;
        let done = approve(&signed, &asked).await.unwrap();
        assert_eq!((done.state.as_str(), &done.votes[0].factor_id), ("scheduled", &s.apps[0].id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_holds_while_the_factor_that_it_was_given_with_is_there() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let approved = s.approved().await;
        let request = RemoveFactorRequest { id: s.apps[0].id.clone() };
        FactorServiceClient::new(s.dave.clone()).remove_factor(request).await.unwrap();
        let failed = activate(&s.carol, &approved).await.unwrap();
        assert_eq!(failed.state, "activation-failed");
        assert!(failed.why.contains("factor"), "{}", failed.why);
    }
}
