//! Bad input at the real socket that is nobody's own part: certificates that prove nothing,
//! messages that are too long, a store that takes no writes. Each is told and changes nothing.

use std::time::Duration;

use async_trait::async_trait;
use strongroom::Result;
use strongroom::engines::pki::{Authorities, Request, SpiffeId, Template, issue};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    CreateIdentityRequest, IssueLoginCertificateRequest, ListIdentitiesRequest, WhoAmIRequest,
    WhoAmIResponse,
};
use strongroom::store::{Location, Needs, Tx};
use strongroom::types::{Caller, Kind, RequestContext};
use strongroom::vault::{Decision, Operation, READS, Resource, Verb, View};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::support::logins::{fingerprint, register, registration};
use crate::support::node::{Backend, Fixture, Login, TRUST_DOMAIN, csr};
use crate::support::postgres::Postgres;
use crate::support::target::until;

type Client = IdentityServiceClient<Channel>;

/// Signs a login certificate by the vault's own login CA that no row knows of.
struct Unrecorded {
    name: &'static str,
    kind: Kind,
    csr_pem: String,
}

#[async_trait]
impl Verb for Unrecorded {
    const ACTION: &'static str = "identities.show";
    type Prepared = String;
    type Output = String;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities/admin".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<String> {
        let trust_domain = TRUST_DOMAIN.parse()?;
        let hsm = view.hsm().as_ref();
        let authorities = Authorities::load(view.keyring(), hsm, &trust_domain, None).await?;
        let id = SpiffeId { trust_domain, kind: self.kind, name: self.name.parse()? };
        let template = Template::login(&Request::parse(self.csr_pem.as_bytes())?, &id, None)?;
        let serial = view.serial().await?;
        Ok(issue(hsm, &authorities.login, &template, &serial, view.now()).await?.pem())
    }
}

#[async_trait]
impl Operation for Unrecorded {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        pem: &String,
        _: &Decision,
    ) -> Result<String> {
        Ok(pem.clone())
    }
}

async fn admin(f: &Fixture) -> Client {
    Client::new(f.connect(&f.admin).await)
}

async fn names(f: &Fixture) -> Vec<String> {
    let all = ListIdentitiesRequest::default();
    let listed = admin(f).await.list_identities(all).await.unwrap().into_inner();
    listed.identities.into_iter().map(|identity| identity.name).collect()
}

async fn knock(f: &Fixture, login: &Login) -> Code {
    let mut client = Client::new(f.connect(login).await);
    client.who_am_i(WhoAmIRequest {}).await.map_or_else(|refused| refused.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_our_own_authority_that_no_row_knows_lets_nobody_in() {
    let f = Fixture::new().await;
    let vault = &f.node().vault;
    let print = fingerprint(&f.admin.certificate_pem);
    let caller = vault.authenticate_certificate(print, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(caller), None).unwrap();
    let before = names(&f).await;
    // An identity that was never registered, and a registered one whose certificate this is not.
    for (name, kind) in [("ghost", Kind::Pipeline), ("admin", Kind::Human)] {
        let (key_pem, csr_pem) = csr();
        let certificate_pem = vault.run(&ctx, Unrecorded { name, kind, csr_pem }).await.unwrap();
        let code = knock(&f, &Login { key_pem, certificate_pem }).await;
        assert_eq!(code, Code::Unauthenticated, "{name}");
    }
    assert_eq!(names(&f).await, before);
    assert_eq!(knock(&f, &f.admin).await, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused_on_open_connections_and_on_new_ones() {
    let f = Fixture::new().await;
    register(&f, "etl", "pipeline", "admin").await;
    let (key_pem, csr_pem) = csr();
    let request = IssueLoginCertificateRequest {
        name: "etl".into(),
        csr_pem,
        ttl_s: 300,
        ..Default::default()
    };
    let issued = admin(&f).await.issue_login_certificate(request).await.unwrap().into_inner();
    let login = Login { key_pem, certificate_pem: issued.certificate_pem };
    let mut open = Client::new(f.connect(&login).await);
    open.who_am_i(WhoAmIRequest {}).await.unwrap();
    f.clock.advance(Duration::from_secs(301));
    let refused = open.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    // The connection itself is judged again, and may be cut first.
    let cut = [Code::Unauthenticated, Code::Unavailable, Code::Unknown, Code::Cancelled];
    assert!(cut.contains(&refused.code()), "{refused}");
    // Refused at the handshake, which the client sees when it connects or at its first call.
    let anew = tokio::spawn(async move { knock(&f, &login).await }).await;
    assert!(anew.as_ref().map_or(true, |code| cut.contains(code)), "{anew:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_is_refused_before_it_is_read_and_changes_nothing() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let before = names(&f).await;
    for (bytes, code) in [
        // Beyond the limit on messages, and beyond the limit on the text alone.
        (2 << 20, Code::OutOfRange),
        ((1 << 20) + (65 << 10), Code::OutOfRange),
        (1 << 20, Code::InvalidArgument),
        (1_025, Code::InvalidArgument),
    ] {
        let request = CreateIdentityRequest {
            purpose: "x".repeat(bytes),
            ..registration("etl", "pipeline", "admin")
        };
        let refused = client.create_identity(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{bytes}: {}", refused.message());
        assert!(refused.message().len() < 200, "it is not quoted");
    }
    let mut request = tonic::Request::new(WhoAmIRequest {});
    let long = "y".repeat(20 << 10).parse().unwrap();
    request.metadata_mut().insert("x-long", long);
    assert!(client.who_am_i(request).await.is_err(), "headers have a limit too");
    assert_eq!(names(&f).await, before);
    admin(&f).await.who_am_i(WhoAmIRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes_is_told_as_such_and_serves_again_when_it_does() {
    let f = Fixture::on(Backend::Postgres).await;
    let Location::Postgres { url, .. } = &f.parts.location else { panic!("another store") };
    let database = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    let set = async |value: &str| {
        let sql = format!(
            "ALTER DATABASE \"{database}\" SET default_transaction_read_only = {value}; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        );
        Postgres::shared().run("postgres", &sql).await;
    };
    let mut client = admin(&f).await;
    client.create_identity(registration("etl", "pipeline", "admin")).await.unwrap();
    let before = names(&f).await;
    set("on").await;
    until("a refusal says why", async || {
        let late = registration("late", "pipeline", "admin");
        let refused = client.clone().create_identity(late).await;
        let refused = refused.expect_err("a store that takes no writes took one");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        refused.message().contains("read-only")
    })
    .await;
    // Nothing is answered that cannot be recorded.
    let refused = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    set("off").await;
    until("it serves again", async || client.clone().who_am_i(WhoAmIRequest {}).await.is_ok())
        .await;
    assert_eq!(names(&f).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_nothing_that_is_served_is_told_so_and_changes_nothing() {
    let f = Fixture::new().await;
    let channel = f.connect(&f.admin).await;
    for path in [
        "/strongroom.v1.NothingService/WhoAmI",
        "/strongroom.v1.IdentityService/Nothing",
        "/strongroom.v1.IdentityService/",
        "/strongroom.v1.IdentityService",
        "//strongroom.v1.IdentityService/WhoAmI",
        "/",
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let codec = ProstCodec::<WhoAmIRequest, WhoAmIResponse>::default();
        let path = path.parse::<PathAndQuery>().unwrap();
        let told = client.unary(tonic::Request::new(WhoAmIRequest {}), path.clone(), codec).await;
        assert_eq!(told.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    // The connection serves on.
    Client::new(channel).who_am_i(WhoAmIRequest {}).await.unwrap();
}
