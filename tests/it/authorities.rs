//! A vault's three authorities over a token in memory, for the tests of certificates and of TLS.

use std::time::Duration;

use strongroom::Result;
use strongroom::engines::pki::{
    Authority, Certificate, Deployment, Founder, GeneratedKey, KeyType, Request, Template,
    TrustDomain, issue,
};
use strongroom::hsm::{Hsm as _, KeyInfo, KeyKind, MemoryHsm};
use strongroom::types::{Clock, SecretBytes, Serial, SystemClock, SystemEntropy, UnixMillis};

/// A vault's authorities, as `init` makes them.
#[derive(Debug)]
pub(crate) struct Authorities {
    pub(crate) token: MemoryHsm,
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
    pub(crate) login: Authority,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) now: UnixMillis,
    pub(crate) keys: [KeyInfo; 3],
}

pub(crate) fn serial() -> Serial {
    Serial::random(&SystemEntropy).unwrap()
}

/// A certificate and the PEM of its key.
pub(crate) struct Issued {
    pub(crate) certificate: Certificate,
    pub(crate) key_pem: String,
}

impl Authorities {
    pub(crate) async fn new() -> Self {
        let token = MemoryHsm::unsealed();
        let now = SystemClock.now();
        let trust_domain: TrustDomain = "vault.example".parse().unwrap();
        let founder = Founder {
            hsm: &token,
            vault: "0123abcd",
            deployment: Deployment::Development,
            trust_domain: &trust_domain,
            now,
        };
        let root_key = token.create_key("root", KeyKind::EcdsaP384).await.unwrap();
        let issuing_key = token.create_key("issuing", KeyKind::EcdsaP256).await.unwrap();
        let login_key = token.create_key("login", KeyKind::EcdsaP256).await.unwrap();
        let root = founder.root(&root_key, &serial()).await.unwrap();
        let issuing = founder.issuing(&issuing_key, &root, &serial()).await.unwrap();
        let login = founder.login(&login_key, &serial()).await.unwrap();
        let keys = [root_key, issuing_key, login_key];
        Self { token, root, issuing, login, trust_domain, now, keys }
    }

    pub(crate) async fn issue(
        &self,
        authority: &Authority,
        template: &Template,
    ) -> Result<Certificate> {
        issue(&self.token, authority, template, &serial(), self.now).await
    }

    /// A login certificate for `pipeline/<name>` that lives for an hour.
    pub(crate) async fn log_in_as(&self, name: &str) -> Issued {
        let key = GeneratedKey::generate(KeyType::P256).unwrap();
        let id = format!("spiffe://{}/pipeline/{name}", self.trust_domain).parse().unwrap();
        let ttl = Some(Duration::from_hours(1));
        let template = Template::login(&Request::of_key(key.public), &id, ttl).unwrap();
        let certificate = self.issue(&self.login, &template).await.unwrap();
        Issued { certificate, key_pem: text(&key.private_pem) }
    }

    /// The listener's certificate for localhost.
    pub(crate) async fn listener(&self) -> Issued {
        let key = GeneratedKey::generate(KeyType::P256).unwrap();
        let names = ["dns:localhost", "ip:127.0.0.1"].map(|name| name.parse().unwrap());
        let ttl = Duration::from_hours(24);
        let template = Template::server(key.public, names.to_vec(), ttl).unwrap();
        let certificate = self.issue(&self.issuing, &template).await.unwrap();
        Issued { certificate, key_pem: text(&key.private_pem) }
    }
}

fn text(secret: &SecretBytes) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}
