//! The real program, killed at any instant of any rotation: what was acknowledged opens.
//!
//! `STRONGROOM_KILLS` says how often; 20 times where nobody says.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use strongroom::proto::authority_service_client::AuthorityServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::root_service_client::RootServiceClient;
use strongroom::proto::{
    GetAuthoritiesRequest, GetAuthorityRequest, GetRootRequest, IssueLoginCertificateRequest,
    PutSecretRequest, RetireAuthorityRequest, RetireRootRequest, RotateAuthorityRequest,
    RotateIdentityKeyRequest, RotateRootRequest, SignCertificateRequest, SubjectNames,
};
use strongroom::types::{Entropy as _, SystemEntropy};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::logins::registration;
use crate::support::node::csr;
use crate::support::program::{Running, as_admin, dev, text};
use crate::support::target::until;
use crate::x509::OpenSsl;
use crate::{keys, secrets};

const KEY: &str = "kill/key";
/// Authorities that are rotated: the login CA is left, by which the tests log in.
const AUTHORITIES: [&str; 2] = ["root", "issuing"];

/// What was answered: secrets with their values, and ciphertexts.
#[derive(Debug, Default)]
struct Answered {
    secrets: Vec<String>,
    ciphertexts: Vec<Vec<u8>>,
    rotations: usize,
}

type Known = Arc<Mutex<Answered>>;

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes) % below
}

fn authority() -> String {
    let some = random(2);
    AUTHORITIES[usize::try_from(some).unwrap()].to_owned()
}

fn kills() -> usize {
    std::env::var("STRONGROOM_KILLS").map_or(20, |kills| kills.parse().expect("a number of kills"))
}

