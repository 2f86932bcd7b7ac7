//! Vaults that are killed and started again: one for development, and one that is not.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::hsm::Pkcs11Hsm;
use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, IssueLoginCertificateRequest, PutCertificateRoleRequest,
};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::factors::{App, step_up};
use crate::support::logins::registration;
use crate::support::node::{Backend, Fixture, Login, csr};
use crate::support::program::{Installation, Running, dev};
use crate::support::softhsm::Token;

/// What an approval stands on is a day old: the vault is founded by a clock that is so far behind.
const AGE: Duration = Duration::from_hours(48);
/// A proof of a factor counts for five minutes.
const PROVEN: Duration = Duration::from_mins(4);

/// Who rotates, and who approves where that takes two.
pub(super) struct People {
    pub(super) asker: Channel,
    pub(super) approver: Option<Channel>,
}

/// A vault.
pub(super) enum Stand {
    /// One for development, whose administrator holds ceremonies alone.
    Development(TempDir),
    /// One that is not, served by `server --config`.
    Earnest(Box<Earnest>),
}

/// A vault whose two administrators did not make each other.
pub(super) struct Earnest {
    f: Fixture,
    real: Installation,
    asker: Administrator,
    approver: Administrator,
    proven: Option<Instant>,
}

struct Administrator {
    name: &'static str,
    login: Login,
    app: App,
}

impl Stand {
    pub(super) fn development() -> Self {
        Self::Development(tempfile::tempdir().unwrap())
    }

    pub(super) async fn earnest(backend: Backend, token: &Token) -> Self {
        let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
        let mut f = Fixture::aged(backend, Arc::new(hsm), token.pin.clone(), AGE).await;
        let admin = f.connect(&f.admin).await;
        let asker = administrator(&f, &admin, "second").await;
        let approver = administrator(&f, &admin, "third").await;
        grant(&admin, "second").await;
        f.node.take().unwrap().stop().await.unwrap();
        f.clock.advance(AGE);
        let real = Installation::of(&f, token);
        Self::Earnest(Box::new(Earnest { f, real, asker, approver, proven: None }))
    }

    /// Starts the server.
    pub(super) fn serve(&self) -> Running {
        match self {
            Self::Development(dir) => dev(dir.path()),
            Self::Earnest(it) => it.real.serve(),
        }
    }

    /// Lets who rotates use what is written, where nobody did yet.
    pub(super) async fn begin(&mut self, server: &Running) {
        match self {
            Self::Development(_) => grant(&connect(server).await, "admin").await,
            Self::Earnest(_) => {}
        }
    }

    /// Has clients trust these roots from now on, where they were told of any. One for development
    /// writes what is to be trusted itself, whenever it starts.
    pub(super) fn trust(&self, roots: &str) {
        match self {
            Self::Earnest(it) if !roots.is_empty() => {
                fs::write(it.real.dir.path().join("out/ca.pem"), roots).unwrap();
            }
            Self::Earnest(_) | Self::Development(_) => {}
        }
    }

    /// Who rotates.
    pub(super) fn asker(&self) -> &'static str {
        match self {
            Self::Development(_) => "admin",
            Self::Earnest(it) => it.asker.name,
        }
    }

    /// Within how many milliseconds it is killed: a ceremony is three calls.
    pub(super) fn span_ms(&self) -> usize {
        match self {
            Self::Development(_) => 300,
            Self::Earnest(_) => 600,
        }
    }

    /// Connects, with factors that are fresh where they are asked for.
    pub(super) async fn connect(&mut self, to: &Running) -> People {
        match self {
            Self::Development(_) => People { asker: connect(to).await, approver: None },
            Self::Earnest(it) => {
                let asker = it.real.connect(to, &it.asker.login).await;
                let approver = it.real.connect(to, &it.approver.login).await;
                if it.proven.is_none_or(|at| at.elapsed() > PROVEN) {
                    step_up(&it.f, &asker, it.asker.name, Some(&it.asker.app)).await;
                    step_up(&it.f, &approver, it.approver.name, Some(&it.approver.app)).await;
                    it.proven = Some(Instant::now());
                }
                People { asker, approver: Some(approver) }
            }
        }
    }
}

/// Connects as the administrator of a development vault.
async fn connect(to: &Running) -> Channel {
    let read = |what: &str| fs::read_to_string(to.said(what)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca_file")))
        .identity(Identity::from_pem(read("admin_cert_file"), read("admin_key_file")))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", to.said("grpc_addr"))).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

/// Makes an administrator with a factor.
async fn administrator(f: &Fixture, by: &Channel, name: &'static str) -> Administrator {
    let mut identities = IdentityServiceClient::new(by.clone());
    identities.create_identity(registration(name, "human", "")).await.unwrap();
    let ((key_pem, csr_pem), ttl_s) = (csr(), 20 * 86_400);
    let request =
        IssueLoginCertificateRequest { name: name.into(), csr_pem, ttl_s, ..Default::default() };
    let issued = identities.issue_login_certificate(request).await.unwrap().into_inner();
    let login = Login { key_pem, certificate_pem: issued.certificate_pem };
    let app = step_up(f, &f.connect(&login).await, name, None).await;
    let mut groups = GroupServiceClient::new(by.clone());
    let add = AddMemberRequest { group: "administrators".into(), identity: name.into() };
    groups.add_member(add).await.unwrap();
    Administrator { name, login, app }
}

/// Lets somebody write, read, encrypt and rotate below `kill/`, and have certificates signed.
async fn grant(by: &Channel, to: &str) {
    let (name, allowed_dns) = ("kill".to_owned(), vec!["a.example".to_owned()]);
    let role = PutCertificateRoleRequest { name, allowed_dns, ..Default::default() };
    PkiServiceClient::new(by.clone()).put_role(role).await.unwrap();
    let secrets = ["put", "get"].map(|verb| ("secrets", verb, "kill/**"));
    let keys = ["create", "rotate", "encrypt", "decrypt", "rewrap"];
    let keys = keys.map(|verb| ("keys", verb, "kill/**"));
    let mut grants = GrantServiceClient::new(by.clone());
    for (noun, verb, on) in secrets.into_iter().chain(keys).chain([("pki", "sign", "kill")]) {
        let request = AddGrantRequest {
            subject: Some(Subject::Identity(to.to_owned())),
            action: format!("{noun}.{verb}"),
            resource: format!("{noun}/{on}"),
            ..Default::default()
        };
        grants.add_grant(request).await.unwrap();
    }
}
