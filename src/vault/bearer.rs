//! Bearer tokens: found by their id, proved by their MAC, accepted where everything about them
//! still stands.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::HEXLOWER;

use super::subject::{self, Subject};
use super::subjects::Wanted;
use super::{Resource, TokenDetail, Vault};
use crate::crypto::MacKey;
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::policy::Reason;
use crate::store::Versioned;
use crate::store::credentials::CredentialRow;
use crate::types::{
    AccessToken, AuthMethod, Authenticated, Bearer, CredentialId, CredentialKind, CredentialState,
    IdentityId, LeaseHandle, SingleUseToken, TokenSecret, TokenType, UnixMillis,
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
const FOR_ITSELF: &[&str] = &["identities.whoami", "tokens.create", "factors.verify"];
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

/// Tells whether a token is the one that was made, by what is stored of it.
pub(super) fn proves(row: &CredentialRow, handle: &[u8; 32]) -> bool {
    let same = |stored: &[u8]| verify_slices_are_equal(stored, handle).is_ok();
    row.kind == CredentialKind::Token && row.handle.as_deref().is_some_and(same)
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
                let wanted = Wanted::Id(handle.id());
                let claims =
                    |subject: &Subject| subject.through.as_ref().is_none_or(|it| it.admits(&with));
                return self.authenticated(wanted, AuthMethod::Handle, now, claims).await;
            }
        };
        let handle = handle_of(&key, token, id, secret);
        let method = AuthMethod::Token { certificate: with.certificate };
        let claims = |subject: &Subject| {
            proves(&subject.credential.row, &handle) && subject.accepts(token, &with)
        };
        self.authenticated(Wanted::Token(id, handle), method, now, claims).await
    }

    async fn authenticated(
        &self,
        wanted: Wanted,
        method: AuthMethod,
        now: UnixMillis,
        claims: impl FnOnce(&Subject) -> bool,
    ) -> Result<Authenticated> {
        let subject = match self.checked(&wanted, method, now).await {
            Ok(subject) if claims(&subject) => subject,
            Err(error @ (Error::Sealed | Error::Unavailable(_))) => return Err(error),
            // Whatever else it was is in the log: a stranger hears the one sentence.
            Ok(_) | Err(_) => return Err(subject::refused()),
        };
        let credential = subject.credential.row.id;
        Ok(Authenticated { identity: subject.identity.row.id, credential, method })
    }

    /// Finds a subject whose credential is accepted for a method. What is kept of a token does not
    /// refuse it: it may have been renewed since. Nor does it stand for long where uses are counted,
    /// which moves no epoch.
    pub(super) async fn checked(
        &self,
        wanted: &Wanted,
        method: AuthMethod,
        now: UnixMillis,
    ) -> Result<Arc<Subject>> {
        if let Some(kept) = self.core.subjects.lookup(wanted) {
            match (kept.check(now, method), method) {
                (Ok(()), _) if !(kept.is_counted() && kept.is_old(now)) => return Ok(kept),
                (_, AuthMethod::Token { .. }) => {
                    self.core.subjects.forget(kept.credential.row.id);
                }
                (outcome, AuthMethod::Mtls { .. } | AuthMethod::Signature | AuthMethod::Handle) => {
                    return outcome.map(|()| kept);
                }
            }
        }
        let loaded = Box::pin(self.load(wanted.clone(), now)).await?;
        let found = loaded.ok_or_else(subject::refused)?;
        found.check(now, method).map(|()| found)
    }
}

impl TokenDetail {
    /// Tells whether a token, or the handle of what it paid for, is accepted from here, by this
    /// node, with this certificate (RFC 8705, section 3.1).
    fn admits(&self, with: &Presented<'_>) -> bool {
        let from = self.sources.is_empty()
            || with.source.is_some_and(|at| self.sources.iter().any(|range| range.contains(at)));
        let meant =
            self.audience.is_empty() || self.audience.iter().any(|name| with.names.contains(name));
        let bound = self.certificate.as_ref().is_none_or(|thumbprint| {
            with.certificate.is_some_and(|shown| HEXLOWER.encode(&shown) == *thumbprint)
        });
        from && meant && bound
    }
}

impl Subject {
    /// Tells whether a token is accepted as this type, and otherwise.
    fn accepts(&self, token: TokenType, with: &Presented<'_>) -> bool {
        let typed = |detail: &TokenDetail| detail.single_use == (token == TokenType::SingleUse);
        self.token.as_ref().is_some_and(|detail| typed(detail) && detail.admits(with))
    }

    /// The credential, where what it makes, for whomever, is to end with it and to last no longer: a
    /// token, or a login that hangs on one.
    #[must_use]
    pub fn bond(&self) -> Option<&CredentialRow> {
        let token = |above: &Versioned<CredentialRow>| above.row.kind == CredentialKind::Token;
        let bonds = self.token.is_some() || self.ancestors.iter().any(token);
        bonds.then_some(&self.credential.row)
    }

    /// The credential, where what it makes for its own identity is to end when it is revoked: also a
    /// login that hangs on an enrolment, which its renewals outlive.
    #[must_use]
    pub fn hook(&self) -> Option<CredentialId> {
        let hangs = self.token.is_some() || !self.ancestors.is_empty();
        hangs.then_some(self.credential.row.id)
    }

    /// What a login or an enrolment hangs on that it makes for an identity.
    #[must_use]
    pub fn hook_of(&self, whose: IdentityId) -> Option<CredentialId> {
        if whose == self.identity.row.id { self.hook() } else { self.bond().map(|row| row.id) }
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
            (AuthMethod::Mtls { .. } | AuthMethod::Signature, _) => None,
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
