//! Humans and machines of a test, registered through the socket, each with a certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use strongroom::Result;
use strongroom::crypto::sha256;
use strongroom::engines::identities::CreateIdentity;
use strongroom::engines::pki::{Authorities, Request, SpiffeId, Template, issue};
use strongroom::policy::SubjectFacts;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{CreateIdentityRequest, Identity};
use strongroom::store::credentials::CredentialRow;
use strongroom::store::identities::{IdentityRow, identity_named};
use strongroom::store::{Needs, Tx, Versioned};
use strongroom::types::{
    Caller, CredentialId, CredentialKind, CredentialState, IdentityName, IdentityState, Kind,
    RequestContext, ResourceName, Tier,
};
use strongroom::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};
use tonic::transport::Channel;

use super::node::{Fixture, Login, TRUST_DOMAIN, csr};

/// A request that registers an identity of a kind.
pub(crate) fn registration(name: &str, kind: &str, owner: &str) -> CreateIdentityRequest {
    CreateIdentityRequest {
        idempotency_key: String::new(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        owner: owner.to_owned(),
        purpose: "a test".to_owned(),
        tier: "low".to_owned(),
        ttl_s: if kind == "human" { 0 } else { 90 * 86_400 },
        ..CreateIdentityRequest::default()
    }
}

/// Registers an identity as the administrator.
pub(crate) async fn register(f: &Fixture, name: &str, kind: &str, owner: &str) -> Identity {
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    let created = client.create_identity(registration(name, kind, owner)).await.unwrap();
    created.into_inner().identity.unwrap()
}

/// Registers a human and connects as it.
pub(crate) async fn human(f: &Fixture, name: &str) -> Channel {
    register(f, name, "human", "").await;
    f.connect(&login(f, name).await).await
}

/// Registers a pipeline of the administrator's and connects as it.
pub(crate) async fn machine(f: &Fixture, name: &str) -> Channel {
    register(f, name, "pipeline", "admin").await;
    f.connect(&login(f, name).await).await
}

/// Signs a login certificate as the administrator.
pub(crate) async fn login(f: &Fixture, name: &str) -> Login {
    login_for(f, name, None).await
}

/// Does the same for a span of one's own choice.
pub(crate) async fn login_for(f: &Fixture, name: &str, ttl: Option<Duration>) -> Login {
    let (vault, ctx) = (&f.node().vault, first(f).await);
    let (key_pem, request) = csr();
    let sign = Sign { name: name.parse().unwrap(), request, ttl };
    let certificate_pem = vault.run(&ctx, sign).await.unwrap();
    Login { key_pem, certificate_pem }
}

/// The context of who logged in first: the administrator, or the bootstrap certificate.
async fn first(f: &Fixture) -> RequestContext {
    let vault = &f.node().vault;
    let fingerprint = fingerprint(&f.admin.certificate_pem);
    let first = vault.authenticate_certificate(fingerprint, |_| true).await.unwrap();
    vault.context(Caller::Identity(first), None).unwrap()
}

/// Registers the first administrator, as the bootstrap certificate, where no connection is made.
pub(crate) async fn register_admin(f: &Fixture) {
    let create = CreateIdentity {
        name: "admin".parse().unwrap(),
        kind: Kind::Human,
        owner: None,
        person: None,
        purpose: "a test".to_owned(),
        needs: String::new(),
        labels: BTreeMap::new(),
        tier: Tier::Low,
        ttl: None,
        retry: None,
    };
    f.node().vault.run(&first(f).await, create).await.unwrap();
}

/// SHA-256 of a certificate's DER, by which it is found.
pub(crate) fn fingerprint(pem: &str) -> [u8; 32] {
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    sha256(&parsed.contents)
}

/// Signs a request, and lets in who holds its key.
struct Sign {
    name: IdentityName,
    request: String,
    ttl: Option<Duration>,
}

impl Sign {
    async fn find(&self, view: &View) -> Result<IdentityRow> {
        let name = self.name.clone();
        let read = view.read(move |tx| async move { Ok(identity_named(tx, &name).await?) }.boxed());
        Ok(read.await?.unwrap().row)
    }
}

#[async_trait]
impl Verb for Sign {
    const ACTION: &'static str = "identities.issue-cert";
    type Prepared = (CredentialRow, String);
    type Output = String;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = self.find(view).await?;
        let name = ResourceName::join("identities", &[self.name.as_str()])?;
        let facts = SubjectFacts {
            id: Some(found.id),
            kind: found.kind,
            administrator: false,
            registered_by: found.created_by.parse().ok(),
            has_certificate: false,
            owner_active: true,
            owner_expires_at: None,
        };
        Ok(vec![Resource { identity: Some(facts), ..Resource::named(name) }])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let found = self.find(view).await?;
        let trust_domain = TRUST_DOMAIN.parse()?;
        let hsm = view.hsm().as_ref();
        let authorities = Authorities::load(view.keyring(), hsm, &trust_domain, None).await?;
        let id = SpiffeId { trust_domain, kind: found.kind, name: found.name.clone() };
        let template = Template::login(&Request::parse(self.request.as_bytes())?, &id, self.ttl)?;
        let serial = view.serial().await?;
        let signed = issue(hsm, &authorities.login, &template, &serial, view.now()).await?;
        let row = CredentialRow {
            id: CredentialId(view.new_id()?),
            kind: CredentialKind::Login,
            identity: found.id,
            parent: None,
            elevation: None,
            elevation_too: None,
            handle: Some(sha256(&signed.der).to_vec()),
            resource: ResourceName::join("identities", &[found.name.as_str()])?,
            state: CredentialState::Active,
            revocation_epoch: found.revocation_epoch,
            issued_at: view.now(),
            expires_at: signed.not_after,
            max_expires_at: signed.not_after,
            next_try: None,
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: Vec::new(),
        };
        Ok((row, signed.pem()))
    }
}

#[async_trait]
impl Operation for Sign {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        (row, pem): &Self::Prepared,
        _: &Decision,
    ) -> Result<String> {
        tx.insert(row).await?;
        let Versioned { row: mut bearer, version } =
            tx.lookup::<IdentityRow>(&row.identity).await?.unwrap();
        if bearer.state == IdentityState::Registered {
            bearer.state = IdentityState::Active;
            tx.update(version, &bearer).await?;
        }
        Ok(pem.clone())
    }
}

/// A login's certificate, and its key's signature over a statement.
pub(crate) fn sign(login: &Login, statement: &str) -> (Vec<u8>, Vec<u8>) {
    let certificate = CertificateDer::from_pem_slice(login.certificate_pem.as_bytes()).unwrap();
    let pair = rcgen::KeyPair::from_pem(&login.key_pem).unwrap();
    let signature = rcgen::SigningKey::sign(&pair, statement.as_bytes()).unwrap();
    (certificate.to_vec(), signature)
}
