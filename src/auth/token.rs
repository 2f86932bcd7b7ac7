//! Bearer tokens: `authorization: Bearer sr?_…`.
//!
//! Whoever sends that header means it: what is in it is the credential, whatever else the
//! connection could prove, and a bad one never falls back to a certificate.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::error::{Error, Result};
use crate::types::{Authenticated, Bearer};
use crate::vault::{Presented, Vault};

const SCHEME: &[u8] = b"Bearer ";

/// Takes the bearer token out of a request's headers; none where there is no such header.
///
/// # Errors
/// [`Error::Unauthenticated`] for another scheme, for two of them, and for what is no token.
pub fn bearer(headers: &HeaderMap) -> Result<Option<Bearer>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused =
        || Error::Unauthenticated("send one authorization header: `Bearer` and a token".into());
    if values.next().is_some() {
        return Err(refused());
    }
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len()).ok_or_else(refused)?;
    // The scheme's case says nothing (RFC 9110, section 11.1).
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(refused());
    }
    Bearer::parse(token).map(Some)
}

/// Finds the caller behind a token.
///
/// # Errors
/// [`Error::Unauthenticated`], the same sentence whatever is wrong.
pub async fn authenticate(
    vault: &Vault,
    bearer: &Bearer,
    with: Presented<'_>,
) -> Result<Authenticated> {
    vault.authenticate_bearer(bearer, with).await
}
