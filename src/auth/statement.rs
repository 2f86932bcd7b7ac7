//! A statement signed with the key of a login certificate: what somebody says outside a connection.
//!
//! Proves who holds the key; whether the certificate is still accepted is the vault's to say.

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use crate::crypto::sha256;
use crate::engines::pki::{PublicKey, SpiffeId};
use crate::error::{Error, Result};

/// Whose key signed a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// SHA-256 of the certificate's DER: its handle in the allow-list.
    pub fingerprint: [u8; 32],
    /// Who the certificate says it is.
    pub id: SpiffeId,
}

/// Finds out whose key signed a statement.
///
/// # Errors
/// [`Error::Unauthenticated`] for a certificate that is none, and for a signature that is not its
/// key's over exactly this statement.
pub fn signer(certificate_der: &[u8], statement: &[u8], signature: &[u8]) -> Result<Signer> {
    let refused = || {
        Error::Unauthenticated(
            "the signature is not by this certificate over what was asked".into(),
        )
    };
    let Ok(([], certificate)) = X509Certificate::from_der(certificate_der) else {
        return Err(Error::Unauthenticated("the certificate does not parse".into()));
    };
    let id = SpiffeId::of_certificate(&certificate)?;
    let key = PublicKey::from_spki(certificate.public_key().raw).map_err(|_unfit| refused())?;
    if key.verifies(statement, signature) {
        Ok(Signer { fingerprint: sha256(certificate_der), id })
    } else {
        Err(refused())
    }
}
