//! Templates: what a certificate will say, decided and complete but for serial and time.
//!
//! Made only by a checked profile, for a login, for the vault's own listener, or for an authority;
//! must not know how certificates are written.

use std::fmt;
use std::time::Duration;

use super::authority::Role;
use super::csr::Request;
use super::key::PublicKey;
use super::names::{MAX_NAMES, SubjectName};
use super::profile::{KeyUse, MIN_TTL, Usage};
use super::spiffe::SpiffeId;
use crate::error::{Error, Result};
use crate::types::Entropy;

/// Life of a login certificate where none is asked for.
pub const LOGIN_TTL: Duration = Duration::from_hours(24);

/// A serial number: 20 octets, positive, 158 of its bits random.
///
/// Source: RFC 5280, section 4.1.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial([u8; Self::LEN_BYTES]);

impl Serial {
    /// Octets of every serial.
    pub const LEN_BYTES: usize = 20;

    /// Draws a serial; it is stored before anything is signed over it.
    ///
    /// # Errors
    /// [`Error::Internal`] when the generator fails.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = [0; Self::LEN_BYTES];
        entropy.fill(&mut bytes)?;
        let [first, ..] = &mut bytes;
        // Positive, and always of full length.
        *first = *first & 0x3f | 0x40;
        Ok(Self(bytes))
    }

    /// Takes a serial from the store.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is none that was drawn here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match <[u8; Self::LEN_BYTES]>::try_from(bytes) {
            Ok(serial @ [0x40..=0x7f, ..]) => Ok(Self(serial)),
            Ok(_) | Err(_) => Err(Error::internal("a stored serial is malformed")),
        }
    }

    /// Shows the 20 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

impl fmt::Display for Serial {
    /// Writes 40 lowercase hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
