//! Whom the listener trusts: the login CA, for one trust domain, and what it vouches for.
//!
//! Must not know identities: a certificate that passes here is well-formed and well-signed, no more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use crate::engines::pki::{SpiffeId, TrustDomain};
use crate::error::{Error, Result};
use crate::types::UnixMillis;

/// Certificates that a client may present: its own and what stands between it and the anchor.
const MAX_CHAIN: usize = 4;

/// The authorities whose certificates open a connection with a name: the current one, and older ones
/// until they are retired.
pub struct Trust {
    domain: TrustDomain,
    hints: Vec<DistinguishedName>,
    anchors: Vec<Anchor>,
}

/// One authority.
struct Anchor {
    not_before_s: i64,
    not_after_s: i64,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// Takes every login CA that is believed, for the vault's own trust domain.
    ///
    /// # Errors
    /// [`Error::Precondition`] when a certificate is no authority's, or there is none.
    pub fn of<C: AsRef<[u8]>>(
        ours: &TrustDomain,
        login_cas: impl IntoIterator<Item = C>,
    ) -> Result<Self> {
        let (mut hints, mut anchors) = (Vec::new(), Vec::new());
        for login_ca in login_cas {
            let anchor = Anchor::new(ours, login_ca.as_ref())?;
            hints.extend_from_slice(anchor.verifier.root_hint_subjects());
            anchors.push(anchor);
        }
        if anchors.is_empty() {
            return Err(Error::precondition("the store names no login authority"));
        }
        Ok(Self { domain: ours.clone(), hints, anchors })
    }

    /// Verifies a chain, end entity first, and reads the one id that decides.
    ///
    /// # Errors
    /// What rustls answers the client with.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<SpiffeId, rustls::Error> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let id = parse(end_entity)
            .and_then(|certificate| SpiffeId::of_certificate(&certificate))
            .map_err(|_no_id| CertificateError::ApplicationVerificationFailure)?;
        if id.trust_domain != self.domain {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let mut refused: rustls::Error = CertificateError::UnknownIssuer.into();
        for anchor in &self.anchors {
            match anchor.verify(end_entity, intermediates, now) {
                Ok(()) => return Ok(id),
                // What the one says that signed it is told, not that another did not.
                Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Makes what rustls asks during a handshake.
    pub(super) fn verifier(self: Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Verifier { trust: self, provider: provider::default_provider() })
    }
}

impl Anchor {
    fn new(ours: &TrustDomain, login_ca: &[u8]) -> Result<Self> {
        let refused =
            |why| Error::precondition(format!("the authority of `{ours}` cannot be used: {why}"));
        let certificate = CertificateDer::from(login_ca.to_vec());
        let (is_ca, not_before_s, not_after_s) = {
            let parsed = parse(&certificate)?;
            let constraints = parsed.basic_constraints().ok().flatten();
            let validity = parsed.validity();
            (
                constraints.is_some_and(|found| found.value.ca),
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            )
        };
        if !is_ca {
            return Err(refused("its certificate is no authority's"));
        }
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|_unusable| refused("its certificate is malformed"))?;
        let provider = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .map_err(|_unusable| refused("its key cannot be verified with"))?;
        Ok(Self { not_before_s, not_after_s, verifier })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<(), rustls::Error> {
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        // webpki takes an anchor for a bare key: its own end is looked at here.
        if !(self.not_before_s..=self.not_after_s).contains(&now_s) {
            return Err(CertificateError::Expired.into());
        }
        self.verifier.verify_client_cert(end_entity, intermediates, now).map(drop)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trust").field(&self.domain.as_str()).finish()
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(Error::precondition("a certificate does not parse")),
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    provider: CryptoProvider,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trust.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        self.trust.verify(end_entity, intermediates, now).map(|_id| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client certificate whose chain was verified and whose key the client holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of its DER: its handle in the allow-list.
    pub der_sha256: [u8; 32],
    /// The one URI that decides.
    pub id: SpiffeId,
    /// The last second in which it is valid.
    pub not_after: UnixMillis,
    chain: Vec<CertificateDer<'static>>,
}

impl PeerCertificate {
    /// Reads what a finished handshake proved.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the certificate carries no id; the handshake saw to that.
    pub(super) fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Self> {
        let unreadable = || Error::Unauthenticated("the client certificate does not parse".into());
        let end_entity = chain.first().ok_or_else(unreadable)?;
        let parsed = parse(end_entity)?;
        let der_sha256 = digest(&SHA256, end_entity)
            .as_ref()
            .try_into()
            .map_err(|_length| Error::internal("SHA-256 has 32 bytes"))?;
        Ok(Self {
            der_sha256,
            id: SpiffeId::of_certificate(&parsed)?,
            not_after: UnixMillis(parsed.validity().not_after.timestamp().saturating_mul(1_000)),
            chain: chain.iter().map(|c| c.clone().into_owned()).collect(),
        })
    }

    /// Tells whether the chain would pass again: each minute on a long connection, and when trust
    /// was replaced.
    #[must_use]
    pub fn still_valid(&self, now: UnixMillis, trust: &Trust) -> bool {
        let Some((end_entity, intermediates)) = self.chain.split_first() else {
            return false;
        };
        let since_epoch = Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(u64::MAX));
        let now = UnixTime::since_unix_epoch(since_epoch);
        trust.verify(end_entity, intermediates, now).is_ok_and(|id| id == self.id)
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