/// Connects as the administrator of a development vault, who holds ceremonies alone.
async fn connect(to: &Running) -> Channel {
    let read = |what: &str| std::fs::read_to_string(to.said(what)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca_file")))
        .identity(Identity::from_pem(read("admin_cert_file"), read("admin_key_file")))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", to.said("grpc_addr"))).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

fn ask(server: &Running, line: &str) {
    let done = as_admin(server, line);
    assert!(done.status.success(), "{line}: {}", text(&done.stderr));
}

/// An active machine, under whose key secrets are written.
async fn owner(alice: &Channel, name: &str) {
    let mut identities = IdentityServiceClient::new(alice.clone());
    identities.create_identity(registration(name, "pipeline", "admin")).await.unwrap();
    let (name, csr_pem) = (name.to_owned(), csr().1);
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    identities.issue_login_certificate(request).await.unwrap();
}

/// Writes secrets until the server is gone.
async fn write(alice: Channel, owner: String, known: Known) {
    let mut client = secrets::client(&alice);
    for n in 0.. {
        let path = format!("kill/{owner}/{n}");
        let request = PutSecretRequest {
            value: path.clone().into_bytes(),
            path: path.clone(),
            owner: owner.clone(),
            ..Default::default()
        };
        match client.put_secret(request).await {
            Ok(_) => known.lock().secrets.push(path),
            Err(refused) if refused.code() == Code::Aborted => {}
            Err(_gone) => return,
        }
    }
}

/// Encrypts until the server is gone.
async fn encrypt(alice: Channel, known: Known) {
    let mut client = keys::client(&alice);
    while let Ok(ciphertext) = keys::encrypt(&mut client, KEY, b"canary", b"").await {
        known.lock().ciphertexts.push(ciphertext);
    }
}

/// Rotates and retires, in any order, until the server is gone.
async fn rotate(alice: Channel, owner: String, known: Known) {
    let mut roots = RootServiceClient::new(alice.clone());
    let mut identities = IdentityServiceClient::new(alice.clone());
    let mut authorities = AuthorityServiceClient::new(alice.clone());
    let mut named = keys::client(&alice);
    loop {
        let done = match random(6) {
            0 => roots.rotate_root(RotateRootRequest::default()).await.map(drop),
            1 => {
                let request =
                    RotateIdentityKeyRequest { name: owner.clone(), ..Default::default() };
                identities.rotate_identity_key(request).await.map(drop)
            }
            2 => match keys::rotate(&mut named, KEY, 0).await {
                Ok(_) => Ok(()),
                Err(code) => Err(tonic::Status::new(code, "")),
            },
            3 => {
                let request = RotateAuthorityRequest { name: authority(), ..Default::default() };
                authorities.rotate_authority(request).await.map(drop)
            }
            4 => retire_authority(&mut authorities).await,
            _ => retire(&mut roots).await,
        };
        match done.map_err(|refused| refused.code()) {
            Ok(()) => known.lock().rotations += 1,
            // Too many versions, one that is still used, or somebody else was first.
            Err(Code::FailedPrecondition | Code::Aborted | Code::NotFound) => {}
            Err(_gone) => return,
        }
    }
}

/// Retires the oldest version of the root key that wraps nothing.
async fn retire(roots: &mut RootServiceClient<Channel>) -> Result<(), tonic::Status> {
    let shown = roots.get_root(GetRootRequest {}).await?.into_inner().root.unwrap();
    let spent = |it: &&strongroom::proto::RootVersion| it.state == "retiring" && it.wraps == 0;
    match shown.versions.iter().rev().find(spent) {
        Some(old) => {
            let request = RetireRootRequest { version: old.version };
            roots.retire_root(request).await.map(drop)
        }
        None => Ok(()),
    }
}

/// Retires the oldest version of an authority, whatever hangs on it.
async fn retire_authority(
    authorities: &mut AuthorityServiceClient<Channel>,
) -> Result<(), tonic::Status> {
    let name = authority();
    let shown = authorities.get_authority(GetAuthorityRequest { name: name.clone() }).await?;
    let shown = shown.into_inner().authority.unwrap();
    match shown.versions.iter().rev().find(|it| it.state == "retiring") {
        Some(old) => {
            let request = RetireAuthorityRequest { name, version: old.version, force: true };
            authorities.retire_authority(request).await.map(drop)
        }
        None => Ok(()),
    }
}

/// Opens the newest of what was answered, some of the rest, or all.
async fn opens(alice: &Channel, known: &Known, all: bool) {
    let (paths, ciphertexts) = {
        let known = known.lock();
        (known.secrets.clone(), known.ciphertexts.clone())
    };
    let picked = |len: usize| -> Vec<usize> {
        if all {
            return (0..len).collect();
        }
        let most = u64::try_from(len.max(1)).unwrap();
        let any = (0..20).map(|_| usize::try_from(random(most)).unwrap());
        any.chain(len.saturating_sub(40)..len).filter(|n| *n < len).collect()
    };
    let mut client = secrets::client(alice);
    for n in picked(paths.len()) {
        let path = &paths[n];
        let read = secrets::get(&mut client, path, 0).await;
        assert_eq!(read, Ok(path.clone().into_bytes()), "{path}");
    }
    let mut client = keys::client(alice);
    for n in picked(ciphertexts.len()) {
        let (opened, _) = keys::decrypt(&mut client, KEY, &ciphertexts[n], b"").await.unwrap();
        assert_eq!(opened, b"canary");
    }
}

/// Has a certificate signed that leads to the root which stands.
async fn issues(alice: &Channel) {
    let mut pki = PkiServiceClient::new(alice.clone());
    let request = SignCertificateRequest {
        role: "kill".to_owned(),
        csr_pem: csr().1,
        names: Some(SubjectNames { dns: vec!["a.example".to_owned()], ..Default::default() }),
        ..Default::default()
    };
    let signed = pki.sign_certificate(request).await.unwrap().into_inner();
    let there = pki.get_authorities(GetAuthoritiesRequest {}).await.unwrap().into_inner();
    let openssl = OpenSsl::new();
    openssl.write("leaf.pem", signed.certificate_pem);
    openssl.write("chain.pem", signed.chain_pem);
    let roots = there.authorities.iter().chain(&there.retiring).filter(|one| one.name == "root");
    for root in roots {
        openssl.write("root.pem", &root.certificate_pem);
        openssl.run(&["verify", "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_of_any_rotation_loses_nothing_that_was_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let mut server = dev(home.path());
    for (noun, verbs) in
        [("secrets", &["put", "get"][..]), ("keys", &["create", "rotate", "encrypt", "decrypt"])]
    {
        for verb in verbs {
            let to = format!("grant add admin --action {noun}.{verb} --resource {noun}/kill/**");
            ask(&server, &to);
        }
    }
    ask(&server, &format!("key create {KEY} --algorithm aes-256-gcm"));
    ask(&server, "pki role put kill --dns a.example");
    ask(&server, "grant add admin --action pki.sign --resource pki/kill");
    let known = Known::default();
    for round in 0..kills() {
        let channel = connect(&server).await;
        let name = format!("m{round}");
        owner(&channel, &name).await;
        let before = known.lock().secrets.len();
        let mut work = JoinSet::new();
        work.spawn(write(channel.clone(), name.clone(), Arc::clone(&known)));
        work.spawn(encrypt(channel.clone(), Arc::clone(&known)));
        work.spawn(rotate(channel.clone(), name, Arc::clone(&known)));
        until("something is written", async || known.lock().secrets.len() > before).await;
        tokio::time::sleep(Duration::from_millis(random(300))).await;
        server.signal(Signal::KILL);
        assert_eq!(server.ended(), None);
        work.join_all().await;
        server = dev(home.path());
        let again = connect(&server).await;
        opens(&again, &known, false).await;
        issues(&again).await;
    }
    opens(&connect(&server).await, &known, true).await;
    assert!(known.lock().rotations > kills(), "{} rotations", known.lock().rotations);
    let log = server.log();
    assert!(!log.contains("alarm=true"), "{log}");
}
