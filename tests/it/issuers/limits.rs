//! How large a token may be, and how many rules there may be: each with an error of its own.

use async_trait::async_trait;
use strongroom::Result as Answer;
use strongroom::engines::issuers::{Condition, RuleDefinition, Scalar};
use strongroom::proto::GetIssuerRequest;
use strongroom::store::issuers::RuleRow;
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, IdentityId, ObjectId, RequestContext};
use strongroom::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};

use super::*;
use crate::support::logins::fingerprint;

/// A token of exactly so many bytes, good otherwise.
fn sized(scene: &Scene, jti: &str, bytes: usize) -> String {
    let encoded = |len: usize| (len * 4).div_ceil(3);
    let mut claims = scene.issuer.claims(&scene.f, jti, github());
    claims["sub"] = json!("");
    let (bare, kid) = (claims.to_string().len(), scene.issuer.kid("RSA"));
    for pad in 1..5 {
        let header = json!({"alg": "RS256", "kid": kid, "typ": "JWT", "x5t": "a".repeat(pad)});
        let header = header.to_string();
        // Two dots, and the signature of a key of 2,048 bits.
        let room = bytes - encoded(header.len()) - 2 - encoded(256);
        let payload = room * 3 / 4;
        if encoded(payload) == room {
            claims["sub"] = json!("x".repeat(payload - bare));
            let token = scene.issuer.sign("rsa", "RS256", &header, &claims.to_string());
            assert_eq!(token.len(), bytes);
            return token;
        }
    }
    panic!("there is no such token")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_64_kib_and_not_one_byte_more() {
    let scene = Scene::with(Backend::Sqlite, "github", &GITHUB).await;
    let (fits, beyond) = (sized(&scene, "1", 65_536), sized(&scene, "2", 65_537));
    scene.login(&fits).await.unwrap();
    // Also on a connection that could prove an administrator: it falls back to nothing.
    for client in [&scene.stranger, &scene.admin] {
        let status = login(client, "etl", &beyond).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("at most 64 KiB"), "{status}");
    }
}

/// Adds rules to an issuer, as many at once as an entry of the record has room for.
struct Fill {
    issuer: ObjectId,
    many: usize,
}

#[async_trait]
impl Verb for Fill {
    const ACTION: &'static str = "system.seal";
    type Prepared = Vec<RuleRow>;
    type Output = ();

    async fn resources(&self, _: &View) -> Answer<Vec<Resource>> {
        Ok(vec![Resource::named("system/seal".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Answer<Vec<RuleRow>> {
        let any = vec![Scalar::Text("another".to_owned())];
        let claims = vec![Condition { claim: "sub".to_owned(), any }];
        let rule = RuleDefinition { claims, template: None, ttl_s: 0, max_ttl_s: 0 }.checked()?;
        let (now, by, definition) = (view.now(), view.actor(), rule.to_json()?);
        let row = |_| {
            Ok(RuleRow {
                id: ObjectId(view.new_id()?),
                issuer: self.issuer,
                identity: Some(IdentityId(view.new_id()?)),
                definition: definition.clone(),
                active: true,
                next_try: None,
                created_at: now,
                created_by: by.clone(),
                changed_at: now,
                changed_by: by.clone(),
            })
        };
        (0..self.many).map(row).collect()
    }
}

#[async_trait]
impl Operation for Fill {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        rules: &Vec<RuleRow>,
        _: &Decision,
    ) -> Answer<()> {
        for rule in rules {
            tx.insert(rule).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_has_ten_thousand_rules_and_not_one_more() {
    let mut scene = Scene::with(Backend::Sqlite, "generic", &[("sub", "somebody")]).await;
    let get = GetIssuerRequest { name: "ci".to_owned() };
    let found = scene.admin.get_issuer(get.clone()).await.unwrap().into_inner().issuer.unwrap();
    let issuer: ObjectId = found.id.parse().unwrap();
    let vault = scene.f.node().vault.clone();
    let admin = fingerprint(&scene.f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(admin, |_| true).await.unwrap();
    let mut left = 9_998;
    while left > 0 {
        let many = left.min(500);
        let ctx = vault.context(Caller::Identity(admin), None).unwrap();
        vault.run(&ctx, Fill { issuer, many }).await.unwrap();
        left -= many;
    }
    scene.rule(rule(&[("sub", "the last")])).await.unwrap();
    let full = scene.rule(rule(&[("sub", "one more")])).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().starts_with("the issuer has 10000 rules"), "{full}");
    let found = scene.admin.get_issuer(get).await.unwrap().into_inner().issuer.unwrap();
    assert_eq!(found.rules, 10_000);
    // What yields the machine is found among them all.
    scene.login(&scene.token("1", json!({}))).await.unwrap();
}
