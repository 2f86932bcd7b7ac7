//! The real program, killed at any instant of any rotation: what was acknowledged opens, and what is
//! signed leads to every root that stands.
//!
//! `STRONGROOM_KILLS` says how often in all three tests together; 20 times where nobody says.

mod stand;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use strongroom::proto::authority_service_client::AuthorityServiceClient;
use strongroom::proto::ceremony_service_client::CeremonyServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::root_service_client::RootServiceClient;
use strongroom::proto::{
    ApproveCeremonyRequest, Authority, GetAuthoritiesRequest, GetAuthorityRequest, GetRootRequest,
    IssueLoginCertificateRequest, ListCeremoniesRequest, PutSecretRequest, RetireAuthorityRequest,
    RetireRootRequest, RewrapRequest, RotateAuthorityRequest, RotateIdentityKeyRequest,
    RotateRootRequest, RotatingAuthority, SignCertificateRequest, SubjectNames,
};
use strongroom::types::{Entropy as _, SystemEntropy};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use self::stand::{People, Stand};
use crate::support::logins::registration;
use crate::support::node::{Backend, csr};
use crate::support::softhsm;
use crate::support::target::until;
use crate::x509::OpenSsl;
use crate::{keys, secrets};

const KEY: &str = "kill/key";
/// Of so many kills in all, each test has its share.
const SHARES: usize = 20;
const DEVELOPMENT: usize = 8;
const EARNEST: usize = 6;
/// Longest that a round takes where the machine is busy.
const ROUND: Duration = Duration::from_secs(30);

/// What was answered: secrets with their values, ciphertexts, and the roots that clients trust.
#[derive(Debug, Default)]
struct Answered {
    secrets: Vec<String>,
    ciphertexts: Vec<Vec<u8>>,
    roots: String,
    rewrapped: usize,
    done: Vec<Act>,
    /// What the first of those who work met, and ended for.
    ended: Option<Status>,
}

type Known = Arc<Mutex<Answered>>;

fn random(below: usize) -> usize {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes).unwrap();
    usize::try_from(u64::from_be_bytes(bytes) % u64::try_from(below).unwrap()).unwrap()
}

fn kills(share: usize) -> usize {
    let kills = std::env::var("STRONGROOM_KILLS");
    let all = kills.map_or(SHARES, |kills| kills.parse().expect("a number of kills"));
    (all * share).div_ceil(SHARES)
}

/// A rotation, or the end of an old version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Root,
    RetireRoot,
    RootCa,
    RetireRootCa,
    Issuing,
    RetireIssuing,
    Login,
    Identity,
    Named,
}

impl Act {
    const ALL: [Self; 9] = [
        Self::Root,
        Self::RetireRoot,
        Self::RootCa,
        Self::RetireRootCa,
        Self::Issuing,
        Self::RetireIssuing,
        Self::Login,
        Self::Identity,
        Self::Named,
    ];

    /// Whether several administrators do it together.
    const fn is_solemn(self) -> bool {
        matches!(self, Self::Root | Self::RetireRoot | Self::RetireRootCa | Self::RetireIssuing)
    }

    async fn run(self, asker: &Channel, owner: &str, known: &Known) -> Result<(), Status> {
        match self {
            Self::Root => {
                let mut roots = RootServiceClient::new(asker.clone());
                roots.rotate_root(RotateRootRequest::default()).await.map(drop)
            }
            Self::RetireRoot => retire_root(asker).await,
            Self::RootCa => rotate_authority(asker, "root").await,
            Self::RetireRootCa => retire_root_ca(asker, known).await,
            Self::Issuing => rotate_authority(asker, "issuing").await,
            Self::RetireIssuing => retire_authority(asker, "issuing").await,
            Self::Login => rotate_authority(asker, "login").await,
            Self::Identity => {
                let name = owner.to_owned();
                let request = RotateIdentityKeyRequest { name, ..Default::default() };
                let mut identities = IdentityServiceClient::new(asker.clone());
                identities.rotate_identity_key(request).await.map(drop)
            }
            Self::Named => {
                let rotated = keys::rotate(&mut keys::client(asker), KEY, 0).await;
                rotated.map(drop).map_err(|code| Status::new(code, ""))
            }
        }
    }
}

