//! Certificates before the real OpenSSL: chains verify, good requests pass, bad ones do not.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use strongroom::Error;
use strongroom::engines::pki::{
    Authority, Deployment, Founder, GeneratedKey, KeyType, MAX_CSR_BYTES, Profile, Request, Role,
    SubjectName, Template,
};
use strongroom::hsm::memory::MemoryFault;
use strongroom::hsm::{Hsm as _, KeyKind};
use strongroom::types::Serial;
use tempfile::TempDir;

use crate::authorities::{Authorities, serial};

/// A directory and the `openssl` command in it.
pub(crate) struct OpenSsl(TempDir);

impl OpenSsl {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn attempt(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let (done, text) = self.attempt(arguments);
        assert!(done, "openssl {arguments:?}: {text}");
        text
    }

    /// Makes `key.pem`.
    pub(crate) fn key(&self, kind: &[&str]) {
        self.run(&[&["genpkey", "-out", "key.pem"], kind].concat());
    }

    /// Makes a request for `key.pem` with alternative names and more arguments.
    pub(crate) fn csr(&self, names: &str, more: &[&str]) -> Vec<u8> {
        self.csr_with(names, "", more)
    }

    /// Makes a request with another extension beside the names.
    pub(crate) fn csr_with(&self, names: &str, extension: &str, more: &[&str]) -> Vec<u8> {
        let names =
            if names.is_empty() { String::new() } else { format!("subjectAltName={names}") };
        let config = format!(
            "[req]\ndistinguished_name=dn\nprompt=no\nstring_mask=utf8only\n[dn]\nCN=x\n\
             [extensions]\n{extension}\n{names}\n"
        );
        self.write("req.cnf", config);
        let bare = names.is_empty() && extension.is_empty();
        let extended: &[&str] = if bare { &[] } else { &["-reqexts", "extensions"] };
        let fixed = &["req", "-new", "-config", "req.cnf", "-key", "key.pem", "-out", "csr.pem"];
        let subject: &[&str] = if more.contains(&"-subj") { &[] } else { &["-subj", "/"] };
        self.run(&[&fixed[..], extended, subject, more].concat());
        fs::read(self.path("csr.pem")).unwrap()
    }
}

pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub(crate) const RSA_2048: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

fn profile() -> Profile {
    serde_json::from_str(
        r#"{"dns_names": ["svc.a.example", "*.b.example"], "ip_ranges": ["192.0.2.0/24"],
            "uris": ["spiffe://other.example/**"], "email_domains": ["a.example"],
            "key_types": ["p256", "p384", "ed25519", "rsa"], "usages": ["server", "client"],
            "default_ttl_s": 3600, "max_ttl_s": 86400}"#,
    )
    .unwrap()
}

pub(crate) const NAMES: &str = "DNS:svc.a.example,DNS:x.b.example,IP:192.0.2.7,IP:192.0.2.8,\
                     URI:spiffe://other.example/a/b,email:me@a.example";

/// What a request is refused with, by the parser or by the profile.
fn refusal(authorities: &Authorities, csr: &[u8]) -> Option<String> {
    let checked = Request::parse(csr)
        .and_then(|request| profile().check(&request, &[], None, &authorities.trust_domain));
    checked.err().map(|error| error.to_string())
}

fn write_chain(openssl: &OpenSsl, authorities: &Authorities) {
    openssl.write("root.pem", authorities.root.pem());
    openssl.write("issuing.pem", authorities.issuing.pem());
    openssl.write("login.pem", authorities.login.pem());
}

