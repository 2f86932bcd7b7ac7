//! Who asks, and what was fixed when the request came in.

use std::net::IpAddr;
use std::time::Instant;

use super::{CredentialId, IdentityId, RequestId, UnixMillis};

/// How a caller proved its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// A login certificate; the SHA-256 of its DER is the credential's handle.
    Mtls {
        /// SHA-256 of the certificate's DER.
        fingerprint: [u8; 32],
    },
    /// A bearer token.
    Token {
        /// SHA-256 of the client certificate's DER, where the connection has one.
        certificate: Option<[u8; 32]>,
    },
    /// The handle of a lease, which may renew or revoke it.
    Handle,
    /// A statement that was signed with the key of a login certificate, where nothing is served.
    Signature,
}

impl AuthMethod {
    /// Names the method as the record does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls { .. } => "mtls",
            Self::Token { .. } => "token",
            Self::Handle => "handle",
            Self::Signature => "signature",
        }
    }
}

/// A caller whose credential was verified on this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Authenticated {
    /// The identity that the credential names.
    pub identity: IdentityId,
    /// The credential that proved it.
    pub credential: CredentialId,
    /// How it was proved.
    pub method: AuthMethod,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Somebody or something with an identity.
    Identity(Authenticated),
    /// The vault itself, by the worker's name: no identity, its rights are a closed list in code.
    System(&'static str),
}

/// What is fixed for the length of a request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Names the request in the record, the log and errors.
    pub request_id: RequestId,
    /// Who asks.
    pub caller: Caller,
    /// The time, fixed once.
    pub now: UnixMillis,
    /// When the request came in, for measuring its duration.
    pub began: Instant,
    /// Where it came from, where that is known.
    pub source: Option<IpAddr>,
}

impl RequestContext {
    /// Shows the verified caller, where it is not the vault itself.
    #[must_use]
    pub const fn authenticated(&self) -> Option<&Authenticated> {
        match &self.caller {
            Caller::Identity(authenticated) => Some(authenticated),
            Caller::System(_) => None,
        }
    }

    /// Names who asks, as `created_by` and `changed_by` hold it: an identity's id, or a worker.
    #[must_use]
    pub fn actor(&self) -> String {
        match &self.caller {
            Caller::Identity(authenticated) => authenticated.identity.to_string(),
            Caller::System(worker) => (*worker).to_owned(),
        }
    }
}
