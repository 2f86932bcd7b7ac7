//! Certificates at the real socket: what is signed verifies, what is refused leaves no trace.

mod crl;
mod crl_pace;
mod effects;
mod logins;
mod processes;
mod refusals;
mod roots;

use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, Certificate, Conditions, CreateIdentityRequest, GetAuthoritiesRequest,
    GetCertificateRoleRequest, IssueCertificateRequest, IssueLoginCertificateRequest,
    ListCertificateRolesRequest, ListCertificatesRequest, PutCertificateRoleRequest,
    RemoveCertificateRoleRequest, SignCertificateRequest, SignCertificateResponse, SubjectNames,
    SuspendIdentityRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::node::{BACKENDS, Backend, Fixture, Login, csr};
use crate::x509::{NAMES, OpenSsl, P256};

type Client = PkiServiceClient<Channel>;

/// A role that allows some names of every kind.
fn web() -> PutCertificateRoleRequest {
    let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    PutCertificateRoleRequest {
        name: "web".to_owned(),
        allowed_dns: list(&["svc.a.example", "*.b.example"]),
        allowed_ips: list(&["192.0.2.0/24"]),
        allowed_uris: list(&["spiffe://other.example/**"]),
        allowed_emails: list(&["a.example"]),
        key_types: list(&["p256", "p384", "ed25519", "rsa"]),
        usages: list(&["server", "client"]),
        default_ttl_s: 3_600,
        max_ttl_s: 86_400,
        ..PutCertificateRoleRequest::default()
    }
}

/// A request for one name that the role allows.
fn order(csr_pem: &str) -> SignCertificateRequest {
    SignCertificateRequest {
        idempotency_key: String::new(),
        role: "web".to_owned(),
        csr_pem: csr_pem.to_owned(),
        names: Some(SubjectNames {
            dns: vec!["svc.a.example".to_owned()],
            ..SubjectNames::default()
        }),
        ttl_s: 0,
    }
}

