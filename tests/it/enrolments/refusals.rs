//! What joins nobody: each is refused with one sentence, uses nothing up and leaves nothing.

use strongroom::proto::{GetHoldingsRequest, ResumeIdentityRequest, SuspendIdentityRequest};

use super::*;
use crate::support::logins::human;
use crate::support::restored::restored;
use crate::support::tokens::{bearing, token};
use crate::x509::{OpenSsl, P256};

const REFUSED: &str = "the join token is not accepted";

/// Ends a token's text with its checksum, computed here once more.
fn checked(body: &str) -> String {
    let mut crc = u32::MAX;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let (mut number, mut digits) = (!crc, Vec::new());
    for _ in 0..6 {
        let digit = u8::try_from(number % 62).unwrap();
        digits.push(match digit {
            0..=9 => b'0' + digit,
            10..=35 => b'A' + digit - 10,
            _ => b'a' + digit - 36,
        });
        number /= 62;
    }
    digits.reverse();
    format!("{body}{}", String::from_utf8(digits).unwrap())
}

/// The same bits under another prefix.
fn retyped(token: &str, prefix: &str) -> String {
    checked(&format!("{prefix}{}", &token[4..token.len() - 6]))
}

/// Another secret of the same token.
fn guessed(token: &str) -> String {
    let (body, last) = token[..token.len() - 6].split_at(token.len() - 7);
    checked(&format!("{body}{}", if last == "0" { "1" } else { "0" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_type_or_a_guessed_one_joins_nobody_and_a_join_token_does_nothing_else()
{
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let join_token = scene.token().await;
        let admin = scene.f.connect(&scene.f.admin).await;
        let access = token(&admin, 0).await.bearer;
        assert_eq!(checked(&access[..access.len() - 6]), access);
        let (_, csr_pem) = csr();
        for (what, text) in [
            ("nothing", String::new()),
            ("an access token", access.clone()),
            ("an access token's bits", retyped(&access, "srj_")),
            ("a guess", guessed(&join_token)),
            ("a bad checksum", format!("{}0", &join_token[..join_token.len() - 1])),
            ("a byte more", format!("{join_token}0")),
            ("a space", format!(" {join_token}")),
            ("many bytes", "0".repeat(65_536)),
        ] {
            if text == join_token {
                continue;
            }
            let refusal = scene.join(&text, &csr_pem).await.expect_err(what);
            assert_eq!(refusal.code(), Code::Unauthenticated, "{what}: {refusal}");
        }
        for bearer in [join_token.clone(), retyped(&join_token, "srt_")] {
            let mut client = IdentityServiceClient::new(bearing(&admin, &bearer));
            let refusal = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();
            assert_eq!(refusal.code(), Code::Unauthenticated, "it is no bearer");
        }
        assert_eq!(scene.states().await, ["pending"]);
        assert!(scene.outcomes("enrolments.join").await.is_empty(), "strangers are counted alone");
        scene.join(&join_token, &csr_pem).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_joins_from_its_networks_and_in_its_time_alone() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let from = async |network: &str, ttl_s| {
            let (identity, networks) = ("etl".to_owned(), vec![network.to_owned()]);
            let request = CreateEnrolmentRequest { identity, ttl_s, networks };
            order(&scene.admin, request).await.unwrap().0
        };
        let elsewhere = from("10.0.0.0/8", 0).await;
        let refusal = scene.join(&elsewhere, &csr().1).await.unwrap_err();
        assert!(refusal.message().starts_with(REFUSED), "{refusal}");
        let (here, later) = (from("127.0.0.0/8", 60).await, from("127.0.0.1/32", 60).await);
        scene.join(&here, &csr().1).await.unwrap();
        scene.advance(60);
        let refusal = scene.join(&later, &csr().1).await.unwrap_err();
        assert!(refusal.message().starts_with(REFUSED), "{refusal}");
        assert_eq!(scene.states().await, ["expired", "joined", "pending"]);
        assert_eq!(scene.outcomes("enrolments.join").await, ["ok"]);
    }
}

/// Join tokens of the machine that are in force, and that are dead before their time.
async fn held(scene: &Scene) -> (i64, i64) {
    let mut client = IdentityServiceClient::new(scene.f.connect(&scene.f.admin).await);
    let request = GetHoldingsRequest { name: "etl".to_owned() };
    let held = client.get_holdings(request).await.unwrap().into_inner();
    let found = held.credentials.into_iter().find(|of| of.kind == "enrolment").unwrap();
    (found.in_force, found.contained)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contains_the_identity_or_restores_the_vault_makes_tokens_void() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let refused = async |token: &str, why: &str| {
            let refusal = scene.join(token, &csr().1).await.expect_err(why);
            assert_eq!(refusal.code(), Code::Unauthenticated, "{why}");
            assert!(refusal.message().starts_with(REFUSED), "{why}: {refusal}");
        };
        let mut identities = IdentityServiceClient::new(scene.f.connect(&scene.f.admin).await);
        let (before, login) = (scene.token().await, scene.joined().await);
        let (name, reason) = ("etl".to_owned(), String::new());
        assert_eq!(held(&scene).await, (1, 0), "what a suspension would end");
        let suspend = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        identities.suspend_identity(suspend).await.unwrap();
        refused(&before, "suspended").await;
        assert_eq!(held(&scene).await, (0, 1));
        assert!(scene.renew(&login, &csr().1).await.is_err());
        assert_eq!(enroll(&scene.admin, "etl").await.unwrap_err().code(), Code::FailedPrecondition);
        identities.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        refused(&before, "from before the suspension").await;
        assert_eq!(scene.states().await, ["void", "void"]);
        let (unused, login) = (scene.token().await, scene.joined().await);
        restored(&scene.f).await;
        refused(&unused, "from before a restore").await;
        assert_eq!(scene.who(&login).await.unwrap(), "etl", "a login goes on");
        let (token, made) = enroll(&scene.admin, "etl").await.unwrap();
        revoke(&scene.admin, &made.id).await.unwrap();
        refused(&token, "revoked").await;
        assert_eq!(scene.states().await, ["joined", "revoked", "void", "void", "void"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_answers_for_neither_joins_nor_renews() {
    let f = Fixture::new().await;
    drop(human(&f, "carol").await);
    register(&f, "etl", "pipeline", "carol").await;
    let admin = Client::new(f.connect(&f.admin).await);
    let stranger = Client::new(f.connect_as_nobody().await);
    let (key_pem, csr_pem) = csr();
    let joined = join(&stranger, &enroll(&admin, "etl").await.unwrap().0, &csr_pem).await.unwrap();
    let login = Login { key_pem, certificate_pem: joined.certificate_pem };
    let (waits, _) = enroll(&admin, "etl").await.unwrap();
    let mut identities = IdentityServiceClient::new(f.connect(&f.admin).await);
    let request = SuspendIdentityRequest { name: "carol".into(), reason: String::new() };
    identities.suspend_identity(request).await.unwrap();
    let channel = f.connect(&login).await;
    assert_eq!(who(&channel).await.unwrap(), "etl", "what it has it keeps");
    assert_eq!(renew(&channel, &csr().1).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(join(&stranger, &waits, &csr().1).await.is_err());
    assert_eq!(enroll(&admin, "etl").await.unwrap_err().code(), Code::PermissionDenied);
    let request = ResumeIdentityRequest { name: "carol".into(), reason: String::new() };
    identities.resume_identity(request).await.unwrap();
    join(&stranger, &waits, &csr().1).await.unwrap();
    renew(&channel, &csr().1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_for_more_or_proves_nothing_gets_no_certificate_and_uses_nothing_up() {
    let scene = Scene::new(Backend::Sqlite).await;
    let token = scene.token().await;
    let openssl = OpenSsl::new();
    let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    openssl.key(P256);
    let mut bad = vec![
        ("another's name", pem(openssl.csr("URI:spiffe://vault.test/human/admin", &[]))),
        ("a host", pem(openssl.csr("DNS:localhost", &[]))),
        ("another's common name", pem(openssl.csr("", &["-subj", "/CN=admin"]))),
        ("CA:TRUE", pem(openssl.csr_with("", "basicConstraints=critical,CA:TRUE", &[]))),
        ("two requests", csr().1 + &csr().1),
        ("a key beside it", csr().1 + &csr().0),
        ("no request", "none".to_owned()),
        ("nothing", String::new()),
    ];
    openssl.key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    bad.push(("RSA 1024", pem(openssl.csr("", &[]))));
    bad.push(("no proof of possession", stolen()));
    for (what, csr_pem) in &bad {
        let refusal = scene.join(&token, csr_pem).await.expect_err(what);
        assert_eq!(refusal.code(), Code::InvalidArgument, "{what}: {refusal}");
        // Who has no token learns nothing of requests.
        let refusal = scene.join("none", csr_pem).await.expect_err(what);
        assert_eq!(refusal.code(), Code::Unauthenticated, "{what}: {refusal}");
    }
    assert_eq!(scene.states().await, ["pending"]);
    assert!(scene.outcomes("enrolments.join").await.is_empty());
    let (key_pem, csr_pem) = csr();
    let joined = scene.join(&token, &csr_pem).await.unwrap();
    let login = Login { key_pem, certificate_pem: joined.certificate_pem };
    for (what, csr_pem) in &bad {
        let refusal = scene.renew(&login, csr_pem).await.expect_err(what);
        assert_eq!(refusal.code(), Code::InvalidArgument, "{what}: {refusal}");
    }
    assert_eq!(scene.states().await, ["joined"]);
}

/// A request whose signature is another's: of a key that its sender has not.
fn stolen() -> String {
    let (_, pem) = csr();
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let mut der = parsed.contents;
    // In the last number of the signature.
    *der.last_mut().unwrap() ^= 1;
    let encoded = data_encoding::BASE64.encode(&der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n")
}
