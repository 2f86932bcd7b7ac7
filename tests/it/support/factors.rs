//! Humans with an authenticator app.

use std::time::Duration;

use strongroom::crypto::{hotp, otp_step, parse_base32};
use strongroom::proto::factor_service_client::FactorServiceClient;
use strongroom::proto::{
    ConfirmFactorRequest, EnrolFactorRequest, EnrolFactorResponse, InviteFactorRequest,
    ProvenFactor, VerifyFactorRequest,
};
use strongroom::types::{Clock as _, SecretBytes};
use tonic::Status;
use tonic::transport::Channel;

use super::node::Fixture;
use super::tokens::{Bearing, plain};

/// An authenticator app with one secret in it.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// The id of the factor.
    pub(crate) id: String,
    secret: SecretBytes,
}

impl App {
    /// Takes the secret that was shown.
    pub(crate) fn new(shown: &EnrolFactorResponse) -> Self {
        let secret = parse_base32(&shown.secret.to_lowercase()).unwrap();
        assert_eq!(secret.len(), 20, "160 bits");
        Self { id: shown.id.clone(), secret: SecretBytes::new(secret) }
    }

    /// The code that it shows, so many steps from now.
    pub(crate) fn code(&self, f: &Fixture, steps: i64) -> String {
        let counter = u64::try_from(otp_step(f.clock.now()) + steps).unwrap();
        let code = hotp(&self.secret, counter).unwrap();
        String::from_utf8(code.digits().to_vec()).unwrap()
    }

    /// Codes that it does not show anywhere near now.
    pub(crate) fn wrong(&self, f: &Fixture, count: usize) -> Vec<String> {
        let near: Vec<_> = (-3..=3).map(|steps| self.code(f, steps)).collect();
        let codes = (0..1_000_000).map(|code| format!("{code:06}"));
        codes.filter(|code| !near.contains(code)).take(count).collect()
    }
}

/// Invites a human, as the administrator of the fixture; the invitation.
pub(crate) async fn invite(f: &Fixture, name: &str) -> String {
    invite_as(&f.connect(&f.admin).await, name).await
}

/// Invites a human; the invitation.
pub(crate) async fn invite_as(by: &Channel, name: &str) -> String {
    let mut client = FactorServiceClient::new(by.clone());
    let request = InviteFactorRequest { identity: name.to_owned(), ..Default::default() };
    client.invite_factor(request).await.unwrap().into_inner().invitation
}

/// Asks for an authenticator; with an invitation, or with a factor that was proven.
pub(crate) async fn enrol(bearer: &Bearing, invitation: &str) -> Result<App, Status> {
    let request = EnrolFactorRequest { invitation: invitation.to_owned(), kind: String::new() };
    let shown = FactorServiceClient::new(bearer.clone()).enrol_factor(request).await?;
    Ok(App::new(&shown.into_inner()))
}

/// Gives a first code.
pub(crate) async fn confirm(bearer: &Bearing, app: &App, code: &str) -> Result<(), Status> {
    let request = ConfirmFactorRequest { id: app.id.clone(), code: code.to_owned() };
    FactorServiceClient::new(bearer.clone()).confirm_factor(request).await.map(drop)
}

/// Gives a code.
pub(crate) async fn verify(bearer: &Bearing, code: &str) -> Result<ProvenFactor, Status> {
    let request = VerifyFactorRequest { code: code.to_owned() };
    let proven = FactorServiceClient::new(bearer.clone()).verify_factor(request).await?;
    Ok(proven.into_inner().factor.unwrap())
}

/// Lets a human enrol an authenticator with an invitation: whoever confirmed it has proven it, with
/// that login.
pub(crate) async fn enrolled(f: &Fixture, channel: &Channel, invitation: &str) -> App {
    let bearer = plain(channel);
    let app = enrol(&bearer, invitation).await.unwrap();
    confirm(&bearer, &app, &app.code(f, 0)).await.unwrap();
    app
}

/// Lets somebody step up: with an authenticator that they enrol now, or a code of the one that they
/// have. It is proven with this login, and for the next five minutes.
pub(crate) async fn step_up(f: &Fixture, channel: &Channel, name: &str, app: Option<&App>) -> App {
    let Some(app) = app else { return enrolled(f, channel, &invite(f, name).await).await };
    for steps in [0, 1] {
        if verify(&plain(channel), &app.code(f, steps)).await.is_ok() {
            return app.clone();
        }
    }
    // Each code counts once, whichever login gives it.
    f.clock.advance(Duration::from_secs(30));
    verify(&plain(channel), &app.code(f, 1)).await.unwrap();
    app.clone()
}

/// Lets a human enrol an authenticator, and turns the clock until its next code counts.
pub(crate) async fn authenticator(f: &Fixture, channel: &Channel, name: &str) -> App {
    let app = step_up(f, channel, name, None).await;
    f.clock.advance(Duration::from_mins(1));
    app
}