#[tokio::test]
async fn openssl_verifies_a_certificate_for_each_kind_of_key() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    write_chain(&openssl, &authorities);
    for (kind, more) in [
        (P256, &[][..]),
        (P384, &["-sha384"]),
        (&["-algorithm", "ED25519"], &[]),
        (RSA_2048, &["-sha256"]),
        (RSA_2048, &["-sha512"]),
    ] {
        openssl.key(kind);
        let csr = openssl.csr(NAMES, &[more, &["-subj", "/CN=svc.a.example"]].concat());
        let request = Request::parse(&csr).unwrap();
        openssl.run(&["req", "-in", "csr.pem", "-outform", "DER", "-out", "csr.der"]);
        let der = fs::read(openssl.path("csr.der")).unwrap();
        assert_eq!(Request::parse(&der).unwrap(), request);
        let template = profile().check(&request, &[], None, &authorities.trust_domain).unwrap();
        let issued = authorities.issue(&authorities.issuing, &template).await.unwrap();
        openssl.write("leaf.pem", issued.pem());
        for purpose in ["sslserver", "sslclient"] {
            let verify = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root.pem"];
            openssl.run(&[&verify[..], &["-untrusted", "issuing.pem", "leaf.pem"]].concat());
        }
        let text = openssl.run(&["x509", "-in", "leaf.pem", "-noout", "-text"]);
        for part in [
            "CA:FALSE",
            "DNS:svc.a.example, DNS:x.b.example, IP Address:192.0.2.7",
            "X509v3 Subject Alternative Name: critical",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "Digital Signature\n",
            "ecdsa-with-SHA256",
            "Issuer: CN = Strongroom Issuing CA 0123abcd (development)",
        ] {
            assert!(text.contains(part), "{kind:?}: {part}: {text}");
        }
        let key = openssl.run(&["pkey", "-in", "key.pem", "-pubout"]);
        assert_eq!(openssl.run(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"]), key);
    }
}

#[tokio::test]
async fn openssl_verifies_a_key_that_was_generated() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    write_chain(&openssl, &authorities);
    for key_type in [KeyType::P256, KeyType::P384, KeyType::Ed25519] {
        let key = GeneratedKey::generate(key_type).unwrap();
        openssl.write("key.pem", key.private_pem.expose());
        let names: Vec<SubjectName> = vec!["dns:svc.a.example".parse().unwrap()];
        let request = Request::of_key(key.public);
        let template = profile().check(&request, &names, None, &authorities.trust_domain).unwrap();
        let issued = authorities.issue(&authorities.issuing, &template).await.unwrap();
        openssl.write("leaf.pem", issued.pem());
        openssl.run(&["verify", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"]);
        let public = openssl.run(&["pkey", "-in", "key.pem", "-pubout"]);
        assert_eq!(openssl.run(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"]), public);
    }
}

#[tokio::test]
async fn login_certificates_verify_under_the_login_authority_alone() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    write_chain(&openssl, &authorities);
    let login = authorities.log_in_as("etl").await;
    openssl.write("leaf.pem", login.certificate.pem());
    openssl.run(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-CAfile",
        "login.pem",
        "leaf.pem",
    ]);
    let text = openssl.run(&["x509", "-in", "leaf.pem", "-noout", "-text"]);
    assert!(text.contains("URI:spiffe://vault.example/pipeline/etl\n"), "{text}");
    assert!(text.contains("TLS Web Client Authentication\n"), "{text}");
    let wrong = ["verify", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"];
    assert!(!openssl.attempt(&wrong).0);
    let server = ["verify", "-purpose", "sslserver", "-CAfile", "login.pem", "leaf.pem"];
    assert!(!openssl.attempt(&server).0);
}

#[tokio::test]
async fn authorities_are_marked_bounded_and_load_again() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    write_chain(&openssl, &authorities);
    for (file, parts) in [
        ("root.pem", ["ecdsa-with-SHA384", "CA:TRUE, pathlen:2", "Root CA 0123abcd (development)"]),
        ("issuing.pem", ["ecdsa-with-SHA384", "CA:TRUE, pathlen:0", "Issuing CA 0123abcd (dev"]),
        (
            "login.pem",
            ["ecdsa-with-SHA256", "CA:TRUE, pathlen:0", "Login CA 0123abcd (development)"],
        ),
    ] {
        let text = openssl.run(&["x509", "-in", file, "-noout", "-text"]);
        assert!(text.contains("Certificate Sign, CRL Sign"), "{text}");
        for part in parts {
            assert!(text.contains(part), "{file}: {part}: {text}");
        }
    }
    let Authorities { root, issuing, login, keys: [root_key, issuing_key, login_key], .. } =
        &authorities;
    let domain = &authorities.trust_domain;
    let load = |role, key, der: &[u8], above| Authority::load(role, key, der, above, domain);
    assert!(load(Role::Root, root_key, root.certificate_der(), None).is_ok());
    assert!(load(Role::Login, login_key, login.certificate_der(), None).is_ok());
    assert!(load(Role::Issuing, issuing_key, issuing.certificate_der(), Some(root)).is_ok());
    let mut forged = root.certificate_der().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for (claim, refused) in [
        ("another key", load(Role::Root, login_key, root.certificate_der(), None)),
        (
            "issuing without a root",
            load(Role::Issuing, issuing_key, issuing.certificate_der(), None),
        ),
        ("another root", load(Role::Issuing, issuing_key, issuing.certificate_der(), Some(login))),
        ("a forged signature", load(Role::Root, root_key, &forged, None)),
        ("cut short", load(Role::Root, root_key, &forged[..forged.len() - 1], None)),
    ] {
        assert!(refused.is_err(), "{claim}");
    }
}

#[tokio::test]
async fn a_production_authority_is_not_marked() {
    let authorities = Authorities::new().await;
    let key = authorities.token.create_key("real", KeyKind::EcdsaP384).await.unwrap();
    let founder = Founder {
        hsm: &authorities.token,
        vault: "0123abcd",
        deployment: Deployment::Production,
        trust_domain: &authorities.trust_domain,
        now: authorities.now,
    };
    let root = founder.root(&key, &serial()).await.unwrap();
    let marked = |der: &[u8]| der.windows(11).any(|window| window == b"development");
    assert!(!marked(root.certificate_der()));
    assert!(marked(authorities.root.certificate_der()));
}

#[tokio::test]
async fn requests_that_ask_for_more_than_names_are_refused() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    openssl.key(P256);
    for extension in [
        "basicConstraints=critical,CA:TRUE",
        "basicConstraints=CA:FALSE",
        "keyUsage=keyCertSign",
        "extendedKeyUsage=codeSigning",
        "nameConstraints=permitted;DNS:example.com",
        "certificatePolicies=1.2.3.4",
        "1.2.3.4=ASN1:UTF8String:x",
    ] {
        for names in ["", NAMES] {
            let csr = openssl.csr_with(names, extension, &[]);
            let refused = refusal(&authorities, &csr).unwrap();
            assert!(refused.contains("more than names"), "{extension}: {refused}");
        }
    }
    for subject in ["/O=Other", "/CN=svc.a.example/O=Other", "/CN=svc.a.example/CN=x.b.example"] {
        let refused = refusal(&authorities, &openssl.csr(NAMES, &["-subj", subject])).unwrap();
        assert!(refused.contains("subject"), "{subject}: {refused}");
    }
    let refused = refusal(&authorities, &openssl.csr(NAMES, &["-subj", "/CN=root"])).unwrap();
    assert!(refused.contains("common name"), "{refused}");
}

#[tokio::test]
async fn names_beyond_the_role_are_refused_wherever_they_stand() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    openssl.key(P256);
    let allowed: Vec<String> = (0..60).map(|i| format!("DNS:h{i}.b.example")).collect();
    assert_eq!(refusal(&authorities, &openssl.csr(&allowed.join(","), &[])), None);
    for foreign in ["DNS:evil.test", "URI:spiffe://vault.example/human/admin"] {
        for position in [0, 30, 60] {
            let mut names = allowed.clone();
            names.insert(position, foreign.to_owned());
            let refused = refusal(&authorities, &openssl.csr(&names.join(","), &[])).unwrap();
            assert!(refused.contains("does not allow the name"), "{foreign}: {refused}");
        }
    }
    for name in [
        "DNS:*.b.example",
        "DNS:svc.A.example",
        "DNS:svc.a.example.",
        "DNS:svc.a.example,DNS:svc.a.example",
        "IP:10.0.0.1",
        "URI:http://other.example/a",
        "email:me@evil.test",
        "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:admin@a.example",
        "RID:1.2.3.4",
        "dirName:dn",
    ] {
        assert!(refusal(&authorities, &openssl.csr(name, &[])).is_some(), "{name}");
        let hidden = format!("{NAMES},{name}");
        assert!(refusal(&authorities, &openssl.csr(&hidden, &[])).is_some(), "{hidden}");
    }
    let many: Vec<String> = (0..101).map(|i| format!("DNS:h{i}.b.example")).collect();
    assert!(refusal(&authorities, &openssl.csr(&many.join(","), &[])).unwrap().contains("100"));
}

