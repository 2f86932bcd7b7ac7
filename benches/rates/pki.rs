//! `pki_sign_csr`: a certificate from a CSR, beside rcgen signing the same CSRs with the same HSM
//! key and no server.
//!
//! Beside it `pki_no_vault`: the same signing behind a bare tonic server with mTLS that stores as many
//! bytes durably before it answers and does nothing else: no login, decision, MAC, log or index.
//! What it misses of the ceiling is not the vault's; it is a measurement, no bound.
//!
//! The ceiling signs through our own pool of PKCS#11 sessions, the fastest driver of SoftHSM that
//! was measured here; each of its threads parses, builds and signs by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use strongroom::hsm::{Hsm, Pkcs11Hsm};
use strongroom::keyring::label;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, PutCertificateRoleRequest, SignCertificateRequest, SignCertificateResponse,
    add_grant_request,
};
use strongroom::store::keys::HsmPurpose;

use crate::caller::Caller;
use crate::echo;
use crate::insert;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::Vault;

const CONCURRENCY: usize = 16;
const CONNECTIONS: usize = 4;

pub(crate) async fn measure(vault: &Vault) -> [Row; 2] {
    let channel = vault.channels(1).await.remove(0);
    let mut pki = PkiServiceClient::new(channel.clone());
    let role = PutCertificateRoleRequest {
        name: "bench".to_owned(),
        allowed_dns: vec!["**.bench.test".to_owned()],
        ..PutCertificateRoleRequest::default()
    };
    pki.put_role(role).await.unwrap();
    let grant = AddGrantRequest {
        idempotency_key: "a grant for the bench, made once".replace(' ', "-"),
        subject: Some(add_grant_request::Subject::Identity("admin".to_owned())),
        action: "pki.sign".to_owned(),
        resource: "pki/bench".to_owned(),
        reason: "bench".to_owned(),
        ..AddGrantRequest::default()
    };
    GrantServiceClient::new(channel).add_grant(grant).await.unwrap();
    let csrs: Arc<Vec<String>> = Arc::new((0..64).map(csr).collect());
    let sent = Arc::clone(&csrs);
    let sign = move |caller: Caller, task: usize| {
        let csr_pem = sent[task % sent.len()].clone();
        async move {
            let request = SignCertificateRequest {
                role: "bench".to_owned(),
                csr_pem,
                ..SignCertificateRequest::default()
            };
            let path = "/strongroom.v1.PkiService/SignCertificate";
            let signed: SignCertificateResponse = caller.call(path, &request, None).await;
            assert!(!signed.certificate_pem.is_empty());
        }
    };
    let callers = vault.callers(CONNECTIONS).await;
    let servers = echo::working(CONNECTIONS, bare_server(vault).await).await;
    let sent = Arc::clone(&csrs);
    let bare =
        move |caller, task: usize| echo::ask(caller, Bytes::from(sent[task % sent.len()].clone()));
    drive(CONCURRENCY, WARM, callers.clone(), sign.clone()).await;
    drive(CONCURRENCY, WARM, servers.clone(), bare.clone()).await;
    let (mut ours, mut bares, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        theirs.push(ceiling(vault, &csrs).await);
        ours.push(drive(CONCURRENCY, RUN, callers.clone(), sign.clone()).await);
        bares.push(drive(CONCURRENCY, RUN, servers.clone(), bare.clone()).await);
    }
    let beside = "rcgen and the same HSM key, no server";
    [("pki_sign_csr", ours), ("pki_no_vault", bares)]
        .map(|(workload, runs)| row(workload, CONCURRENCY, beside, 0.50, runs, theirs.clone()))
}

fn csr(number: usize) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![format!("host-{number}.bench.test")]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// The issuing CA's key in the HSM: its label, and its point.
async fn issuing_key(vault: &Vault) -> (String, Vec<u8>) {
    let label = label(vault.node.vault.installation().id, HsmPurpose::CaIssuing, 1);
    let spki = vault.hsm.lookup_key(&label).await.unwrap().unwrap().public_key_spki.unwrap();
    // The point stands at the end of a P-256 SubjectPublicKeyInfo.
    (label, spki[spki.len() - 65..].to_vec())
}

fn issuer<K: SigningKey>(key: K) -> Arc<Issuer<'static, K>> {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Arc::new(Issuer::new(params, key))
}

/// The issuing CA's key, for rcgen, which signs synchronously: in the HSM, or not at all.
struct Key {
    public: Vec<u8>,
    hsm: Option<(Arc<Pkcs11Hsm>, String, tokio::runtime::Handle)>,
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(match &self.hsm {
            Some((hsm, label, runtime)) => runtime.block_on(hsm.sign(label, message)).unwrap(),
            None => vec![0; 72],
        })
    }
}

/// Bytes that a certificate leaves in the store beside itself: its entry and the rest of its row.
const BESIDE: usize = 1_600;

/// The ceiling's work for each call, the HSM waited for without a thread, then the durable insert.
async fn bare_server(vault: &Vault) -> echo::Work {
    let (label, public) = issuing_key(vault).await;
    let (issuer, hsm) = (issuer(Key { public, hsm: None }), Arc::clone(&vault.hsm));
    // Both end with the process.
    let (sender, _writer) = insert::start(usize::MAX);
    Arc::new(move |csr| {
        let (issuer, hsm) = (Arc::clone(&issuer), Arc::clone(&hsm));
        let (label, sender) = (label.clone(), sender.clone());
        Box::pin(async move {
            let csr = std::str::from_utf8(&csr).unwrap();
            let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
            let unsigned = request.signed_by(&issuer).unwrap();
            let signature = hsm.sign(&label, unsigned.der()).await.unwrap();
            let stored = [&[0; BESIDE], unsigned.der().as_ref(), &signature].concat();
            insert::call(&sender, Bytes::from(stored)).await;
            Bytes::from(unsigned.pem())
        })
    })
}

async fn ceiling(vault: &Vault, csrs: &Arc<Vec<String>>) -> Run {
    let (label, public) = issuing_key(vault).await;
    let hsm = (Arc::clone(&vault.hsm), label, tokio::runtime::Handle::current());
    let issuer = issuer(Key { public, hsm: Some(hsm) });
    let span: Duration = RUN / 2;
    let began = Instant::now();
    let threads: Vec<_> = (0..CONCURRENCY)
        .map(|task| {
            let (issuer, csr) = (Arc::clone(&issuer), csrs[task].clone());
            tokio::task::spawn_blocking(move || {
                let mut took = Vec::new();
                while began.elapsed() < span {
                    let start = Instant::now();
                    let request = CertificateSigningRequestParams::from_pem(&csr).unwrap();
                    request.signed_by(&issuer).unwrap();
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.await.unwrap());
    }
    crate::load::run(all, began.elapsed())
}
