//! Takes a request in: who calls, from where. Nothing else is looked at before.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap};
use parking_lot::Mutex;
use tonic::{Request, Status};

use super::status::status;
use super::tls::{PeerCertificate, PeerInfo, Tls, Trust};
use super::wrapping;
use crate::auth::{mtls, token};
use crate::engines::pki::{AuthoritySlot, SubjectName};
use crate::error::{Error, Result};
use crate::types::{Bearer, Caller, RequestContext, UnixMillis};
use crate::vault::{Presented, Vault, WrapOrder};

/// The gate that every service stands behind.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) vault: Vault,
    /// Where the engines find the authorities.
    pub(super) authorities: AuthoritySlot,
    tls: Arc<Tls>,
    /// What this node is called: the audience of tokens that it accepts.
    names: Arc<[String]>,
    checked: Arc<Mutex<HashMap<[u8; 32], Checked>>>,
}

/// When a certificate's chain was last verified, and against which trust.
#[derive(Debug)]
struct Checked {
    at: UnixMillis,
    trust: Arc<Trust>,
}

/// How long a verified chain stands on a connection.
const RECHECK: Duration = Duration::from_mins(1);
/// Certificates remembered.
const KEPT: usize = 20_000;

impl Gate {
    pub(super) fn new(
        vault: Vault,
        authorities: AuthoritySlot,
        tls: Arc<Tls>,
        server_names: &[SubjectName],
    ) -> Self {
        let mut names = vec![vault.installation().trust_domain.clone()];
        names.extend(server_names.iter().map(SubjectName::text));
        Self { vault, authorities, tls, names: names.into(), checked: Arc::default() }
    }

    /// Authenticates the caller and fixes the request's id and time.
    pub(super) async fn accept<T>(
        &self,
        request: Request<T>,
    ) -> Result<(RequestContext, T), Status> {
        let headers = request.metadata().as_ref();
        let ctx = self.know(headers, request.extensions()).await?;
        Ok((ctx, request.into_inner()))
    }

    /// The same, from what stands before a request's message. What asks for a wrap is refused: whoever
    /// can give one says so by [`Gate::accept_wrapping`].
    pub(super) async fn know(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<RequestContext, Status> {
        let ctx = self.identify(headers, extensions).await?;
        self.read(&ctx, wrapping::refuse(headers))?;
        Ok(ctx)
    }

    /// The same, and how the answer is to be wrapped, where the request asks for that.
    pub(super) async fn accept_wrapping<T>(
        &self,
        request: Request<T>,
    ) -> Result<(RequestContext, T, Option<WrapOrder>), Status> {
        let headers = request.metadata().as_ref();
        let ctx = self.identify(headers, request.extensions()).await?;
        let order = self.read(&ctx, wrapping::order(headers))?;
        Ok((ctx, request.into_inner(), order))
    }

    async fn identify(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<RequestContext, Status> {
        let peer = extensions.get::<PeerInfo>().cloned();
        let source = peer.as_ref().map(|peer| peer.address.ip().to_canonical());
        let bearer = token::bearer(headers);
        let caller = match bearer {
            Ok(Some(bearer)) => self.authenticate_bearer(&bearer, peer, source).await,
            Ok(None) => self.authenticate(peer).await,
            Err(error) => Err(error),
        };
        match caller {
            Ok(caller) => {
                let ctx = self.vault.context(caller, source);
                ctx.map_err(|error| status(&error, None))
            }
            Err(error) => {
                self.vault.count_stranger(error.reason(), source);
                Err(status(&error, None))
            }
        }
    }

    async fn authenticate(&self, peer: Option<PeerInfo>) -> Result<Caller> {
        let certificate = peer.and_then(|peer| peer.certificate).ok_or_else(|| {
            Error::Unauthenticated(
                "present a login certificate as the TLS client certificate, or a token".into(),
            )
        })?;
        // The connection may be older than the certificate's end, or than a change of trust.
        if !self.still_valid(&certificate)? {
            return Err(Error::Unauthenticated("the certificate is no longer trusted".into()));
        }
        mtls::authenticate(&self.vault, certificate.der_sha256, &certificate.id)
            .await
            .map(Caller::Identity)
    }

    /// A token is the credential; a certificate beside it is what the token may be bound to.
    async fn authenticate_bearer(
        &self,
        bearer: &Bearer,
        peer: Option<PeerInfo>,
        source: Option<IpAddr>,
    ) -> Result<Caller> {
        let certificate = match peer.and_then(|peer| peer.certificate) {
            Some(certificate) if self.still_valid(&certificate)? => Some(certificate.der_sha256),
            Some(_) | None => None,
        };
        let with = Presented { source, certificate, names: &self.names };
        token::authenticate(&self.vault, bearer, with).await.map(Caller::Identity)
    }

    /// Checks a name that a token's audience is to hold.
    pub(super) fn known_as(name: String) -> Result<String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".:-".contains(&b);
        if (1..=253).contains(&name.len()) && name.bytes().all(plain) {
            Ok(name)
        } else {
            Err(Error::invalid("an audience is a host name, in lowercase, or an address"))
        }
    }

    /// Verifies a connection's chain again each minute, and whenever trust was replaced.
    fn still_valid(&self, certificate: &PeerCertificate) -> Result<bool> {
        let (now, trust) = (self.vault.now()?, self.tls.trust());
        if certificate.not_after < now {
            return Ok(false);
        }
        let fingerprint = certificate.der_sha256;
        let fresh = self.checked.lock().get(&fingerprint).is_some_and(|checked| {
            now.since(checked.at) < RECHECK && Arc::ptr_eq(&checked.trust, &trust)
        });
        if fresh {
            return Ok(true);
        }
        let valid = certificate.still_valid(now, &trust);
        let mut checked = self.checked.lock();
        if checked.len() >= KEPT {
            checked.clear();
        }
        if valid {
            checked.insert(fingerprint, Checked { at: now, trust });
        }
        Ok(valid)
    }

    /// Hands on what was read of a request. One that cannot be read never comes before the vault,
    /// which records what does: it is counted here.
    pub(super) fn read<T>(&self, ctx: &RequestContext, read: Result<T>) -> Result<T, Status> {
        if let Err(error) = &read {
            self.vault.count_unread(ctx, error.reason());
        }
        Self::answer(ctx, read)
    }

    /// Turns an engine's answer into the wire's.
    pub(super) fn answer<T>(ctx: &RequestContext, result: Result<T>) -> Result<T, Status> {
        result.map_err(|error| status(&error, Some(ctx.request_id)))
    }
}
