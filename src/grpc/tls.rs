//! The listener's TLS: 1.3 only, no resumption, client certificates asked for and not required.
//!
//! Hands authenticated connections to the gRPC server; who a certificate belongs to, and whether it
//! is still on the allow-list, is decided per request by somebody else.

mod connection;
mod identity;
mod listen;
mod patience;
mod places;
mod trust;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls_pki_types::UnixTime;

pub use connection::{Connection, PeerInfo};
pub use identity::ServerIdentity;
pub use listen::{Connections, Limits, listen};
pub use patience::Patient;
pub use trust::{PeerCertificate, Trust};

use crate::error::{Error, Result};
use crate::types::Clock;

/// The one protocol spoken; a client that offers others only is refused.
const HTTP_2: &[u8] = b"h2";

/// What the listener shows and whom it trusts; both can be replaced while it serves.
pub struct Tls {
    clock: Arc<dyn Clock>,
    active: RwLock<Active>,
}

#[derive(Clone)]
struct Active {
    config: Arc<ServerConfig>,
    trust: Arc<Trust>,
}

impl Tls {
    /// Takes the listener's own certificate and the authorities of its callers.
    ///
    /// # Errors
    /// [`Error::Internal`] when TLS 1.3 cannot be set up.
    pub fn new(identity: &ServerIdentity, trust: Trust, clock: Arc<dyn Clock>) -> Result<Self> {
        let active = activate(identity, trust, Arc::clone(&clock))?;
        Ok(Self { clock, active: RwLock::new(active) })
    }

    /// Replaces both for handshakes to come; connections that stand are judged by the new trust at
    /// their next check.
    ///
    /// # Errors
    /// As [`Self::new`]; what served before serves on.
    pub fn replace(&self, identity: &ServerIdentity, trust: Trust) -> Result<()> {
        let active = activate(identity, trust, Arc::clone(&self.clock))?;
        *self.active.write() = active;
        Ok(())
    }

    /// Shows whom the listener trusts now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.active.read().trust)
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.active.read().config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("trust", &self.trust()).finish_non_exhaustive()
    }
}

fn activate(identity: &ServerIdentity, trust: Trust, clock: Arc<dyn Clock>) -> Result<Active> {
    let trust = Arc::new(trust);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(VaultTime(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::internal)?
        .with_client_cert_verifier(Arc::clone(&trust).verifier())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    // A resumed session would skip the check of its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Active { config: Arc::new(config), trust })
}

/// Lets handshakes see the vault's own clock.
#[derive(Debug)]
struct VaultTime(Arc<dyn Clock>);

impl TimeProvider for VaultTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
