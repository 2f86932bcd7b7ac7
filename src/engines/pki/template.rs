//! Templates: what a certificate will say, decided and complete but for serial and time.
//!
//! Made only by a checked profile, for a login, for the vault's own listener, or for an authority;
//! must not know how certificates are written.

use std::time::Duration;

use super::authority::Role;
use super::csr::Request;
use super::key::PublicKey;
use super::names::{MAX_NAMES, SubjectName};
use super::profile::{KeyUse, MIN_TTL, Usage};
use super::spiffe::SpiffeId;
use crate::error::{Error, Result};

/// Life of a login certificate where none is asked for.
pub const LOGIN_TTL: Duration = Duration::from_hours(24);

/// What a certificate will say.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) issuer: Role,
    pub(super) key: PublicKey,
    pub(super) body: Body,
    pub(super) ttl: Duration,
}

/// The part that differs between authorities and everybody else.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Leaf { names: Vec<SubjectName>, usages: Vec<Usage>, key_uses: Vec<KeyUse> },
    Authority { common_name: String, path_len: u8 },
}

impl Template {
    /// Says what a login certificate carries: one URI, client authentication, nothing else.
    ///
    /// A request may name exactly that URI or nothing; its common name may repeat the identity's
    /// name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the request asks for more, or the TTL is under a minute.
    pub fn login(request: &Request, id: &SpiffeId, ttl: Option<Duration>) -> Result<Self> {
        let uri = SubjectName::uri(&id.to_string())?;
        if request.names().iter().any(|name| *name != uri) {
            return Err(Error::invalid(format!(
                "a request for this login certificate may carry the name {uri} and no other"
            )));
        }
        request.common_name_is_one_of([uri.text(), id.name.to_string()])?;
        let ttl = ttl.unwrap_or(LOGIN_TTL);
        if ttl < MIN_TTL {
            return Err(Error::invalid("a login certificate lives for at least 60 s"));
        }
        let leaf = Self::leaf(
            request.key().clone(),
            vec![uri],
            &[Usage::Client],
            &[KeyUse::DigitalSignature],
            ttl,
        );
        Ok(Self { issuer: Role::Login, ..leaf })
    }

    /// Says what the certificate of the vault's own listener carries.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a name is neither host nor address, or there is none.
    pub fn server(key: PublicKey, names: Vec<SubjectName>, ttl: Duration) -> Result<Self> {
        let fits = names.iter().all(|n| matches!(n, SubjectName::Dns(_) | SubjectName::Ip(_)));
        if !fits || names.is_empty() || names.len() > MAX_NAMES || ttl < MIN_TTL {
            return Err(Error::invalid("a listener's certificate carries hosts and addresses"));
        }
        Ok(Self::leaf(key, names, &[Usage::Server], &[KeyUse::DigitalSignature], ttl))
    }

    pub(super) fn leaf(
        key: PublicKey,
        names: Vec<SubjectName>,
        usages: &[Usage],
        key_uses: &[KeyUse],
        ttl: Duration,
    ) -> Self {
        let body = Body::Leaf { names, usages: usages.to_vec(), key_uses: key_uses.to_vec() };
        Self { issuer: Role::Issuing, key, body, ttl }
    }

    /// Shows the names, none for an authority.
    #[must_use]
    pub fn names(&self) -> &[SubjectName] {
        match &self.body {
            Body::Leaf { names, .. } => names,
            Body::Authority { .. } => &[],
        }
    }

    /// Tells how long the certificate lives.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Shows the key that the certificate vouches for.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }
}