/// Retires the oldest version of the root key that wraps nothing.
async fn retire_root(asker: &Channel) -> Result<(), Status> {
    let mut roots = RootServiceClient::new(asker.clone());
    let shown = roots.get_root(GetRootRequest {}).await?.into_inner().root.unwrap();
    let spent = |it: &&strongroom::proto::RootVersion| it.state == "retiring" && it.wraps == 0;
    let Some(old) = shown.versions.iter().rev().find(spent) else { return Err(nothing()) };
    roots.retire_root(RetireRootRequest { version: old.version }).await.map(drop)
}

async fn rotate_authority(asker: &Channel, name: &str) -> Result<(), Status> {
    let request = RotateAuthorityRequest { name: name.to_owned(), ..Default::default() };
    let mut authorities = AuthorityServiceClient::new(asker.clone());
    authorities.rotate_authority(request).await.map(drop)
}

async fn shown(asker: &Channel, name: &str) -> Result<RotatingAuthority, Status> {
    let request = GetAuthorityRequest { name: name.to_owned() };
    let mut authorities = AuthorityServiceClient::new(asker.clone());
    Ok(authorities.get_authority(request).await?.into_inner().authority.unwrap())
}

/// Retires the oldest version of an authority, whatever hangs on it.
async fn retire_authority(asker: &Channel, name: &str) -> Result<(), Status> {
    let shown = shown(asker, name).await?;
    let old = shown.versions.iter().rev().find(|it| it.state == "retiring");
    let Some(old) = old else { return Err(nothing()) };
    let name = name.to_owned();
    let request = RetireAuthorityRequest { name, version: old.version, force: true };
    let mut authorities = AuthorityServiceClient::new(asker.clone());
    authorities.retire_authority(request).await.map(drop)
}

/// Retires the older root CA, once clients trust the newer: by the older alone nobody connects any more.
async fn retire_root_ca(asker: &Channel, known: &Known) -> Result<(), Status> {
    let newest = shown(asker, "root").await?.versions[0].version;
    let roots = roots(asker).await?;
    if !roots.iter().any(|root| root.version == newest) {
        return Err(nothing());
    }
    known.lock().roots = roots.into_iter().map(|root| root.certificate_pem).collect();
    retire_authority(asker, "root").await
}

/// The root CAs that stand.
async fn roots(asker: &Channel) -> Result<Vec<Authority>, Status> {
    let mut pki = PkiServiceClient::new(asker.clone());
    let there = pki.get_authorities(GetAuthoritiesRequest {}).await?.into_inner();
    let all = there.authorities.into_iter().chain(there.retiring);
    Ok(all.filter(|one| one.name == "root").collect())
}

fn nothing() -> Status {
    Status::new(Code::NotFound, "there is nothing to retire")
}

/// An active machine, under whose key secrets are written.
async fn owner(asker: &Channel, name: &str, of: &str) {
    let mut identities = IdentityServiceClient::new(asker.clone());
    identities.create_identity(registration(name, "pipeline", of)).await.unwrap();
    let (name, csr_pem) = (name.to_owned(), csr().1);
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    // Recovery may put another authority in the place of the one that was current at the start.
    until("a login is signed", async || {
        identities.clone().issue_login_certificate(request.clone()).await.is_ok()
    })
    .await;
}

/// Writes secrets until the server is gone.
async fn write(asker: Channel, owner: String, known: Known) {
    let mut client = secrets::client(&asker);
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
            Err(refused) if goes_on(&refused) => {}
            Err(gone) => return end(&known, gone),
        }
    }
}

/// Encrypts until the server is gone.
async fn encrypt(asker: Channel, known: Known) {
    let mut client = keys::client(&asker);
    loop {
        match keys::encrypt(&mut client, KEY, b"canary", b"").await {
            Ok(ciphertext) => known.lock().ciphertexts.push(ciphertext),
            Err(refused) if goes_on(&refused) => {}
            Err(gone) => return end(&known, gone),
        }
    }
}

