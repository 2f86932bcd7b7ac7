//! Bearer tokens: found by their id, proved by their MAC, accepted where everything about them
//! still stands.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::HEXLOWER;

use super::subject::{self, Subject};
use super::subjects::Wanted;
use super::{Resource, Vault};
use crate::crypto::MacKey;
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::policy::Reason;
use crate::types::{
    AccessToken, AuthMethod, Authenticated, Bearer, CredentialId, CredentialState, LeaseHandle,
    SingleUseToken, TokenSecret, TokenType, UnixMillis,
};

/// What comes with a token.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Where the request came from.
    pub source: Option<IpAddr>,
    /// SHA-256 of the client certificate's DER, whose chain stands.
    pub certificate: Option<[u8; 32]>,
    /// What this node is called.
    pub names: &'a [String],
}

/// What a bearer may do without looking at its scope, with itself and for itself alone.
const WITH_ITSELF: &[&str] = &["tokens.inspect", "tokens.renew", "tokens.revoke"];
const FOR_ITSELF: &[&str] = &["identities.whoami", "tokens.create"];
/// What the handle of a lease is for.
const OF_HANDLES: &[&str] = &["leases.renew", "leases.revoke"];

/// Computes what is stored of a token.
#[must_use]
pub fn handle_of(
    key: &MacKey,
    token: TokenType,
    id: CredentialId,
    secret: &TokenSecret,
) -> [u8; 32] {
    let parts: [&[u8]; 4] =
        [b"strongroom/token/v1\0", token.prefix().as_bytes(), id.0.as_bytes(), secret.expose()];
    key.tag(&parts)
}

/// Makes the handle of a lease. Nothing is stored of it: it is as good as the lease.
///
/// # Errors
/// [`Error::Sealed`].
pub fn lease_handle(keyring: &Keyring, lease: CredentialId) -> Result<LeaseHandle> {
    let key = keyring.token_key()?;
    Ok(LeaseHandle::new(lease, TokenSecret::derived(handle_bits(&key, lease))))
}

fn handle_bits(key: &MacKey, lease: CredentialId) -> [u8; 32] {
    key.tag(&[b"strongroom/lease-handle/v1\0", lease.0.as_bytes()])
}

impl Vault {
    /// Finds the caller behind a bearer token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], the same sentence whatever is wrong; [`Error::Sealed`].
    pub async fn authenticate_bearer(
        &self,
        bearer: &Bearer,
        with: Presented<'_>,
    ) -> Result<Authenticated> {
        if self.is_sealed() {
            return Err(Error::Sealed);
        }
        let (now, key) = (self.core.clock.now()?, self.core.keyring.token_key()?);
        let (token, id, secret) = match bearer {
            Bearer::Access(token) => (AccessToken::TYPE, token.id(), token.secret()),
            Bearer::SingleUse(token) => (SingleUseToken::TYPE, token.id(), token.secret()),
            Bearer::Handle(handle) => {
                let bits = TokenSecret::derived(handle_bits(&key, handle.id()));
                if *handle.secret() != bits {
                    return Err(subject::refused());
                }
                return self.authenticated(handle.id(), AuthMethod::Handle, now, |_| true).await;
            }
        };
        let handle = handle_of(&key, token, id, secret);
        let method = AuthMethod::Token { certificate: with.certificate };
        self.authenticated(id, method, now, |subject| {
            let row = &subject.credential.row;
            let proved = row
                .handle
                .as_deref()
                .is_some_and(|stored| verify_slices_are_equal(stored, &handle).is_ok());
            proved && subject.accepts(token, &with)
        })
        .await
    }

    async fn authenticated(
        &self,
        id: CredentialId,
        method: AuthMethod,
        now: UnixMillis,
        claims: impl FnOnce(&Subject) -> bool,
    ) -> Result<Authenticated> {
        let subject = self.checked(&Wanted::Id(id), method, now).await?;
        if !claims(&subject) {
            return Err(subject::refused());
        }
        Ok(Authenticated { identity: subject.identity.row.id, credential: id, method })
    }

    /// Finds a subject whose credential is accepted for a method. What was kept of a token does not
    /// refuse it, because it may have been renewed since; what was just read of it does.
    pub(super) async fn checked(
        &self,
        wanted: &Wanted,
        method: AuthMethod,
        now: UnixMillis,
    ) -> Result<Arc<Subject>> {
        if let Some(kept) = self.core.subjects.lookup(wanted) {
            match (kept.check(now, method), method) {
                (Ok(()), _) => return Ok(kept),
                (Err(_), AuthMethod::Token { .. }) => {
                    self.core.subjects.forget(kept.credential.row.id);
                }
                (Err(error), AuthMethod::Mtls { .. } | AuthMethod::Handle) => return Err(error),
            }
        }
        let found = self.load(wanted.clone()).await?.ok_or_else(subject::refused)?;
        found.check(now, method).map(|()| found)
    }
}

impl Subject {
    /// Tells whether a token is accepted as this type, from here, by this node, with this
    /// certificate (RFC 8705, section 3.1).
    fn accepts(&self, token: TokenType, with: &Presented<'_>) -> bool {
        let Some(detail) = &self.token else { return false };
        let typed = detail.single_use == (token == TokenType::SingleUse);
        let from = detail.sources.is_empty()
            || with.source.is_some_and(|at| detail.sources.iter().any(|range| range.contains(at)));
        let meant = detail.audience.is_empty()
            || detail.audience.iter().any(|name| with.names.contains(name));
        let bound = detail.certificate.as_ref().is_none_or(|thumbprint| {
            with.certificate.is_some_and(|shown| HEXLOWER.encode(&shown) == *thumbprint)
        });
        typed && from && meant && bound
    }

    /// Whether the caller's uses are counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.uses_left.is_some())
    }

    /// Whether the caller's last use is made.
    pub(super) fn is_spent(&self) -> bool {
        self.credential.row.state == CredentialState::Spent
    }

    /// What no policy lifts of what a token or a handle is limited to.
    pub(super) fn objection(
        &self,
        method: AuthMethod,
        action: &str,
        administrative: bool,
        resources: &[Resource],
    ) -> Option<Reason> {
        let own = Some(self.credential.row.id.0);
        let of_itself = || {
            let identity = Some(self.identity.row.id.0);
            resources.iter().all(|resource| resource.id == identity)
        };
        let administrative = administrative && !(action == "identities.show" && of_itself());
        let with_itself = resources.iter().all(|resource| resource.id == own);
        match (method, &self.token) {
            (AuthMethod::Mtls { .. }, _) => None,
            (AuthMethod::Token { .. }, Some(token)) => {
                let free =
                    FOR_ITSELF.contains(&action) || (with_itself && WITH_ITSELF.contains(&action));
                if free {
                    return None;
                }
                if administrative && token.uses_left.is_some() {
                    return Some(Reason::TokenLimited);
                }
                let allowed =
                    |one: &Resource| token.allows(action, administrative, one.name.as_str());
                if resources.iter().all(allowed) {
                    return None;
                }
                Some(if administrative { Reason::TokenLimited } else { Reason::OutOfScope })
            }
            (AuthMethod::Handle, _) if with_itself && OF_HANDLES.contains(&action) => None,
            (AuthMethod::Handle | AuthMethod::Token { .. }, _) => Some(Reason::HandleLimited),
        }
    }
}
