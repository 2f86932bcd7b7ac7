//! What a login stood on still stands when it is committed, or nobody is logged in.

use async_trait::async_trait;
use strongroom::Result as Answer;
use strongroom::engines::issuers::{IssuerKeys, Login, LoginRequest};
use strongroom::error::Error;
use strongroom::proto::RemoveRuleRequest;
use strongroom::store::{Needs, Reader, Tx};
use strongroom::types::{Caller, IdentityName, RequestContext};
use strongroom::vault::{Decision, Operation, READS, Resource, Verb, View};

use super::*;
use crate::support::logins::fingerprint;

/// Hands out the store's reading end.
struct Borrow;

#[async_trait]
impl Verb for Borrow {
    const ACTION: &'static str = "system.seal";
    type Prepared = Reader;
    type Output = Reader;

    async fn resources(&self, _: &View) -> Answer<Vec<Resource>> {
        Ok(vec![Resource::named("system/seal".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Answer<Reader> {
        Ok(view.reader().clone())
    }
}

#[async_trait]
impl Operation for Borrow {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        reader: &Reader,
        _: &Decision,
    ) -> Answer<Reader> {
        Ok(reader.clone())
    }
}

async fn reader(f: &Fixture) -> Reader {
    let vault = &f.node().vault;
    let admin = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(admin, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(admin), None).unwrap();
    vault.run(&ctx, Borrow).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_removed_while_a_token_is_looked_at_logs_nobody_in() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        let added = scene.rule(rule(&GITHUB)).await.unwrap();
        let (vault, reader) = (scene.f.node().vault.clone(), reader(&scene.f).await);
        let name: IdentityName = "etl".parse().unwrap();
        let (keys, id) = (IssuerKeys::default(), vault.installation().id);
        let look = async |token: &str| {
            let ctx = vault.context(Caller::System("federation"), None).unwrap();
            let request = LoginRequest { name: &name, token, proof: "", ttl: None, live: 100 };
            let looked = Login::verify(&reader, &keys, id, &request, ctx.now).await.unwrap();
            (ctx, looked)
        };
        let (ctx, looked) = look(&scene.token("1", github())).await;
        vault.run(&ctx, looked).await.unwrap();
        let (ctx, looked) = look(&scene.token("2", github())).await;
        let (issuer, reason) = ("ci".to_owned(), "over".to_owned());
        let request = RemoveRuleRequest { issuer, id: added.id, reason };
        scene.admin.remove_rule(request).await.unwrap();
        let refused = vault.run(&ctx, looked).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict(_)), "{backend:?}: {refused}");
    }
}
