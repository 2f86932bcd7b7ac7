//! Login certificates: who may ask for them, who gets one, when it is dead.

use strongroom::engines::pki::Request;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{CreateIdentityRequest, IssueLoginCertificateRequest, WhoAmIRequest};
use strongroom::server::{First, Founding, Ingredients, Node, found};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

use super::{enrol, login_over, register, suspend};
use crate::support::node::{BACKENDS, Backend, Fixture, Login, csr, location, pin};
use crate::x509::{OpenSsl, P256};

async fn who(channel: Channel) -> Result<String, Code> {
    let answer = IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await;
    answer.map(|answer| answer.into_inner().identity).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_works_on_a_new_connection_at_once_and_dies_with_its_identity() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        register(&f, "etl", "pipeline", "admin").await;
        let login = login_over(f.connect(&f.admin).await, "etl").await.unwrap();
        let open = f.connect(&login).await;
        assert_eq!(who(open.clone()).await.unwrap(), "etl");
        suspend(&f, "etl").await;
        assert_eq!(who(open).await, Err(Code::Unauthenticated));
        assert_eq!(who(f.connect(&login).await).await, Err(Code::Unauthenticated));
        let refused = login_over(f.connect(&f.admin).await, "etl").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "a suspended identity gets none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_issued_by_administrators_and_by_a_machines_owner_alone() {
    let f = Fixture::new().await;
    let carol = enrol(&f, "carol", "human", "").await;
    let dave = enrol(&f, "dave", "human", "").await;
    let etl = enrol(&f, "etl", "pipeline", "carol").await;
    assert!(login_over(carol.clone(), "etl").await.is_ok(), "its owner");
    for (who, asks, for_whom) in [
        ("a human", &dave, "carol"),
        ("a human, for itself", &dave, "dave"),
        ("not the owner", &dave, "etl"),
        ("an owner, for an administrator", &carol, "admin"),
        ("a machine, for itself", &etl, "etl"),
        ("a machine, for its owner", &etl, "carol"),
        ("for nobody", &dave, "nobody"),
    ] {
        let refused = login_over(asks.clone(), for_whom).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{who}");
    }
    let admin = f.connect(&f.admin).await;
    assert_eq!(login_over(admin.clone(), "nobody").await.unwrap_err().code(), Code::NotFound);
    suspend(&f, "carol").await;
    let refused = login_over(admin, "etl").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "its owner is suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_request_that_asks_for_more_is_refused() {
    let f = Fixture::new().await;
    register(&f, "etl", "pipeline", "admin").await;
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    let openssl = OpenSsl::new();
    openssl.key(P256);
    let day = 86_400;
    for (names, subject, ttl_s, fits) in [
        ("", "/", 0, true),
        ("URI:spiffe://vault.test/pipeline/etl", "/CN=etl", 30 * day, true),
        ("URI:spiffe://vault.test/human/admin", "/", 0, false),
        ("URI:spiffe://vault.test/pipeline/etl,DNS:localhost", "/", 0, false),
        ("", "/CN=admin", 0, false),
        ("", "/", 59, false),
        ("", "/", 30 * day + 1, false),
        ("", "/", -1, false),
    ] {
        let csr_pem = String::from_utf8(openssl.csr(names, &["-subj", subject])).unwrap();
        let name = "etl".to_owned();
        let request = IssueLoginCertificateRequest {
            name,
            csr_pem,
            ttl_s,
            ..IssueLoginCertificateRequest::default()
        };
        let issued = client.issue_login_certificate(request).await;
        match issued {
            Ok(issued) => {
                assert!(fits, "{names} {subject} {ttl_s}");
                let issued = issued.into_inner();
                assert_eq!(issued.spiffe_id, "spiffe://vault.test/pipeline/etl");
                openssl.write("leaf.pem", &issued.certificate_pem);
                openssl.write("ca.pem", &issued.chain_pem);
                openssl.run(&["verify", "-CAfile", "ca.pem", "leaf.pem"]);
            }
            Err(status) => {
                assert!(!fits, "{names} {subject} {ttl_s}: {status}");
                assert_eq!(status.code(), Code::InvalidArgument);
            }
        }
    }
}

