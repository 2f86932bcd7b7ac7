//! Logging in by OIDC tokens at the real socket, with an issuer that is not ours.

mod attacks;
mod ends;
mod fence;
mod limits;
mod pasted;
mod people;
mod program;
mod registry;
mod replays;
mod review;
mod run;
mod sign_in;
mod templates;

use futures_util::future::join_all;
use serde_json::{Value, json};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::issuer_service_client::IssuerServiceClient;
use strongroom::proto::{
    AddIssuerRequest, AddRuleRequest, ClaimRule, ClaimValue, IssuerRule, IssuerSettings,
    LoginRequest, LoginResponse, UpdateIssuerRequest, WhoAmIRequest, add_rule_request, claim_value,
    issuer_settings,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::register;
use crate::support::node::{BACKENDS, Backend, Fixture};
use crate::support::oidc::{AUDIENCE, Issuer, github, gitlab, kubernetes};
use crate::support::target::until;
use crate::support::tokens::bearing;

type Client = IssuerServiceClient<Channel>;

/// A vault that believes an issuer, and a machine that a rule logs in.
struct Scene {
    f: Fixture,
    issuer: Issuer,
    admin: Client,
    stranger: Client,
}

/// What is known of an issuer on loopback.
pub(crate) fn settings(issuer: &Issuer, preset: &str) -> IssuerSettings {
    IssuerSettings {
        preset: preset.to_owned(),
        audience: AUDIENCE.to_owned(),
        algorithms: vec!["RS256".into(), "ES256".into()],
        ca_pem: issuer.ca.clone(),
        private_network: true,
        ..Default::default()
    }
}

/// Binds claims to texts.
pub(crate) fn texts(claims: &[(&str, &str)]) -> Vec<ClaimRule> {
    let value = |text: &str| ClaimValue { value: Some(claim_value::Value::Text(text.to_owned())) };
    let claim = |(claim, text): &(&str, &str)| ClaimRule {
        claim: (*claim).to_owned(),
        values: vec![value(text)],
    };
    claims.iter().map(claim).collect()
}

pub(crate) const GITHUB: [(&str, &str); 4] = [
    ("repository_id", "70001"),
    ("repository_owner_id", "501"),
    ("event_name", "push"),
    ("ref", "refs/heads/main"),
];

fn rule(claims: &[(&str, &str)]) -> AddRuleRequest {
    AddRuleRequest {
        issuer: "ci".to_owned(),
        yields: Some(add_rule_request::Yields::Identity("etl".to_owned())),
        claims: texts(claims),
        ..Default::default()
    }
}

impl Scene {
    /// With an issuer `ci` of a preset, and no rule.
    async fn bare(backend: Backend, preset: &str) -> Self {
        let (f, issuer) = (Fixture::on(backend).await, Issuer::new());
        let mut admin = Client::new(f.connect(&f.admin).await);
        let request = AddIssuerRequest {
            name: "ci".to_owned(),
            url: issuer.url(),
            settings: Some(settings(&issuer, preset)),
            ..Default::default()
        };
        admin.add_issuer(request).await.unwrap();
        register(&f, "etl", "pipeline", "admin").await;
        let stranger = Client::new(f.connect_as_nobody().await);
        Self { f, issuer, admin, stranger }
    }

    async fn with(backend: Backend, preset: &str, claims: &[(&str, &str)]) -> Self {
        let mut scene = Self::bare(backend, preset).await;
        scene.rule(rule(claims)).await.unwrap();
        scene
    }

    async fn rule(&mut self, request: AddRuleRequest) -> Result<IssuerRule, Status> {
        Ok(self.admin.add_rule(request).await?.into_inner().rule.unwrap())
    }

    fn token(&self, jti: &str, more: Value) -> String {
        self.issuer.mint(&self.issuer.claims(&self.f, jti, more))
    }

    async fn login(&self, token: &str) -> Result<LoginResponse, Status> {
        login(&self.stranger, "etl", token).await
    }

    async fn whoami(&self, bearer: &str) -> Result<String, Status> {
        let channel = self.f.connect_as_nobody().await;
        let mut client = IdentityServiceClient::new(bearing(&channel, bearer));
        Ok(client.who_am_i(WhoAmIRequest {}).await?.into_inner().identity)
    }
}

async fn login(client: &Client, identity: &str, token: &str) -> Result<LoginResponse, Status> {
    let (identity, token) = (identity.to_owned(), token.to_owned());
    let request = LoginRequest { identity, token, ..Default::default() };
    Ok(client.clone().login(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_logs_in_with_the_token_that_it_has_and_is_who_the_rule_says() {
    for backend in BACKENDS {
        let cluster = [
            ("kubernetes.io/namespace", "data"),
            ("kubernetes.io/serviceaccount/uid", "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"),
        ];
        for (preset, claims, token) in [
            ("github", &GITHUB[..], github()),
            ("gitlab", &[("project_id", "22"), ("namespace_id", "72")], gitlab()),
            ("kubernetes", &cluster, kubernetes("pod-1")),
            ("generic", &[("sub", "somebody")], json!({})),
        ] {
            let scene = Scene::with(backend, preset, claims).await;
            let session = scene.login(&scene.token("1", token)).await.unwrap();
            assert_eq!(scene.whoami(&session.bearer).await.unwrap(), "etl", "{preset}");
            let lives = session.expires_at_ms - scene.f.node().vault.now().unwrap().0;
            assert!((890_000..=900_000).contains(&lives), "{preset}: {lives}");
            assert!(!session.single_use && !session.registered);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_a_restart_and_strangers_do_not_make_the_vault_fetch() {
    let scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    scene.login(&scene.token("1", github())).await.unwrap();
    assert_eq!(scene.issuer.asked(), 1);
    scene.login(&scene.token("2", github())).await.unwrap();
    assert_eq!(scene.issuer.asked(), 1, "what is known is not asked for again");
    let old = json!({"alg": "RS256", "kid": scene.issuer.kid("RSA"), "typ": "JWT"}).to_string();
    scene.issuer.rotate();
    scene.f.clock.advance(std::time::Duration::from_secs(10));
    scene.login(&scene.token("3", github())).await.unwrap();
    assert_eq!(scene.issuer.asked(), 2);
    // What it published before is believed no more.
    let claims = scene.issuer.claims(&scene.f, "4", github()).to_string();
    let token = scene.issuer.sign("before", "RS256", &old, &claims);
    assert_eq!(scene.login(&token).await.unwrap_err().code(), Code::Unauthenticated);
    let header = json!({"alg": "RS256", "kid": "made up", "typ": "JWT"}).to_string();
    for n in 0..20 {
        let claims = scene.issuer.claims(&scene.f, &format!("x{n}"), github()).to_string();
        let token = scene.issuer.sign("rsa", "RS256", &header, &claims);
        assert_eq!(scene.login(&token).await.unwrap_err().code(), Code::Unauthenticated);
    }
    assert_eq!(scene.issuer.asked(), 2, "no more often than its pace");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_from_a_file_are_all_that_there_are_and_nothing_is_fetched() {
    let scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    let keys = Some(issuer_settings::Keys::Jwks(scene.issuer.published()));
    let settings = IssuerSettings { keys, ..settings(&scene.issuer, "github") };
    let (name, settings) = ("ci".to_owned(), Some(settings));
    let request = UpdateIssuerRequest { name, settings, ..Default::default() };
    scene.admin.clone().update_issuer(request).await.unwrap();
    scene.login(&scene.token("1", github())).await.unwrap();
    let header = json!({"alg": "ES256", "kid": scene.issuer.kid("EC")}).to_string();
    let claims = scene.issuer.claims(&scene.f, "2", github()).to_string();
    scene.login(&scene.issuer.sign("ec", "ES256", &header, &claims)).await.unwrap();
    scene.issuer.rotate();
    scene.f.clock.advance(std::time::Duration::from_mins(61));
    let status = scene.login(&scene.token("3", github())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(scene.issuer.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_takes_its_time_holds_nobody_up_whose_key_is_known() {
    let scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    scene.login(&scene.token("1", github())).await.unwrap();
    let says = json!({"issuer": scene.issuer.url(), "jwks_uri": scene.issuer.url() + "/keys"});
    scene.issuer.serve_slowly("/.well-known/openid-configuration", &says.to_string(), 3.0);
    // It is time to look at what it publishes.
    scene.f.clock.advance(std::time::Duration::from_mins(11));
    let tokens: Vec<_> = (2..10).map(|n| scene.token(&n.to_string(), github())).collect();
    let began = std::time::Instant::now();
    for done in join_all(tokens.iter().map(|token| scene.login(token))).await {
        done.unwrap();
    }
    assert!(began.elapsed() < std::time::Duration::from_millis(2_800), "{:?}", began.elapsed());
    assert_eq!(scene.issuer.asked(), 1, "it has not answered yet");
    // Nobody waits for it, and what it answers counts.
    until("the keys are looked at", async || scene.issuer.asked() == 2).await;
}
