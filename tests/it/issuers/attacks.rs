//! Tokens that have beaten others: each is refused with the one sentence, and leaves nothing.

use std::net::ToSocketAddrs as _;

use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    ListTokensRequest, RemoveIssuerRequest, TestTokenRequest, UpdateIssuerRequest, issuer_settings,
};

use super::*;

const HEADER: &str = r#"{"alg":"RS256","kid":"KID","typ":"JWT"}"#;

/// Tokens of the machine.
async fn tokens(scene: &Scene) -> usize {
    let mut client = TokenServiceClient::new(scene.f.connect(&scene.f.admin).await);
    let request = ListTokensRequest { identity: "etl".into(), ..Default::default() };
    client.list_tokens(request).await.unwrap().into_inner().tokens.len()
}

/// What each attack presents: its name and the token.
fn attacks(scene: &Scene) -> Vec<(String, String)> {
    let issuer = &scene.issuer;
    let kid = issuer.kid("RSA");
    let good = issuer.claims(&scene.f, "a", github());
    let sign = |header: &str, payload: &str| {
        issuer.sign("rsa", "RS256", &header.replace("KID", &kid), payload)
    };
    let mut attacks = Vec::new();
    for missing in ["iss", "aud", "exp", "nbf", "sub", "repository_id", "event_name"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(missing);
        attacks.push((format!("no {missing}"), sign(HEADER, &claims.to_string())));
    }
    let now = scene.f.node().vault.now().unwrap().seconds();
    for (claim, value) in [
        ("iss", json!(issuer.url() + ".evil.example")),
        ("iss", json!(issuer.url() + "/")),
        ("aud", json!("another.vault")),
        ("aud", json!(["another.vault"])),
        ("exp", json!(now - 61)),
        ("exp", json!((now + 300).to_string())),
        ("exp", json!(now + 90_000)),
        ("nbf", json!(now + 120)),
        ("iat", json!(now + 120)),
        // Good for more than a day, of which little is left.
        ("iat", json!(now - 90_000)),
        ("sub", json!(7)),
        ("sub", json!("")),
        ("repository_id", json!(70001)),
        ("repository_id", json!("70002")),
        ("repository_id", json!(["70001"])),
        ("event_name", json!("pull_request_target")),
        ("ref_protected", json!("false")),
        ("ref_protected", json!(true)),
        ("ref", json!("refs/heads/main ")),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        attacks.push((format!("{claim} {value}"), sign(HEADER, &claims.to_string())));
    }
    let good = good.to_string();
    let twice = good.replacen('{', r#"{"repository_id":"70002","#, 1);
    attacks.push(("a claim twice".into(), sign(HEADER, &twice)));
    for (said, header) in [
        ("crit", r#"{"alg":"RS256","kid":"KID","crit":["exp"]}"#),
        ("jku", r#"{"alg":"RS256","kid":"KID","jku":"https://evil.example/keys"}"#),
        ("jwk", r#"{"alg":"RS256","kid":"KID","jwk":{"kty":"oct","k":"AA"}}"#),
        ("x5u", r#"{"alg":"RS256","kid":"KID","x5u":"https://evil.example/c"}"#),
        ("another typ", r#"{"alg":"RS256","kid":"KID","typ":"at+jwt"}"#),
        ("alg twice", r#"{"alg":"RS256","alg":"RS256","kid":"KID"}"#),
        ("a kid with a path", r#"{"alg":"RS256","kid":"../../etc/passwd"}"#),
        ("a kid with SQL", r#"{"alg":"RS256","kid":"' OR 1=1 --"}"#),
        ("another algorithm", r#"{"alg":"RS512","kid":"KID"}"#),
        ("another key's algorithm", r#"{"alg":"ES256","kid":"KID"}"#),
    ] {
        attacks.push((said.into(), sign(header, &good)));
    }
    for (said, key, alg) in [
        ("another's key of the same id", "stranger", "RS256"),
        ("HMAC by the public key", "public-as-hmac", "HS256"),
    ] {
        let header = HEADER.replace("RS256", alg).replace("KID", &kid);
        attacks.push((said.into(), issuer.sign(key, alg, &header, &good)));
    }
    let none = sign(r#"{"alg":"none"}"#, &good);
    attacks.extend(misshapen(&sign(HEADER, &good), &none));
    attacks
}

/// What is no signed token, made of one, and of one that names no algorithm.
fn misshapen(whole: &str, none: &str) -> Vec<(String, String)> {
    let (signed, signature) = whole.rsplit_once('.').unwrap();
    let (protected, payload) = signed.split_once('.').unwrap();
    // The other serialization (RFC 7515, section 7.2), whose fields beside the signed ones are not.
    let parts = json!({"protected": protected, "payload": payload, "signature": signature});
    let beside = |name: &str, value: Value| {
        let mut parts = parts.clone();
        parts[name] = value;
        parts.to_string()
    };
    [
        ("a document of it", parts.to_string()),
        ("an unsigned claim beside", beside("claims", json!({"repository_id": "70001"}))),
        ("an unsigned header beside", beside("header", json!({"kid": "mine", "alg": "none"}))),
        ("an unsigned part between", format!("{protected}.e30.{payload}.{signature}")),
        ("a payload twice", format!("{protected}.{payload}{payload}.{signature}")),
        ("alg none", none.rsplit_once('.').unwrap().0.to_owned() + "."),
        ("no signature", format!("{signed}.")),
        ("another signature", format!("{signed}.{}", signature.to_lowercase())),
        ("padding", format!("{whole}=")),
        ("a part more", format!("{whole}.AAAA")),
        ("nothing", String::new()),
        ("a bearer token", format!("srt_{}", "0".repeat(72))),
    ]
    .map(|(said, token)| (said.to_owned(), token))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_or_foreign_token_logs_anybody_in_or_says_why() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, "github", &GITHUB).await;
        let refused = "the token is not accepted for this identity";
        for (said, token) in attacks(&scene) {
            let status = scene.login(&token).await.expect_err(&said);
            assert_eq!(status.code(), Code::Unauthenticated, "{said}: {status}");
            assert!(status.message().starts_with(refused), "{said}: {status}");
        }
        // Whoever has a good token learns nothing of whom it is not for.
        let good = scene.token("a", github());
        register(&scene.f, "other", "pipeline", "admin").await;
        for name in ["other", "nobody", "admin"] {
            let status = login(&scene.stranger, name, &good).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{name}");
            assert!(status.message().starts_with(refused), "{name}: {status}");
        }
        assert_eq!(tokens(&scene).await, 0);
        scene.login(&good).await.unwrap();
        assert_eq!(tokens(&scene).await, 1, "what was refused used nothing up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_credential_is_refused_and_falls_back_to_nothing() {
    let scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    let token = scene.token("a", github());
    // Also on a connection that could prove an administrator.
    for client in [&scene.stranger, &scene.admin] {
        for nothing in ["", " ", ".", "..", "\0"] {
            let status = login(client, "etl", nothing).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{nothing:?}: {status}");
        }
        let status = login(client, "", &token).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let admin = scene.f.connect(&scene.f.admin).await;
    for nothing in ["", " ", "srt_", "srs_"] {
        let mut client = IdentityServiceClient::new(bearing(&admin, nothing));
        let status = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{nothing:?}: {status}");
    }
}

/// A name other than `localhost` that leads to 127.0.0.1: of the hosts file, or the machine's own.
fn name_of_this_machine() -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let names = hosts.lines().filter(|line| line.starts_with("127."));
    let names = names.flat_map(|line| line.split_whitespace().skip(1)).chain([own.trim()]);
    let leads_here = |name: &&str| {
        let addresses = (*name, 443).to_socket_addrs();
        *name != "localhost" && addresses.is_ok_and(|mut it| it.all(|one| one.ip().is_loopback()))
    };
    let mut names = names.filter(leads_here);
    names.next().expect("give this machine a name in /etc/hosts beside localhost").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_this_machine_is_asked_only_where_that_is_meant() {
    let mut scene = Scene::bare(Backend::Sqlite, "github").await;
    // What a rebound name resolves to is what counts, and not what it looks like.
    let name = name_of_this_machine();
    let url = format!("https://{name}:{}", scene.issuer.port);
    for (private, why) in [(false, "leads to no address"), (true, "is not who it should be")] {
        let known = settings(&scene.issuer, "github");
        let settings = Some(IssuerSettings { private_network: private, ..known });
        let (name, audience) = (format!("private-{private}"), format!("{private}.vault"));
        let settings = settings.map(|it| IssuerSettings { audience: audience.clone(), ..it });
        let added = name.clone();
        let request = AddIssuerRequest { name, url: url.clone(), settings, ..Default::default() };
        scene.admin.add_issuer(request).await.unwrap();
        let mut claims = github();
        (claims["iss"], claims["aud"]) = (json!(url), json!(audience));
        let token = scene.token(why, claims);
        assert_eq!(scene.login(&token).await.unwrap_err().code(), Code::Unauthenticated);
        let request = TestTokenRequest { token, identity: String::new() };
        let tested = scene.admin.test_token(request).await.unwrap().into_inner();
        assert!(tested.problem.contains(why), "{}", tested.problem);
        let request = RemoveIssuerRequest { name: added, reason: String::new() };
        scene.admin.remove_issuer(request).await.unwrap();
    }
    assert_eq!(scene.issuer.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_taken_from_where_they_should_come_from_alone() {
    let mut scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    let (url, keys) = (scene.issuer.url(), scene.issuer.published());
    let elsewhere = format!("https://localhost:{}/keys", scene.issuer.port);
    let well_known = "/.well-known/openid-configuration";
    let says = |issuer: &str, keys: &str| json!({"issuer": issuer, "jwks_uri": keys}).to_string();
    scene.issuer.serve("/moved", 200, &keys, &json!({}));
    for (said, path, status, body, headers) in [
        ("a redirect", well_known, 302, String::new(), json!({"Location": format!("{url}/moved")})),
        ("another issuer", well_known, 200, says("https://evil.example", &elsewhere), json!({})),
        ("another origin", well_known, 200, says(&url, &elsewhere), json!({})),
        ("plain http", well_known, 200, says(&url, "http://127.0.0.1/keys"), json!({})),
        ("no JSON", well_known, 200, "<html>".to_owned(), json!({})),
        ("too much", well_known, 200, "x".repeat(200_000), json!({})),
        ("a fault", well_known, 500, String::new(), json!({})),
    ] {
        scene.issuer.serve(path, status, &body, &headers);
        scene.f.clock.advance(std::time::Duration::from_secs(10));
        let token = scene.token(said, github());
        let status = scene.login(&token).await.expect_err(said);
        assert_eq!(status.code(), Code::Unauthenticated, "{said}");
    }
    // Where its certificate is nobody's whom the vault knows, nothing is asked.
    let mut known = settings(&scene.issuer, "github");
    known.keys = Some(issuer_settings::Keys::JwksUrl(format!("{url}/keys")));
    for (ca_pem, fits) in [(String::new(), false), (scene.issuer.ca.clone(), true)] {
        let settings = Some(IssuerSettings { ca_pem, ..known.clone() });
        let name = "ci".to_owned();
        let request = UpdateIssuerRequest { name, settings, ..Default::default() };
        scene.admin.update_issuer(request).await.unwrap();
        let token = scene.token(&format!("ca {fits}"), github());
        assert_eq!(scene.login(&token).await.is_ok(), fits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_stand_is_not_logged_in() {
    use strongroom::proto::SuspendIdentityRequest;
    for backend in BACKENDS {
        let scene = Scene::with(backend, "github", &GITHUB).await;
        let session = scene.login(&scene.token("1", github())).await.unwrap();
        let mut identities = IdentityServiceClient::new(scene.f.connect(&scene.f.admin).await);
        let request = SuspendIdentityRequest { name: "etl".into(), ..Default::default() };
        identities.suspend_identity(request).await.unwrap();
        assert!(scene.whoami(&session.bearer).await.is_err(), "its session is dead");
        let status = scene.login(&scene.token("2", github())).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_canonical_is_nobodys_and_uses_nothing_up() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, "github", &GITHUB).await;
        let token = scene.token("a", github());
        for name in [
            "Etl",
            "ETL",
            "etl ",
            " etl",
            "etl\0",
            "etl\n",
            "e%74l",
            "./etl",
            "x/../etl",
            "etl/",
            "//etl",
            "*",
            "\u{ff45}tl",
        ] {
            let status = login(&scene.stranger, name, &token).await.expect_err(name);
            assert_eq!(status.code(), Code::InvalidArgument, "{name:?}: {status}");
        }
        assert_eq!(tokens(&scene).await, 0);
        scene.login(&token).await.unwrap();
    }
}
