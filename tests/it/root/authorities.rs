//! The authorities of certificates and of logins: rotated, tainted, retired. What becomes of chains below
//! a new root is in `pki/roots.rs`.

use std::time::Duration;

use strongroom::proto::authority_service_client::AuthorityServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    Authority, GetAuthoritiesRequest, GetAuthorityRequest, GetRevocationListRequest,
    IssueLoginCertificateRequest, RetireAuthorityRequest, RotateAuthorityRequest,
    RotatingAuthority, ScheduleAuthorityRequest, WhoAmIRequest,
};
use tonic::Code;
use tonic::transport::Channel;
use x509_parser::pem::parse_x509_pem;

use super::admin;
use crate::support::node::{BACKENDS, Fixture, Login, csr};
use crate::support::target::until;

pub(crate) async fn shown(admin: &Channel, name: &str) -> RotatingAuthority {
    let request = GetAuthorityRequest { name: name.to_owned() };
    let mut client = AuthorityServiceClient::new(admin.clone());
    client.get_authority(request).await.unwrap().into_inner().authority.unwrap()
}

pub(crate) async fn rotate(admin: &Channel, name: &str, expected_version: i64) -> Result<(), Code> {
    let request = RotateAuthorityRequest { name: name.to_owned(), expected_version };
    let mut client = AuthorityServiceClient::new(admin.clone());
    client.rotate_authority(request).await.map(drop).map_err(|status| status.code())
}

pub(crate) async fn retire(
    admin: &Channel,
    name: &str,
    version: i64,
    force: bool,
) -> Result<(), Code> {
    let request = RetireAuthorityRequest { name: name.to_owned(), version, force };
    let mut client = AuthorityServiceClient::new(admin.clone());
    client.retire_authority(request).await.map(drop).map_err(|status| status.code())
}

pub(crate) fn states(authority: &RotatingAuthority) -> Vec<(i64, &str)> {
    authority.versions.iter().map(|it| (it.version, it.state.as_str())).collect()
}

pub(crate) fn issuer(pem: &str) -> String {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    pem.parse_x509().unwrap().issuer().to_string()
}

/// A login by the current authority, once this node has heard of it.
async fn login(admin: &Channel, name: &str) -> Login {
    let (key_pem, csr_pem) = csr();
    let client = IdentityServiceClient::new(admin.clone());
    let name = name.to_owned();
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    for _ in 0..100 {
        if let Ok(issued) = client.clone().issue_login_certificate(request.clone()).await {
            let certificate_pem = issued.into_inner().certificate_pem;
            return Login { key_pem, certificate_pem };
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody signs a login")
}

/// The authorities of certificates, and older ones.
async fn authorities(pki: &PkiServiceClient<Channel>) -> Vec<Authority> {
    let found = pki.clone().get_authorities(GetAuthoritiesRequest {}).await.unwrap().into_inner();
    found.authorities.into_iter().chain(found.retiring).collect()
}

async fn list(pki: &PkiServiceClient<Channel>, version: i64) -> Option<String> {
    let asked = pki.clone().get_revocation_list(GetRevocationListRequest { version }).await;
    asked.ok().map(|list| list.into_inner().crl_pem)
}

pub(crate) async fn whoami(f: &Fixture, login: &Login) -> bool {
    let identity = tonic::transport::Identity::from_pem(&login.certificate_pem, &login.key_pem);
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(&f.root_pem))
        .identity(identity)
        .domain_name("localhost");
    let uri = format!("https://127.0.0.1:{}", f.node().grpc_addr.port());
    let endpoint = tonic::transport::Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_login_authorities_open_connections_until_the_old_one_is_retired() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let a = admin(&f).await;
        for bad in ["", "roots", "Root", "ca/root"] {
            assert_eq!(rotate(&a, bad, 0).await, Err(Code::InvalidArgument), "{bad}");
        }
        assert_eq!(rotate(&a, "login", 5).await, Err(Code::Aborted));
        rotate(&a, "login", 1).await.unwrap();
        let now = shown(&a, "login").await;
        assert_eq!(states(&now), [(2, "current"), (1, "retiring")]);
        assert!(now.versions[1].valid >= 1 && now.versions[1].valid_until_ms > 0);
        let new = login(&a, "admin").await;
        assert_ne!(issuer(&new.certificate_pem), issuer(&f.admin.certificate_pem));
        assert!(issuer(&new.certificate_pem).contains("v2"));
        for login in [&f.admin, &new] {
            assert!(whoami(&f, login).await);
        }
        // What it signed is valid: the admin's own login.
        assert_eq!(retire(&a, "login", 1, false).await, Err(Code::FailedPrecondition));
        assert_eq!(retire(&a, "login", 2, true).await, Err(Code::FailedPrecondition));
        assert_eq!(retire(&a, "login", 3, true).await, Err(Code::NotFound));
        let own = retire(&a, "login", 1, true).await;
        assert_eq!(own, Err(Code::FailedPrecondition), "nobody locks themselves out");
        let again = f.connect(&new).await;
        retire(&again, "login", 1, true).await.unwrap();
        until("the old login opens nothing", async || !whoami(&f, &f.admin).await).await;
        assert!(whoami(&f, &new).await);
        assert_eq!(states(&shown(&again, "login").await), [(2, "current"), (1, "retired")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuing_authority_that_is_tainted_signs_its_list_alone() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        let a = admin(&f).await;
        let mut pki = PkiServiceClient::new(a.clone());
        rotate(&a, "issuing", 1).await.unwrap();
        until("every authority is shown", async || authorities(&pki).await.len() == 3).await;
        let there = authorities(&pki).await;
        let names: Vec<_> =
            there.iter().map(|it| (it.name.as_str(), it.version, it.state.as_str())).collect();
        let wanted =
            [("root", 1, "current"), ("issuing", 2, "current"), ("issuing", 1, "retiring")];
        assert_eq!(names, wanted);
        let root = issuer(&there[1].certificate_pem);
        assert_eq!(root, issuer(&there[2].certificate_pem), "one root above both");
        until("each has a list of its own", async || {
            let (old, new) = (list(&pki, 1).await, list(&pki, 2).await);
            old.is_some() && new.is_some() && old != new && list(&pki, 0).await == new
        })
        .await;
        let none = GetRevocationListRequest { version: 7 };
        assert_eq!(pki.get_revocation_list(none).await.unwrap_err().code(), Code::NotFound);
        f.restart().await;
        let a = admin(&f).await;
        assert_eq!(states(&shown(&a, "issuing").await), [(2, "current"), (1, "retiring")]);
        retire(&a, "issuing", 1, false).await.unwrap();
        assert_eq!(states(&shown(&a, "issuing").await), [(2, "current"), (1, "retired")]);
        assert!(whoami(&f, &f.admin).await, "the listener's own is by the new one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_rotates_an_authority() {
    let f = Fixture::new().await;
    let a = admin(&f).await;
    let mut client = AuthorityServiceClient::new(a.clone());
    for name in ["root", "issuing", "login"] {
        let request = ScheduleAuthorityRequest { name: name.to_owned(), rotate_every_s: 3_600 };
        client.schedule_authority(request).await.unwrap();
    }
    f.clock.advance(Duration::from_secs(3_601));
    for name in ["root", "issuing", "login"] {
        until("it was rotated", async || shown(&a, name).await.versions.len() == 2).await;
        let by = shown(&a, name).await.versions[1].replaced.clone().unwrap();
        assert_eq!(by.started_by, "rotation_keeper");
    }
}
