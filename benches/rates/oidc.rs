//! Logging in with OIDC tokens: beside verifying the same signatures and a durable commit each, and
//! with many rules beside few.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::issuer_service_client::IssuerServiceClient;
use strongroom::proto::{
    AddIssuerRequest, AddRuleRequest, ClaimRule, ClaimValue, CreateIdentityRequest, IssuerSettings,
    LoginRequest, LoginResponse, add_rule_request, claim_value, issuer_settings,
};
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::insert;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::Vault;

const CONCURRENCY: usize = 16;
const CONNECTIONS: usize = 4;
const FEW: usize = 10;
const MANY: usize = 10_000;
/// Rules of one identity.
const OF_ONE: usize = 100;
/// Tokens of one run: more than it uses.
const POOL: usize = 60_000;

/// Bytes of a session's row, of what was used, and of an entry with what stands beside it.
const ROWS: usize = 1_500;

/// An issuer of this process.
struct Issuer {
    name: &'static str,
    url: String,
    key: EcdsaKeyPair,
    made: AtomicUsize,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        Self { name, url: format!("https://{name}.example.org"), key, made: AtomicUsize::new(0) }
    }

    fn settings(&self) -> IssuerSettings {
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "kid": "1", "x": part(1..33), "y": part(33..65)});
        IssuerSettings {
            audience: "bench".into(),
            algorithms: vec!["ES256".into()],
            keys: Some(issuer_settings::Keys::Jwks(json!({"keys": [jwk]}).to_string())),
            ..Default::default()
        }
    }

    /// Signs tokens, each with an id of its own.
    fn mint(&self, count: usize) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"1","typ":"JWT"}"#);
        let random = SystemRandom::new();
        let token = |_| {
            let id = self.made.fetch_add(1, Ordering::Relaxed);
            let claims = json!({
                "iss": self.url, "aud": "bench", "sub": "job", "jti": format!("{id}"),
                "iat": now, "nbf": now, "exp": now + 600,
                "repository": "acme/pipeline", "ref": "refs/heads/main", "run_id": id,
            });
            let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
            let signature = self.key.sign(&random, signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        (0..count).map(token).collect()
    }

    async fn add(&self, admin: &Channel, rules: usize) {
        let mut client = IssuerServiceClient::new(admin.clone());
        let (name, url) = (self.name.to_owned(), self.url.clone());
        let settings = Some(self.settings());
        let request = AddIssuerRequest { name, url, settings, ..Default::default() };
        client.add_issuer(request).await.unwrap();
        // In groups, of which each is durable at once.
        let rules: Vec<_> = (0..rules).map(|n| self.rule(n)).collect();
        for group in rules.chunks(CONCURRENCY) {
            let adding = group.iter().map(|rule| {
                let (mut client, rule) = (client.clone(), rule.clone());
                async move { client.add_rule(rule).await.unwrap() }
            });
            drop(join_all(adding).await);
        }
    }

    /// The first rules log in who is measured; the others log in others.
    fn rule(&self, n: usize) -> AddRuleRequest {
        let (who, sub) = if n < FEW {
            (format!("job-{n}"), "job".to_owned())
        } else {
            (format!("other-{}", n / OF_ONE), format!("other-{n}"))
        };
        let value = Some(claim_value::Value::Text(sub));
        let claim = ClaimRule { claim: "sub".into(), values: vec![ClaimValue { value }] };
        AddRuleRequest {
            issuer: self.name.to_owned(),
            yields: Some(add_rule_request::Yields::Identity(who)),
            claims: vec![claim],
            ..Default::default()
        }
    }
}

async fn register(admin: &Channel) {
    let mut client = IdentityServiceClient::new(admin.clone());
    let jobs = (0..FEW).map(|n| format!("job-{n}"));
    for name in jobs.chain((0..=MANY / OF_ONE).map(|n| format!("other-{n}"))) {
        let request = CreateIdentityRequest {
            name,
            kind: "pipeline".into(),
            owner: "admin".into(),
            purpose: "measured".into(),
            tier: "low".into(),
            ..Default::default()
        };
        client.create_identity(request).await.unwrap();
    }
}

/// Logs in with one token after the other.
async fn logins(callers: &[Caller], tokens: Vec<String>, span: std::time::Duration) -> Run {
    let (tokens, next) = (Arc::new(tokens), Arc::new(AtomicUsize::new(0)));
    let call = move |caller: Caller, _| {
        let (tokens, next) = (Arc::clone(&tokens), Arc::clone(&next));
        async move {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let identity = format!("job-{}", n % FEW);
            let request =
                LoginRequest { identity, token: tokens[n].clone(), ttl_s: 1, ..Default::default() };
            let path = "/strongroom.v1.IssuerService/Login";
            let session: LoginResponse = caller.call(path, &request, None).await;
            assert!(!session.bearer.is_empty());
        }
    };
    drive(CONCURRENCY, span, callers.to_vec(), call).await
}

/// Verifies the same signatures, and stores as many bytes durably, in groups.
async fn ceiling(issuer: &Issuer, tokens: Vec<String>) -> Run {
    let public = issuer.key.public_key().as_ref();
    let key = Arc::new(ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).unwrap());
    let (tokens, next) = (Arc::new(tokens), Arc::new(AtomicUsize::new(0)));
    let (sender, writer) = insert::start(CONCURRENCY);
    let body = Bytes::from(vec![7_u8; ROWS]);
    let call = move |sender: insert::Asking<_>, _| {
        let (tokens, next) = (Arc::clone(&tokens), Arc::clone(&next));
        let (key, body) = (Arc::clone(&key), body.clone());
        async move {
            let token = &tokens[next.fetch_add(1, Ordering::Relaxed) % tokens.len()];
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            key.verify_sig(signed.as_bytes(), &signature).unwrap();
            insert::call(&sender, body).await;
        }
    };
    let run = drive(CONCURRENCY, RUN / 2, vec![sender], call).await;
    writer.join().unwrap();
    run
}

pub(crate) async fn measure(vault: &Vault) -> Vec<Row> {
    let admin = vault.channels(1).await.remove(0);
    let (address, root) = (vault.node.grpc_addr.to_string(), &vault.node.root_pem);
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        callers.push(Caller::connect(&address, root, None).await);
    }
    register(&admin).await;
    let (few, many) = (Issuer::new("few"), Issuer::new("many"));
    few.add(&admin, FEW).await;
    many.add(&admin, MANY).await;
    logins(&callers, few.mint(POOL / 4), WARM).await;
    logins(&callers, many.mint(POOL / 4), WARM).await;
    let (mut with_few, mut with_many, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        bare.push(ceiling(&few, few.mint(POOL / 4)).await);
        with_few.push(logins(&callers, few.mint(POOL), RUN / 2).await);
        with_many.push(logins(&callers, many.mint(POOL), RUN / 2).await);
    }
    let beside = "the same signatures and durable grouped commits";
    vec![
        row("oidc_login", CONCURRENCY, beside, 0.30, with_few.clone(), bare),
        row("oidc_login_10000_rules", CONCURRENCY, "with 10 rules", 0.90, with_many, with_few),
    ]
}
