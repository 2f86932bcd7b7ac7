//! The listener's own certificate: configured files, or one that our issuing CA signs.
//!
//! A certificate of our own is kept on this machine, so that a node that starts sealed, and can
//! sign nothing, still answers health under the name that its clients trust.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files;
use super::node::Ingredients;
use crate::engines::pki::{AuthoritySlot, GeneratedKey, KeyType, SubjectName};
use crate::engines::system::{IssueListener, LISTENER};
use crate::error::{Error, Result};
use crate::grpc::tls::ServerIdentity;
use crate::types::Caller;
use crate::vault::Vault;

/// How long a certificate of our own lives.
const LIFE: Duration = Duration::from_hours(30 * 24);
/// How long before its end it is renewed.
pub(super) const RENEW_BEFORE: Duration = Duration::from_hours(10 * 24);

/// Where the listener's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// The operator's files, read again on SIGHUP.
    Files {
        /// The chain, end entity first, PEM.
        cert_file: PathBuf,
        /// Its key, PEM.
        key_file: PathBuf,
    },
    /// Our own CA.
    Issued {
        /// Where certificate and key are kept; nowhere in tests of one process.
        kept_in: Option<PathBuf>,
    },
}

/// Takes the configured files, or issues a certificate for a key that never leaves this machine.
pub(super) async fn identity(
    parts: &Ingredients,
    vault: &Vault,
    authorities: &AuthoritySlot,
) -> Result<ServerIdentity> {
    let now = parts.clock.now();
    let kept_in = match &parts.tls {
        ListenerTls::Files { cert_file, key_file } => {
            return ServerIdentity::load(cert_file, key_file, now);
        }
        ListenerTls::Issued { kept_in } => kept_in,
    };
    let key = GeneratedKey::generate(KeyType::P256)?;
    let order = IssueListener {
        authorities: authorities.clone(),
        key: key.public.clone(),
        names: parts.server_names.clone(),
        ttl: LIFE,
    };
    let ctx = vault.context(Caller::System(LISTENER), None)?;
    let certificate = vault.run(&ctx, order).await?;
    let authorities = authorities.current()?;
    let chain = certificate.pem() + &authorities.chain_pem(&authorities.issuing);
    if let Some(dir) = kept_in {
        let (cert_file, key_file) = kept(dir);
        files::replace(&key_file, key.private_pem.expose(), 0o600)?;
        files::replace(&cert_file, chain.as_bytes(), 0o644)?;
    }
    ServerIdentity::from_pem(chain.as_bytes(), key.private_pem.expose(), now)
}

/// Takes what a sealed node has: configured files, what was kept, or else a certificate that
/// nobody trusts, until the first unsealing.
pub(super) fn identity_while_sealed(parts: &Ingredients) -> Result<ServerIdentity> {
    let now = parts.clock.now();
    match &parts.tls {
        ListenerTls::Files { cert_file, key_file } => {
            return ServerIdentity::load(cert_file, key_file, now);
        }
        ListenerTls::Issued { kept_in: Some(dir) } => {
            let (cert_file, key_file) = kept(dir);
            if cert_file.exists() {
                match ServerIdentity::load(&cert_file, &key_file, now) {
                    Ok(identity) => return Ok(identity),
                    Err(error) => tracing::warn!(%error, "the listener's kept certificate"),
                }
            }
        }
        ListenerTls::Issued { kept_in: None } => {}
    }
    tracing::info!("the listener shows a certificate that nobody trusts until it is unsealed");
    let names: Vec<_> = parts.server_names.iter().map(SubjectName::text).collect();
    let made = rcgen::generate_simple_self_signed(names).map_err(Error::internal)?;
    let key = zeroize::Zeroizing::new(made.signing_key.serialize_pem());
    ServerIdentity::from_pem(made.cert.pem().as_bytes(), key.as_bytes(), now)
}

fn kept(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("listener.crt"), dir.join("listener.key"))
}
