//! `pki_sign_csr`: a certificate from a CSR, beside rcgen signing the same CSRs with the same HSM
//! key and no server.
//!
//! The ceiling signs through our own pool of PKCS#11 sessions, the fastest driver of SoftHSM that
//! was measured here; each of its threads parses, builds and signs by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use strongroom::hsm::{Hsm, Pkcs11Hsm};
use strongroom::keyring::label;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, PutCertificateRoleRequest, SignCertificateRequest, add_grant_request,
};
use strongroom::store::keys::HsmPurpose;

use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::Vault;

const CONCURRENCY: usize = 16;
const CONNECTIONS: usize = 4;

pub(crate) async fn measure(vault: &Vault) -> Row {
    let channels = vault.channels(CONNECTIONS).await;
    let mut pki = PkiServiceClient::new(channels[0].clone());
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
    GrantServiceClient::new(channels[0].clone()).add_grant(grant).await.unwrap();
    let csrs: Arc<Vec<String>> = Arc::new((0..64).map(csr).collect());
    let sent = Arc::clone(&csrs);
    let sign = move |channel, task: usize| {
        let csr_pem = sent[task % sent.len()].clone();
        async move {
            let request = SignCertificateRequest {
                role: "bench".to_owned(),
                csr_pem,
                ..SignCertificateRequest::default()
            };
            PkiServiceClient::new(channel).sign_certificate(request).await.unwrap();
        }
    };
    drive(CONCURRENCY, WARM, channels.clone(), sign.clone()).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        theirs.push(ceiling(vault, &csrs).await);
        ours.push(drive(CONCURRENCY, RUN, channels.clone(), sign.clone()).await);
    }
    row("pki_sign_csr", CONCURRENCY, "rcgen and the same HSM key, no server", 0.50, ours, theirs)
}

fn csr(number: usize) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![format!("host-{number}.bench.test")]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// The issuing CA's key in the HSM, for rcgen, which signs synchronously.
struct InHsm {
    hsm: Arc<Pkcs11Hsm>,
    label: String,
    public: Vec<u8>,
    runtime: tokio::runtime::Handle,
}

impl PublicKeyData for InHsm {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for InHsm {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.runtime.block_on(self.hsm.sign(&self.label, message)).unwrap())
    }
}

async fn ceiling(vault: &Vault, csrs: &Arc<Vec<String>>) -> Run {
    let label = label(vault.node.vault.installation().id, HsmPurpose::CaIssuing, 1);
    let spki = vault.hsm.lookup_key(&label).await.unwrap().unwrap().public_key_spki.unwrap();
    // The point stands at the end of a P-256 SubjectPublicKeyInfo.
    let public = spki[spki.len() - 65..].to_vec();
    let key = InHsm {
        hsm: Arc::clone(&vault.hsm),
        label,
        public,
        runtime: tokio::runtime::Handle::current(),
    };
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Arc::new(Issuer::new(params, key));
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