/// A second vault beside the fixture's, founded with a bootstrap certificate.
async fn bootstrapped(f: &Fixture) -> (TempDir, Node, Channel) {
    let dir = TempDir::new().unwrap();
    let hsm = strongroom::hsm::MemoryHsm::new(pin());
    let parts = Ingredients {
        location: location(Backend::Sqlite, dir.path()).await,
        hsm: std::sync::Arc::new(hsm),
        ..f.parts.clone()
    };
    let (key_pem, request) = csr();
    let founding = Founding {
        trust_domain: "vault.test".parse().unwrap(),
        origin: "vault.test/log".to_owned(),
        dev: false,
        first: First::Bootstrap(Request::parse(request.as_bytes()).unwrap()),
    };
    let founded = found(&parts, &founding, pin()).await.unwrap();
    let node = Node::start(parts, pin()).await.unwrap();
    let login = Login { key_pem, certificate_pem: founded.certificate_pem };
    let channel = connect(&node, &login).await;
    (dir, node, channel)
}

/// Connects to a vault with its own root.
async fn connect(node: &Node, login: &Login) -> Channel {
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&node.root_pem))
        .identity(Identity::from_pem(&login.certificate_pem, &login.key_pem))
        .domain_name("localhost");
    let uri = format!("https://127.0.0.1:{}", node.grpc_addr.port());
    Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_certificate_signs_one_first_login_of_a_human_it_registered() {
    let f = Fixture::new().await;
    let (_dir, node, bootstrap) = bootstrapped(&f).await;
    let request = CreateIdentityRequest {
        name: "erin".to_owned(),
        kind: "human".to_owned(),
        purpose: "administers".to_owned(),
        tier: "high".to_owned(),
        ..CreateIdentityRequest::default()
    };
    IdentityServiceClient::new(bootstrap.clone()).create_identity(request).await.unwrap();
    for name in ["bootstrap", "nobody"] {
        let refused = login_over(bootstrap.clone(), name).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}");
    }
    // Of many at once exactly one is the first.
    let calls = (0..8).map(|_| tokio::spawn(login_over(bootstrap.clone(), "erin")));
    let mut logins = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        logins.extend(call.await.unwrap().ok());
    }
    assert_eq!(logins.len(), 1);
    let refused = login_over(bootstrap.clone(), "erin").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let erin = connect(&node, &logins[0]).await;
    assert_eq!(who(erin.clone()).await.unwrap(), "erin");
    let again = login_over(erin, "erin").await;
    assert!(again.is_ok(), "an administrator needs the bootstrap certificate no more");
    drop(bootstrap);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_login_is_issued_while_rights_change_around_it() {
    let f = Fixture::new().await;
    let (_dir, node, bootstrap) = bootstrapped(&f).await;
    let create = |name: String| {
        let mut client = IdentityServiceClient::new(bootstrap.clone());
        let request = CreateIdentityRequest {
            name,
            kind: "human".to_owned(),
            purpose: "administers".to_owned(),
            tier: "high".to_owned(),
            ..CreateIdentityRequest::default()
        };
        async move { client.create_identity(request).await.unwrap() }
    };
    create("erin".to_owned()).await;
    // Each registration moves the authority epoch, and so asks what the login stood on.
    let busy = async {
        for nth in 0.. {
            create(format!("human{nth}")).await;
        }
    };
    let login = tokio::select! {
        login = login_over(bootstrap.clone(), "erin") => login.unwrap(),
        () = busy => unreachable!(),
    };
    assert_eq!(who(connect(&node, &login).await).await.unwrap(), "erin");
    drop(bootstrap);
    node.stop().await.unwrap();
}
