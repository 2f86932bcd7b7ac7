//! What a role, a grant or a request does not allow is refused and leaves no row.

use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::{
    AddGrantRequest, IssueCertificateRequest, ListCertificateRolesRequest,
    PutCertificateRoleRequest, SignCertificateRequest, SubjectNames,
};
use tonic::Code;

use super::{Client, World, enrol, grant, order, suspend, web};
use crate::support::node::{Backend, csr};
use crate::x509::{NAMES, OpenSsl, P256, P384, RSA_2048};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_change_nothing() {
    let w = World::on(Backend::Sqlite).await;
    let openssl = OpenSsl::new();
    openssl.key(P256);
    let mut bad = Vec::new();
    for extension in [
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=keyCertSign",
        "extendedKeyUsage=codeSigning",
        "nameConstraints=permitted;DNS:example.com",
        "1.2.3.4=ASN1:UTF8String:x",
    ] {
        bad.push((extension.to_owned(), openssl.csr_with(NAMES, extension, &[])));
    }
    for subject in ["/O=Other", "/CN=root"] {
        bad.push((subject.to_owned(), openssl.csr(NAMES, &["-subj", subject])));
    }
    let allowed: Vec<String> = (0..60).map(|i| format!("DNS:h{i}.b.example")).collect();
    for foreign in ["DNS:evil.test", "URI:spiffe://vault.test/human/admin", "IP:10.0.0.1"] {
        for position in [0, 30, 60] {
            let mut names = allowed.clone();
            names.insert(position, foreign.to_owned());
            bad.push((format!("{foreign} at {position}"), openssl.csr(&names.join(","), &[])));
        }
    }
    for name in ["DNS:*.b.example", "RID:1.2.3.4", "email:me@evil.test", ""] {
        bad.push((name.to_owned(), openssl.csr(name, &[])));
    }
    bad.push(("sha1".to_owned(), openssl.csr(NAMES, &["-sha1"])));
    let good = openssl.csr(NAMES, &[]);
    let mut text = String::from_utf8(good.clone()).unwrap();
    text.push_str(&String::from_utf8(good).unwrap());
    bad.push(("two blocks".to_owned(), text.into_bytes()));
    bad.push(("nothing".to_owned(), Vec::new()));
    bad.push(("too large".to_owned(), "A".repeat(856_000).into_bytes()));
    for (kind, more) in [
        (&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"][..], &[][..]),
        (RSA_2048, &["-sha1"]),
        (P384, &["-sha256"]),
        (&["-algorithm", "ED448"], &[]),
    ] {
        openssl.key(kind);
        bad.push((format!("{kind:?}"), openssl.csr(NAMES, more)));
    }
    for (what, csr_pem) in bad {
        let csr_pem = String::from_utf8(csr_pem).unwrap();
        let request = SignCertificateRequest { names: None, ..order(&csr_pem) };
        let refused = w.etl.clone().sign_certificate(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
    }
    assert_eq!(w.all().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_times_in_the_call_are_held_to_the_role() {
    let w = World::on(Backend::Sqlite).await;
    let (_, csr_pem) = csr();
    let dns = |names: &[&str]| {
        let dns = names.iter().map(|name| (*name).to_owned()).collect();
        Some(SubjectNames { dns, ..SubjectNames::default() })
    };
    let uri = SubjectNames {
        uris: vec!["spiffe://vault.test/human/admin".to_owned()],
        ..SubjectNames::default()
    };
    let base = || order(&csr_pem);
    for request in [
        SignCertificateRequest { names: dns(&["evil.test", "svc.a.example"]), ..base() },
        SignCertificateRequest { names: dns(&["svc.a.example", "evil.test"]), ..base() },
        SignCertificateRequest { names: dns(&["svc.a.example", "svc.a.example"]), ..base() },
        SignCertificateRequest { names: dns(&["svc.a.example\0.evil.test"]), ..base() },
        SignCertificateRequest { names: dns(&[]), ..base() },
        SignCertificateRequest { names: Some(uri), ..base() },
        SignCertificateRequest { ttl_s: 86_401, ..base() },
        SignCertificateRequest { ttl_s: 59, ..base() },
        SignCertificateRequest { ttl_s: -1, ..base() },
        SignCertificateRequest { ttl_s: i64::MAX, ..base() },
        SignCertificateRequest { role: "Web".to_owned(), ..base() },
        SignCertificateRequest { role: "a/b".to_owned(), ..base() },
        SignCertificateRequest { idempotency_key: "short".to_owned(), ..base() },
    ] {
        let refused = w.etl.clone().sign_certificate(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}: {refused}");
    }
    for key_type in ["rsa", "P256", "dsa"] {
        let request = IssueCertificateRequest {
            role: "web".to_owned(),
            names: dns(&["svc.a.example"]),
            key_type: key_type.to_owned(),
            ..IssueCertificateRequest::default()
        };
        let refused = w.etl.clone().issue_certificate(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{key_type}: {refused}");
    }
    assert_eq!(w.all().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_name_our_trust_domain_or_make_no_sense_are_refused() {
    let mut w = World::on(Backend::Sqlite).await;
    let list = |item: &str| vec![item.to_owned()];
    for request in [
        PutCertificateRoleRequest { allowed_uris: list("spiffe://vault.test/**"), ..web() },
        PutCertificateRoleRequest { allowed_uris: list("spiffe://vault.test/human/a"), ..web() },
        PutCertificateRoleRequest { allowed_dns: list("Svc.A.example"), ..web() },
        PutCertificateRoleRequest { allowed_ips: list("10.0.0.1/8"), ..web() },
        PutCertificateRoleRequest { key_types: list("dsa"), ..web() },
        PutCertificateRoleRequest { usages: list("code_signing"), ..web() },
        PutCertificateRoleRequest { key_uses: list("key_cert_sign"), ..web() },
        PutCertificateRoleRequest { max_ttl_s: 3_599, ..web() },
        PutCertificateRoleRequest { max_ttl_s: i64::MAX, ..web() },
        PutCertificateRoleRequest { default_ttl_s: -1, ..web() },
        PutCertificateRoleRequest { name: "certificates".to_owned(), ..web() },
        PutCertificateRoleRequest { name: "We b".to_owned(), ..web() },
        PutCertificateRoleRequest {
            name: "new".to_owned(),
            ..PutCertificateRoleRequest::default()
        },
    ] {
        let refused = w.admin.put_role(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}: {refused}");
    }
    let roles = w
        .admin
        .list_roles(ListCertificateRolesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .roles;
    assert_eq!((roles.len(), roles[0].changed_at_ms), (1, roles[0].created_at_ms));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_grant_on_this_role_signs_and_its_limit_caps_the_time() {
    let mut w = World::on(Backend::Sqlite).await;
    let (_, csr_pem) = csr();
    let other = PutCertificateRoleRequest { name: "other".to_owned(), ..web() };
    w.admin.put_role(other).await.unwrap();
    for role in ["other", "nowhere"] {
        let request = SignCertificateRequest { role: role.to_owned(), ..order(&csr_pem) };
        let refused = w.etl.clone().sign_certificate(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}");
    }
    let mut admin = w.admin.clone();
    let refused = admin.sign_certificate(order(&csr_pem)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "administrators need a grant too");
    let refused = w.etl.put_role(web()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "machines never administer");
    assert_eq!(w.all().await, []);

    let mut brief = Client::new(enrol(&w.f, "brief", "service", "carol").await);
    grant(&w.f, "brief", "pki.sign", "pki/*", 600).await;
    let nowhere = SignCertificateRequest { role: "nowhere".to_owned(), ..order(&csr_pem) };
    assert_eq!(brief.sign_certificate(nowhere).await.unwrap_err().code(), Code::NotFound);
    let longer = SignCertificateRequest { ttl_s: 601, ..order(&csr_pem) };
    let refused = brief.sign_certificate(longer).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "what is asked for is not cut");
    let signed = brief.sign_certificate(order(&csr_pem)).await.unwrap().into_inner();
    let signed = signed.certificate.unwrap();
    let life = signed.expires_at_ms - signed.created_at_ms;
    assert!((599_000..=600_000).contains(&life), "{life}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_ends_with_the_grant_that_allowed_it_whatever_was_asked_for() {
    let w = World::on(Backend::Sqlite).await;
    let mut brief = Client::new(enrol(&w.f, "brief", "service", "carol").await);
    let mut grants = GrantServiceClient::new(w.f.connect(&w.f.admin).await);
    let mut ends = Vec::new();
    for action in ["pki.sign", "pki.issue"] {
        let with = AddGrantRequest {
            subject: Some(Subject::Identity("brief".to_owned())),
            action: action.to_owned(),
            resource: "pki/web".to_owned(),
            ttl_s: 900,
            ..AddGrantRequest::default()
        };
        let grant = grants.add_grant(with).await.unwrap().into_inner().grant.unwrap();
        ends.push(grant.expires_at_ms);
    }
    // The role would allow more, asked for or not.
    for ttl_s in [0, 1_800] {
        let request = SignCertificateRequest { ttl_s, ..order(&csr().1) };
        let signed = brief.sign_certificate(request).await.unwrap().into_inner();
        let request = IssueCertificateRequest {
            role: "web".to_owned(),
            names: order("").names,
            ttl_s,
            ..IssueCertificateRequest::default()
        };
        let issued = brief.issue_certificate(request).await.unwrap().into_inner();
        let made = [
            (signed.certificate, signed.certificate_pem),
            (issued.certificate, issued.certificate_pem),
        ];
        for ((certificate, certificate_pem), end) in made.into_iter().zip(&ends) {
            let said = certificate.unwrap().expires_at_ms;
            assert!((end - 2_000..=*end).contains(&said), "{said}, not {end}");
            let pem = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).unwrap().1;
            let not_after = pem.parse_x509().unwrap().validity().not_after.timestamp();
            assert_eq!(not_after * 1_000, said, "the certificate says so itself");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_whose_owner_is_suspended_gets_no_certificate() {
    let w = World::on(Backend::Sqlite).await;
    let (_, csr_pem) = csr();
    w.sign(&csr_pem).await.unwrap();
    suspend(&w.f, "carol").await;
    let refused = w.sign(&csr_pem).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(w.all().await.len(), 1);
}
