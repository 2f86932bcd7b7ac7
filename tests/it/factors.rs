//! Second factors through the real socket: enrolled, proven once and for one credential, over.

mod invitations;
mod lockout;
mod program;
mod proofs;
mod recovery_codes;

use std::time::Duration;

use prost::Message as _;
use strongroom::proto::factor_service_client::FactorServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    ErrorInfo, ListFactorsRequest, ListFactorsResponse, MakeRecoveryCodesRequest,
    RemoveFactorRequest, ResetFactorsRequest, RpcStatus, WhoAmIRequest, WhoAmIResponse,
};
use tonic::{Code, Status};

use crate::support::factors::{App, authenticator, confirm, enrol, invite, verify};
use crate::support::logins::{human, login, machine, register};
use crate::support::node::{BACKENDS, Backend, Fixture};
use crate::support::tokens::{Bearing, bearing, plain};

async fn whoami(bearer: &Bearing) -> WhoAmIResponse {
    let mut client = IdentityServiceClient::new(bearer.clone());
    client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner()
}

async fn list(bearer: &Bearing, identity: &str) -> Result<ListFactorsResponse, Status> {
    let request = ListFactorsRequest { identity: identity.to_owned() };
    Ok(FactorServiceClient::new(bearer.clone()).list_factors(request).await?.into_inner())
}

async fn codes(bearer: &Bearing) -> Result<Vec<String>, Status> {
    let mut client = FactorServiceClient::new(bearer.clone());
    let made = client.make_recovery_codes(MakeRecoveryCodesRequest {}).await?;
    Ok(made.into_inner().codes)
}

async fn remove(bearer: &Bearing, id: &str) -> Result<(), Status> {
    let request = RemoveFactorRequest { id: id.to_owned() };
    FactorServiceClient::new(bearer.clone()).remove_factor(request).await.map(drop)
}

async fn reset(bearer: &Bearing, identity: &str) -> Result<i64, Status> {
    let (identity, reason) = (identity.to_owned(), "lost".to_owned());
    let mut client = FactorServiceClient::new(bearer.clone());
    let answer = client.reset_factors(ResetFactorsRequest { identity, reason }).await?;
    Ok(answer.into_inner().removed)
}

/// What an error says to machines.
fn info(status: &Status) -> ErrorInfo {
    let details = RpcStatus::decode(status.details()).unwrap();
    ErrorInfo::decode(details.details[0].value.as_slice()).unwrap()
}

/// That a factor is wanted, which, and how fresh.
fn wants(status: &Status) -> Option<(String, String)> {
    let mut info = info(status);
    let wanted = status.code() == Code::FailedPrecondition && info.reason == "STEP_UP_REQUIRED";
    wanted.then(|| {
        let mut take = |key: &str| info.metadata.remove(key).unwrap();
        (take(ErrorInfo::FACTORS), take(ErrorInfo::WITHIN_S))
    })
}