#[tokio::test]
async fn weak_and_mismatched_keys_are_refused() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    let rsa_1024 = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"][..];
    let exponent_3 = &[RSA_2048, &["-pkeyopt", "rsa_keygen_pubexp:3"]].concat();
    let p521 = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"][..];
    let secp256k1 = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"][..];
    let explicit = &[P256, &["-pkeyopt", "ec_param_enc:explicit"]].concat();
    let pss = &["-sigopt", "rsa_padding_mode:pss"][..];
    for (kind, more, part) in [
        (rsa_1024, &[][..], "2048"),
        (exponent_3, &[], "exponent"),
        (RSA_2048, &["-sha1"], "does not fit"),
        (RSA_2048, pss, "does not fit"),
        (P256, &["-sha1"], "does not fit"),
        (P256, &["-sha384"], "does not fit"),
        (P384, &["-sha256"], "does not fit"),
        (P384, &["-sha512"], "does not fit"),
        (p521, &["-sha512"], "a key is"),
        (secp256k1, &[], "a key is"),
        (explicit, &[], "a key is"),
        (&["-algorithm", "ED448"], &[], "a key is"),
    ] {
        openssl.key(kind);
        let refused = refusal(&authorities, &openssl.csr(NAMES, more)).unwrap();
        assert!(refused.contains(part), "{kind:?} {more:?}: {refused}");
    }
}