/// Moves ciphertexts to the newest version of their key until the server is gone.
async fn rewrap(asker: Channel, known: Known) {
    let mut client = keys::client(&asker);
    loop {
        let picked = {
            let known = known.lock();
            let len = known.ciphertexts.len();
            (len > 0).then(|| known.ciphertexts[random(len)].clone())
        };
        let Some(old) = picked else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let request = RewrapRequest { name: KEY.into(), items: keys::sealed(&[(&old, b"")]) };
        match client.rewrap(request).await {
            Ok(answer) => {
                let one = answer.into_inner().results.remove(0);
                assert_eq!(one.fault, None);
                let mut known = known.lock();
                known.ciphertexts.push(one.ciphertext);
                known.rewrapped += 1;
            }
            Err(refused) if goes_on(&refused) => {}
            Err(gone) => return end(&known, gone),
        }
    }
}

/// Rotates and retires until the server is gone: each round begins with another act, and goes on in
/// any order. Where acts take two, one of them is done in each round, at its beginning: nobody asks for
/// many within an hour.
async fn rotate(people: People, owner: String, round: usize, known: Known) {
    let People { asker, approver } = people;
    let mut solemn = if approver.is_some() { 1 } else { usize::MAX };
    let begins = |act: &&Act| approver.is_none() || act.is_solemn();
    let mut next = Act::ALL.iter().filter(begins).cycle().nth(round).copied();
    loop {
        let act = next.take().unwrap_or_else(|| Act::ALL[random(Act::ALL.len())]);
        if act.is_solemn() && solemn == 0 {
            continue;
        }
        let mut done = act.run(&asker, &owner, &known).await;
        if let (Some(approver), Err(refused)) = (&approver, &done)
            && act.is_solemn()
            && refused.code() == Code::FailedPrecondition
        {
            solemn -= 1;
            approve(approver).await;
            done = act.run(&asker, &owner, &known).await;
        }
        match done {
            Ok(()) => known.lock().done.push(act),
            Err(refused) if goes_on(&refused) => {}
            Err(gone) => return end(&known, gone),
        }
    }
}

fn end(known: &Known, gone: Status) {
    known.lock().ended.get_or_insert(gone);
}

/// Tells whether the server refused: there are too many versions or ceremonies, one is still used,
/// somebody else was first, or it has not heard of the last act yet. What the connection says of itself
/// has a source.
fn goes_on(refused: &Status) -> bool {
    let codes = [
        Code::FailedPrecondition,
        Code::Aborted,
        Code::NotFound,
        Code::ResourceExhausted,
        Code::Unavailable,
    ];
    codes.contains(&refused.code()) && std::error::Error::source(refused).is_none()
}

/// Approves every ceremony that waits.
async fn approve(by: &Channel) {
    let mut client = CeremonyServiceClient::new(by.clone());
    let Ok(open) = client.list_ceremonies(ListCeremoniesRequest::default()).await else { return };
    for open in open.into_inner().ceremonies {
        let (id, hash, reason) = (open.id, open.hash, "agreed".to_owned());
        // One that was approved before its call was cut off is refused.
        drop(client.approve_ceremony(ApproveCeremonyRequest { id, hash, reason }).await);
    }
}

/// Opens the newest of what was answered, some of the rest, or all.
async fn opens(asker: &Channel, known: &Known, all: bool) {
    let (paths, ciphertexts) = {
        let known = known.lock();
        (known.secrets.clone(), known.ciphertexts.clone())
    };
    let picked = |len: usize| -> Vec<usize> {
        if all {
            return (0..len).collect();
        }
        let any = (0..20).map(|_| random(len.max(1)));
        any.chain(len.saturating_sub(40)..len).filter(|n| *n < len).collect()
    };
    let mut client = secrets::client(asker);
    for n in picked(paths.len()) {
        let path = &paths[n];
        let read = secrets::get(&mut client, path, 0).await;
        assert_eq!(read, Ok(path.clone().into_bytes()), "{path}");
    }
    let mut client = keys::client(asker);
    for n in picked(ciphertexts.len()) {
        let (opened, _) = keys::decrypt(&mut client, KEY, &ciphertexts[n], b"").await.unwrap();
        assert_eq!(opened, b"canary");
    }
}

/// Has a certificate signed that leads to every root that stands.
async fn issues(asker: &Channel) {
    // Recovery may put another root above it in the very moment.
    until("a certificate leads to every root", async || leads(asker).await == Ok(true)).await;
}