async fn register(f: &Fixture, name: &str, kind: &str, owner: &str) {
    let request = CreateIdentityRequest {
        idempotency_key: String::new(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        owner: owner.to_owned(),
        purpose: "a test".to_owned(),
        tier: "low".to_owned(),
        ..CreateIdentityRequest::default()
    };
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    client.create_identity(request).await.unwrap();
}

/// Asks for a login certificate over a connection.
async fn login_over(channel: Channel, name: &str) -> Result<Login, Status> {
    let (key_pem, csr_pem) = csr();
    let name = name.to_owned();
    let request =
        IssueLoginCertificateRequest { name, csr_pem, ..IssueLoginCertificateRequest::default() };
    let issued = IdentityServiceClient::new(channel).issue_login_certificate(request).await?;
    Ok(Login { key_pem, certificate_pem: issued.into_inner().certificate_pem })
}

/// Registers an identity and logs it in.
async fn enrol(f: &Fixture, name: &str, kind: &str, owner: &str) -> Channel {
    register(f, name, kind, owner).await;
    let login = login_over(f.connect(&f.admin).await, name).await.unwrap();
    f.connect(&login).await
}

async fn grant(f: &Fixture, identity: &str, action: &str, resource: &str, max_ttl_s: i64) {
    let request = AddGrantRequest {
        subject: Some(Subject::Identity(identity.to_owned())),
        action: action.to_owned(),
        resource: resource.to_owned(),
        conditions: Some(Conditions { max_ttl_s, ..Conditions::default() }),
        ..AddGrantRequest::default()
    };
    let mut client = GrantServiceClient::new(f.connect(&f.admin).await);
    client.add_grant(request).await.unwrap();
}

async fn suspend(f: &Fixture, name: &str) {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    client.suspend_identity(request).await.unwrap();
}

/// A vault with the role, and a pipeline of `carol`'s that may use it.
struct World {
    f: Fixture,
    admin: Client,
    etl: Client,
}

impl World {
    async fn on(backend: Backend) -> Self {
        Self::of(Fixture::on(backend).await).await
    }

    async fn of(f: Fixture) -> Self {
        let mut admin = Client::new(f.connect(&f.admin).await);
        admin.put_role(web()).await.unwrap();
        register(&f, "carol", "human", "").await;
        let etl = Client::new(enrol(&f, "etl", "pipeline", "carol").await);
        grant(&f, "etl", "pki.sign", "pki/web", 0).await;
        grant(&f, "etl", "pki.issue", "pki/web", 0).await;
        Self { f, admin, etl }
    }

    /// Everything that was ever begun.
    async fn all(&self) -> Vec<Certificate> {
        let all =
            ListCertificatesRequest { page_size: 1_000, ..ListCertificatesRequest::default() };
        self.admin.clone().list_certificates(all).await.unwrap().into_inner().certificates
    }

    async fn sign(&self, csr_pem: &str) -> Result<SignCertificateResponse, Status> {
        Ok(self.etl.clone().sign_certificate(order(csr_pem)).await?.into_inner())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_certificate_verifies_and_its_holder_owner_and_administrator_see_it() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let openssl = OpenSsl::new();
        openssl.key(P256);
        let csr_pem = String::from_utf8(openssl.csr(NAMES, &[])).unwrap();
        let request = SignCertificateRequest {
            names: None,
            idempotency_key: "0123456789abcdef0123456789abcdef".to_owned(),
            ..order(&csr_pem)
        };
        let signed = w.etl.clone().sign_certificate(request.clone()).await.unwrap().into_inner();
        let found = w.etl.clone().get_authorities(GetAuthoritiesRequest {}).await.unwrap();
        let found = found.into_inner();
        let names: Vec<_> = found.authorities.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["root", "issuing"]);
        assert_eq!(found.authorities[0].certificate_pem, w.f.root_pem);
        let login = found.login_authority.unwrap();
        assert!(!found.authorities.contains(&login));
        assert_eq!(signed.chain_pem, found.authorities[1].certificate_pem);
        openssl.write("root.pem", &w.f.root_pem);
        openssl.write("chain.pem", &signed.chain_pem);
        openssl.write("leaf.pem", &signed.certificate_pem);
        openssl.run(&["verify", "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem"]);
        let certificate = signed.certificate.clone().unwrap();
        let serial = openssl.run(&["x509", "-in", "leaf.pem", "-noout", "-serial"]);
        assert_eq!(serial.trim().to_lowercase(), format!("serial={}", certificate.serial));
        assert_eq!((certificate.identity.as_str(), certificate.state.as_str()), ("etl", "active"));

        let again = w.etl.clone().sign_certificate(request.clone()).await.unwrap().into_inner();
        assert!(again.replayed && !signed.replayed);
        assert_eq!(again.certificate_pem, signed.certificate_pem);
        assert_eq!(again.certificate, signed.certificate);
        let other = SignCertificateRequest { ttl_s: 60, ..request };
        let refused = w.etl.clone().sign_certificate(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);

        let carol = login_over(w.f.connect(&w.f.admin).await, "carol").await.unwrap();
        let carol = Client::new(w.f.connect(&carol).await);
        let of_etl = ListCertificatesRequest {
            identity: "etl".to_owned(),
            role: "web".to_owned(),
            ..ListCertificatesRequest::default()
        };
        for mut client in [w.admin.clone(), w.etl.clone(), carol.clone()] {
            let listed = client.list_certificates(of_etl.clone()).await.unwrap().into_inner();
            assert_eq!(listed.certificates, std::slice::from_ref(&certificate));
        }
        let own = ListCertificatesRequest::default();
        let none = carol.clone().list_certificates(own).await.unwrap().into_inner();
        assert_eq!(none.certificates, []);
        let mut dave = Client::new(enrol(&w.f, "dave", "human", "").await);
        let refused = dave.list_certificates(of_etl).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_key_is_handed_out_once_and_a_retry_may_replace_it() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let request = IssueCertificateRequest {
            idempotency_key: "0123456789abcdef0123456789abcdef".to_owned(),
            role: "web".to_owned(),
            names: order("").names,
            ..IssueCertificateRequest::default()
        };
        let issue = async |request: IssueCertificateRequest| {
            w.etl.clone().issue_certificate(request).await.map(tonic::Response::into_inner)
        };
        let first = issue(request.clone()).await.unwrap();
        let openssl = OpenSsl::new();
        openssl.write("key.pem", &first.private_key_pem);
        openssl.write("leaf.pem", &first.certificate_pem);
        let public = openssl.run(&["pkey", "-in", "key.pem", "-pubout"]);
        assert_eq!(openssl.run(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"]), public);

        let replay = issue(request.clone()).await.unwrap();
        assert!(replay.replayed && replay.private_key_pem.is_empty());
        assert_eq!(replay.certificate_pem, first.certificate_pem);

        let replaced = IssueCertificateRequest { replace: true, ..request };
        let second = issue(replaced.clone()).await.unwrap();
        assert!(!second.replayed && !second.private_key_pem.is_empty());
        assert_ne!(second.certificate_pem, first.certificate_pem);
        let states: Vec<_> = w.all().await.into_iter().map(|c| c.state).collect();
        assert_eq!(states, ["revoked", "active"]);
        w.f.clock.advance(std::time::Duration::from_secs(61));
        assert!(issue(replaced).await.unwrap().replayed, "too late to replace");
        assert_eq!(w.all().await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_role_signs_nothing_more_on_any_node_and_may_be_put_again() {
    for backend in BACKENDS {
        let mut w = World::on(backend).await;
        let (_, csr_pem) = csr();
        w.sign(&csr_pem).await.unwrap();
        let other = w.f.second_node().await;
        let mut at_other = Client::new(w.f.connect_to(&other, &w.f.admin).await);
        let web_role = || RemoveCertificateRoleRequest { name: "web".to_owned() };
        let was = at_other.remove_role(web_role()).await.unwrap().into_inner().role.unwrap();
        assert_eq!(was.allowed_dns, web().allowed_dns);
        assert_eq!(w.sign(&csr_pem).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(w.admin.remove_role(web_role()).await.unwrap_err().code(), Code::NotFound);
        let get = GetCertificateRoleRequest { name: "web".to_owned() };
        assert_eq!(w.admin.get_role(get.clone()).await.unwrap_err().code(), Code::NotFound);
        let listed = w.admin.list_roles(ListCertificateRolesRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().roles, []);
        assert_eq!(w.all().await[0].state, "active", "what was signed lives on");
        assert!(w.admin.put_role(web()).await.unwrap().into_inner().changed);
        let again = w.admin.get_role(get).await.unwrap().into_inner().role.unwrap();
        assert_eq!(again.id, was.id, "ids never change");
        assert!(again.created_at_ms >= was.created_at_ms);
        w.sign(&csr_pem).await.unwrap();
        drop(at_other);
        drop(other);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_put_twice_changes_nothing_and_a_narrowed_one_counts_at_once() {
    for backend in BACKENDS {
        let mut w = World::on(backend).await;
        let (_, csr_pem) = csr();
        w.sign(&csr_pem).await.unwrap();
        assert!(!w.admin.put_role(web()).await.unwrap().into_inner().changed);
        let name = "web".to_owned();
        let role = w.admin.get_role(GetCertificateRoleRequest { name }).await.unwrap();
        let role = role.into_inner().role.unwrap();
        assert_eq!((role.allowed_dns, role.max_ttl_s), (web().allowed_dns, 86_400));
        assert_eq!(role.created_by, "admin");
        let listed = w.admin.list_roles(ListCertificateRolesRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().roles.len(), 1);

        let other = w.f.second_node().await;
        let mut at_other = Client::new(w.f.connect_to(&other, &w.f.admin).await);
        let narrower =
            PutCertificateRoleRequest { allowed_dns: vec!["x.example".to_owned()], ..web() };
        assert!(at_other.put_role(narrower).await.unwrap().into_inner().changed);
        let refused = w.sign(&csr_pem).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(w.all().await.len(), 1);
        drop(at_other);
        drop(other);
    }
}
