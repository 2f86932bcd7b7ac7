//! The listener's own certificate and key, from files or as they were made.
//!
//! Must not know whom the listener trusts.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::crypto::aws_lc_rs as provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::types::UnixMillis;

/// Bytes that a certificate or key file may have.
const MAX_FILE_BYTES: u64 = 256 * 1_024;

/// A certificate chain, end entity first, and the key that belongs to it.
#[derive(Clone)]
pub struct ServerIdentity {
    certified_key: CertifiedKey,
    not_after: UnixMillis,
}

impl ServerIdentity {
    /// Reads PEM files: the chain, end entity first, and its private key.
    ///
    /// # Errors
    /// [`Error::Precondition`] that names the file and what is wrong with it.
    pub fn load(certificates: &Path, key: &Path, now: UnixMillis) -> Result<Self> {
        Self::build(
            &read(certificates)?,
            &read(key)?,
            &format!("the TLS certificate file {}", certificates.display()),
            &format!("the TLS key file {}", key.display()),
            now,
        )
    }

    /// Takes PEM that was made here.
    ///
    /// # Errors
    /// [`Error::Precondition`] with what is wrong.
    pub fn from_pem(certificates: &[u8], key: &[u8], now: UnixMillis) -> Result<Self> {
        Self::build(certificates, key, "the TLS certificate", "the TLS key", now)
    }

    /// Tells the last second in which the certificate is valid.
    #[must_use]
    pub const fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    pub(super) fn certified_key(&self) -> CertifiedKey {
        self.certified_key.clone()
    }

    fn build(
        certificates: &[u8],
        key: &[u8],
        certificates_from: &str,
        key_from: &str,
        now: UnixMillis,
    ) -> Result<Self> {
        let refused = |from: &str, why: &str| Error::precondition(format!("{from} {why}"));
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_malformed| refused(certificates_from, "is not PEM"))?;
        let first = chain.first();
        let first = first.ok_or_else(|| refused(certificates_from, "holds no certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_malformed| refused(key_from, "holds no private key as PEM"))?;
        let not_after = match X509Certificate::from_der(first) {
            Ok(([], parsed)) => parsed.validity().not_after.timestamp(),
            Ok(_) | Err(_) => return Err(refused(certificates_from, "holds no X.509 certificate")),
        };
        if now.seconds() > not_after {
            return Err(refused(certificates_from, "holds a certificate that has expired"));
        }
        let certified_key = CertifiedKey::from_der(chain, key, &provider::default_provider())
            .map_err(|error| {
                let another = matches!(error, rustls::Error::InconsistentKeys(_));
                let other_key = "holds another key than that of the certificate";
                refused(key_from, if another { other_key } else { "holds a key TLS cannot use" })
            })?;
        Ok(Self { certified_key, not_after: UnixMillis(not_after.saturating_mul(1_000)) })
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Reads a small file into memory that is zeroed and never moves.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: std::io::Error| {
        Error::precondition(format!("{} cannot be read: {}", path.display(), error.kind()))
    };
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len > MAX_FILE_BYTES {
        return Err(Error::precondition(format!("{} is larger than 256 KiB", path.display())));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