async fn leads(asker: &Channel) -> Result<bool, Code> {
    let names = SubjectNames { dns: vec!["a.example".to_owned()], ..Default::default() };
    let (role, csr_pem, names) = ("kill".to_owned(), csr().1, Some(names));
    let request = SignCertificateRequest { role, csr_pem, names, ..Default::default() };
    let signed = PkiServiceClient::new(asker.clone()).sign_certificate(request).await;
    let signed = signed.map_err(|refused| refused.code())?.into_inner();
    let roots = roots(asker).await.map_err(|refused| refused.code())?;
    let openssl = OpenSsl::new();
    openssl.write("leaf.pem", signed.certificate_pem);
    openssl.write("chain.pem", signed.chain_pem);
    let leads_to = |root: &Authority| {
        openssl.write("root.pem", &root.certificate_pem);
        let verify = ["verify", "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem"];
        openssl.attempt(&verify).0
    };
    Ok(!roots.is_empty() && roots.iter().all(leads_to))
}

/// Kills the server of a vault again and again, and looks each time.
async fn play(mut stand: Stand, kills: usize) {
    let mut server = stand.serve();
    stand.begin(&server).await;
    let People { asker, .. } = stand.connect(&server).await;
    keys::create(&mut keys::client(&asker), KEY, "aes-256-gcm").await;
    let known = Known::default();
    for round in 0..kills {
        let people = stand.connect(&server).await;
        let (asker, name) = (people.asker.clone(), format!("m{round}"));
        owner(&asker, &name, stand.asker()).await;
        let seen = || {
            let known = known.lock();
            (known.secrets.len(), known.done.len(), known.rewrapped)
        };
        let before = seen();
        known.lock().ended = None;
        let mut work = JoinSet::new();
        work.spawn(write(asker.clone(), name.clone(), Arc::clone(&known)));
        work.spawn(encrypt(asker.clone(), Arc::clone(&known)));
        work.spawn(rewrap(asker, Arc::clone(&known)));
        work.spawn(rotate(people, name, round, Arc::clone(&known)));
        // In every other round the kill may come before any act is done; the rounds between make up
        // for them.
        let waits = (round + 1) % 2;
        let (acts, rewraps) = (before.1 + 2 * waits, before.2 + 3 * waits);
        let begun = async || {
            let (written, done, rewrapped) = seen();
            let ended = known.lock().ended.clone();
            assert!(ended.is_none(), "{ended:?}\n{}", server.log());
            written > before.0 && done >= acts && rewrapped >= rewraps
        };
        until("something is written, and something done", begun).await;
        let span = Duration::from_millis(u64::try_from(random(stand.span_ms())).unwrap());
        tokio::time::sleep(span).await;
        server.signal(Signal::KILL);
        assert_eq!(server.ended(), None);
        work.join_all().await;
        stand.trust(&known.lock().roots);
        server = stand.serve();
        let People { asker, .. } = stand.connect(&server).await;
        opens(&asker, &known, false).await;
        issues(&asker).await;
    }
    opens(&stand.connect(&server).await.asker, &known, true).await;
    let known = known.lock();
    assert!(known.done.len() >= kills, "{:?}", known.done);
    assert!(known.rewrapped > kills, "{}", known.rewrapped);
    assert!(known.done.iter().any(|act| act.is_solemn()), "{:?}", known.done);
    let log = server.log();
    assert!(!log.contains("alarm=true") && !log.contains("\"alarm\":true"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_of_any_rotation_loses_nothing_that_was_acknowledged() {
    play(Stand::development(), kills(DEVELOPMENT)).await;
}

fn earnest(test: &str, backend: Backend) {
    let kills = kills(EARNEST);
    let limit = ROUND * u32::try_from(kills + 10).unwrap();
    softhsm::in_child_within(
        test,
        limit,
        |_| Vec::new(),
        |token| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async { play(Stand::earnest(backend, token).await, kills).await });
        },
    );
}

#[test]
fn nor_does_one_of_a_vault_that_is_not_for_development_on_sqlite() {
    let test = "root::kills::nor_does_one_of_a_vault_that_is_not_for_development_on_sqlite";
    earnest(test, Backend::Sqlite);
}

#[test]
fn nor_does_one_of_a_vault_that_is_not_for_development_on_postgresql() {
    let test = "root::kills::nor_does_one_of_a_vault_that_is_not_for_development_on_postgresql";
    earnest(test, Backend::Postgres);
}
