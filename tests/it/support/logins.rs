//! Humans and machines of a test, registered through the socket, each with a certificate.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use strongroom::Result;
use strongroom::crypto::sha256;
use strongroom::engines::pki::{Authorities, Request, SpiffeId, Template, issue};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{CreateIdentityRequest, Identity};
use strongroom::store::credentials::CredentialRow;
use strongroom::store::identities::{IdentityRow, identity_named};
use strongroom::store::{Needs, Tx, Versioned};
use strongroom::types::{
    Caller, CredentialId, CredentialKind, CredentialState, IdentityName, IdentityState,
    RequestContext, ResourceName,
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
    let vault = &f.node().vault;
    let fingerprint = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(fingerprint, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(admin), None).unwrap();
    let (key_pem, request) = csr();
    let sign = Sign { name: name.parse().unwrap(), request };
    let certificate_pem = vault.run(&ctx, sign).await.unwrap();
    Login { key_pem, certificate_pem }
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
}

#[async_trait]
impl Verb for Sign {
    const ACTION: &'static str = "identities.issue-cert";
    type Prepared = (CredentialRow, String);
    type Output = String;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("identities", &[self.name.as_str()])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let name = self.name.clone();
        let found = view
            .read(move |tx| async move { Ok(identity_named(tx, &name).await?) }.boxed())
            .await?
            .unwrap()
            .row;
        let trust_domain = TRUST_DOMAIN.parse()?;
        let hsm = view.hsm().as_ref();
        let authorities = Authorities::load(view.keyring(), hsm, &trust_domain, None).await?;
        let id = SpiffeId { trust_domain, kind: found.kind, name: found.name.clone() };
        let template = Template::login(&Request::parse(self.request.as_bytes())?, &id, None)?;
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
