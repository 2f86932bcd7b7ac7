//! Login certificates: the chain was verified by the listener, the allow-list decides.

use crate::engines::pki::SpiffeId;
use crate::error::Result;
use crate::types::Authenticated;
use crate::vault::Vault;

/// Finds the caller behind a certificate whose chain and key were verified on this connection.
///
/// What counts is the allow-list: the certificate's SHA-256 must be an active credential of exactly
/// the identity that its one SPIFFE URI names.
///
/// # Errors
/// [`crate::Error::Unauthenticated`], the same sentence whatever is wrong.
pub async fn authenticate(
    vault: &Vault,
    fingerprint: [u8; 32],
    presented: &SpiffeId,
) -> Result<Authenticated> {
    let ours = presented.trust_domain.as_str() == vault.installation().trust_domain;
    vault
        .authenticate_certificate(fingerprint, |subject| {
            let row = &subject.identity.row;
            ours && row.kind == presented.kind && row.name == presented.name
        })
        .await
}