#[tokio::test]
async fn altered_and_malformed_requests_are_refused() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    openssl.key(P256);
    let pem = openssl.csr(NAMES, &[]);
    openssl.run(&["req", "-in", "csr.pem", "-outform", "DER", "-out", "csr.der"]);
    let der = fs::read(openssl.path("csr.der")).unwrap();
    assert_eq!(refusal(&authorities, &der), None);
    // Each byte in turn: nothing passes but what was signed.
    for position in 0..der.len() {
        let mut altered = der.clone();
        altered[position] ^= 1;
        assert!(refusal(&authorities, &altered).is_some(), "byte {position}");
    }
    let refused = refusal(&authorities, &request_with_nul()).unwrap();
    assert!(refused.contains("DNS name"), "{refused}");
    let huge = "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned() + &"A".repeat(856_000);
    for (what, input) in [
        ("nothing", Vec::new()),
        ("856 kB of PEM", huge.clone().into_bytes()),
        ("one byte too many", vec![0x30; MAX_CSR_BYTES + 1]),
        ("all length", vec![0x30; MAX_CSR_BYTES]),
        ("PEM without an end", huge.as_bytes()[..MAX_CSR_BYTES].to_vec()),
        ("two blocks", [pem.clone(), pem.clone()].concat()),
        ("its private key", [pem.clone(), fs::read(openssl.path("key.pem")).unwrap()].concat()),
        ("a byte after it", [&der[..], &[0]].concat()),
        ("cut short", der[..der.len() - 1].to_vec()),
        ("a certificate", authorities.root.pem().into_bytes()),
        ("a certificate as DER", authorities.root.certificate_der().to_vec()),
    ] {
        let began = Instant::now();
        assert!(refusal(&authorities, &input).is_some(), "{what}");
        assert!(began.elapsed() < Duration::from_secs(1), "{what} takes long");
    }
}

/// A request with a NUL inside its DNS name and a good signature.
fn request_with_nul() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = "svc.a.example\0.evil.test".try_into().unwrap();
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn login_requests_carry_their_own_uri_or_nothing() {
    let authorities = Authorities::new().await;
    let openssl = OpenSsl::new();
    openssl.key(P256);
    let id = "spiffe://vault.example/pipeline/etl".parse().unwrap();
    let template = |csr: &[u8]| Template::login(&Request::parse(csr).unwrap(), &id, None);
    for (names, subject, fits) in [
        ("", "/", true),
        ("", "/CN=etl", true),
        ("URI:spiffe://vault.example/pipeline/etl", "/", true),
        ("", "/CN=admin", false),
        ("URI:spiffe://vault.example/human/admin", "/", false),
        ("URI:spiffe://vault.example/pipeline/etl,DNS:localhost", "/", false),
        ("DNS:localhost", "/CN=etl", false),
    ] {
        let csr = openssl.csr(names, &["-subj", subject]);
        assert_eq!(template(&csr).is_ok(), fits, "{names} {subject}");
    }
    let login = template(&openssl.csr("", &[])).unwrap();
    assert!(authorities.issue(&authorities.login, &login).await.is_ok());
    // Whoever reached the HSM now would be told that it is logged out.
    authorities.token.set_fault(Some(MemoryFault::LoggedOut));
    for wrong in [&authorities.issuing, &authorities.root] {
        assert_eq!(authorities.issue(wrong, &login).await, Err(Error::Internal));
    }
    assert_eq!(authorities.issue(&authorities.login, &login).await, Err(Error::Sealed));
    authorities.token.set_fault(Some(MemoryFault::Unavailable));
    let unavailable = authorities.issue(&authorities.login, &login).await.unwrap_err();
    assert_eq!(unavailable.reason(), "UNAVAILABLE");
}

#[test]
fn serials_are_long_positive_and_never_the_same() {
    let serials: std::collections::HashSet<Serial> = (0..10_000).map(|_| serial()).collect();
    assert_eq!(serials.len(), 10_000);
    for serial in serials {
        assert!((0x40..=0x7f).contains(&serial.as_bytes()[0]));
    }
}