fn steps(f: &Fixture, count: u64) {
    f.clock.advance(Duration::from_secs(30 * count));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_enrols_by_invitation_and_a_code_works_once_with_spaces_or_without() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let carol = plain(&human(&f, "carol").await);
        let before = whoami(&carol).await;
        assert!(before.factors.is_empty() && before.auth_time_ms > 0);
        let app = enrol(&carol, &invite(&f, "carol").await).await.unwrap();
        let pending = list(&carol, "").await.unwrap();
        assert_eq!((pending.factors.len(), pending.factors[0].state.as_str()), (1, "pending"));
        // Until its first code it proves nothing.
        let early = verify(&carol, &app.code(&f, 0)).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition, "{early:?}");
        let code = app.code(&f, 0);
        confirm(&carol, &app, &format!("{} {}", &code[..3], &code[3..])).await.unwrap();
        let me = whoami(&carol).await;
        assert_eq!((me.factors.len(), me.factors[0].kind.as_str()), (1, "totp"));
        assert_eq!(me.factors[0].id, app.id);
        assert_eq!(me.auth_time_ms, me.factors[0].proven_at_ms);
        // The code that confirmed it is used, however it is typed.
        for typed in [code.clone(), format!(" {} {} ", &code[..2], &code[2..])] {
            assert_eq!(verify(&carol, &typed).await.unwrap_err().code(), Code::PermissionDenied);
        }
        steps(&f, 2);
        let code = app.code(&f, 0);
        let proven = verify(&carol, &format!("{} {}", &code[..3], &code[3..])).await.unwrap();
        assert_eq!((proven.id, proven.kind.as_str()), (app.id.clone(), "totp"));
        let again = whoami(&carol).await;
        assert_eq!(again.factors.len(), 1, "one proof of one factor");
        assert_eq!(again.auth_time_ms, proven.proven_at_ms);
        assert!(again.auth_time_ms >= me.auth_time_ms + 60_000);
        assert_eq!(verify(&carol, &code).await.unwrap_err().code(), Code::PermissionDenied);
        let shown = list(&plain(&f.connect(&f.admin).await), "carol").await.unwrap();
        let factor = &shown.factors[0];
        assert_eq!((factor.state.as_str(), factor.vouched_by.as_str()), ("active", "admin"));
        assert_eq!((shown.locked_until_ms, shown.invited_until_ms), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_one_step_early_and_one_late_and_none_before_one_that_was_used() {
    let f = Fixture::new().await;
    let channel = human(&f, "carol").await;
    let (app, carol) = (authenticator(&f, &channel, "carol").await, plain(&channel));
    for far in [-3, -2, 2, 3] {
        let refusal = verify(&carol, &app.code(&f, far)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{far}");
    }
    verify(&carol, &app.code(&f, 1)).await.unwrap();
    for used in [0, 1] {
        let refusal = verify(&carol, &app.code(&f, used)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{used} is not after the last");
    }
    steps(&f, 3);
    verify(&carol, &app.code(&f, -1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_factors_is_told_which_one_is_wanted_and_how_fresh() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let channel = human(&f, "carol").await;
        let carol = plain(&channel);
        // A stolen login without a factor and without an invitation gets nowhere.
        let bare = enrol(&carol, "").await.unwrap_err();
        assert_eq!(
            (bare.code(), info(&bare).reason.as_str()),
            (Code::FailedPrecondition, "PRECONDITION")
        );
        assert!(bare.message().contains("invitation"), "{}", bare.message());
        let app = authenticator(&f, &channel, "carol").await;
        let stolen = plain(&f.connect(&login(&f, "carol").await).await);
        let any = Some(("totp,recovery".to_owned(), "300".to_owned()));
        let totp = Some(("totp".to_owned(), "300".to_owned()));
        let demands = async |bearer: &Bearing| {
            [
                enrol(bearer, "").await.map(drop).err().as_ref().and_then(wants),
                remove(bearer, &app.id).await.err().as_ref().and_then(wants),
                codes(bearer).await.map(drop).err().as_ref().and_then(wants),
            ]
        };
        assert_eq!(demands(&stolen).await, [any.clone(), any.clone(), totp.clone()]);
        verify(&carol, &app.code(&f, 0)).await.unwrap();
        codes(&carol).await.unwrap();
        // It is not so for the other credential, nor for this one for long.
        assert_eq!(demands(&stolen).await, [any.clone(), any.clone(), totp.clone()]);
        f.clock.advance(Duration::from_secs(301));
        assert_eq!(demands(&carol).await, [any.clone(), any.clone(), totp.clone()]);
        verify(&carol, &app.code(&f, 0)).await.unwrap();
        let second = enrol(&carol, "").await.unwrap();
        confirm(&carol, &second, &second.code(&f, 0)).await.unwrap();
        let shown = list(&carol, "").await.unwrap().factors;
        let second = shown.iter().find(|one| one.id == second.id).unwrap();
        assert_eq!(second.vouched_by, "admin", "it goes back to the same invitation");
        remove(&carol, &app.id).await.unwrap();
        assert_eq!(remove(&carol, &app.id).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_with_a_factor_proves_it_before_changing_anothers() {
    let f = Fixture::new().await;
    let channel = human(&f, "carol").await;
    authenticator(&f, &channel, "carol").await;
    let admin = f.connect(&f.admin).await;
    let app = authenticator(&f, &admin, "admin").await;
    f.clock.advance(Duration::from_secs(301));
    let bearer = plain(&admin);
    let wanted = reset(&bearer, "carol").await.unwrap_err();
    assert!(wants(&wanted).is_some(), "{wanted:?}");
    let mut client = FactorServiceClient::new(admin);
    let invite =
        strongroom::proto::InviteFactorRequest { identity: "carol".into(), ..Default::default() };
    assert!(wants(&client.invite_factor(invite.clone()).await.unwrap_err()).is_some());
    verify(&bearer, &app.code(&f, 0)).await.unwrap();
    assert_eq!(reset(&bearer, "carol").await.unwrap(), 1);
    client.invite_factor(invite).await.unwrap();
    assert!(list(&plain(&channel), "").await.unwrap().factors.is_empty());
}
