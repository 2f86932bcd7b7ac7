//! Join tokens, traded for the first login certificate of an enrolment.
//!
//! Whoever presents one is a stranger until it is proven: what is refused is counted, never answered
//! in detail, and nothing of it is written.

use std::net::IpAddr;

use crate::engines::enrolments::{Asks, Join, not_accepted};
use crate::engines::pki::{AuthoritySlot, LoginIssued, LoginTtl, Request};
use crate::error::{Error, Result};
use crate::types::{Caller, JoinToken, SecretBytes};
use crate::vault::Vault;

/// Who lets machines in, as the record names it.
const NAME: &str = "enrolment";
/// Times that what a join stands on may move under it.
const ATTEMPTS: usize = 3;

/// What is presented.
#[derive(Debug)]
pub struct Presented<'a> {
    /// The text of the token.
    pub token: &'a SecretBytes,
    /// The request for a certificate, PEM.
    pub csr_pem: &'a str,
    /// Where the authorities are.
    pub authorities: &'a AuthoritySlot,
    /// How long login certificates live.
    pub limits: LoginTtl,
}

/// Trades a join token and a request for a certificate.
///
/// # Errors
/// [`Error::Unauthenticated`], the same sentence whatever is wrong with token or identity;
/// [`Error::Spent`] to whoever has the token and comes second; [`Error::Invalid`] and
/// [`Error::Precondition`] for a request that gets no certificate; what the vault answers.
pub async fn join(
    vault: &Vault,
    source: Option<IpAddr>,
    presented: &Presented<'_>,
) -> Result<LoginIssued> {
    if vault.is_sealed() {
        return Err(Error::Sealed);
    }
    let join = match read(presented) {
        Ok(join) => join,
        Err(error) => return Err(refused(vault, source, error)),
    };
    let mut moved = Error::Conflict("what this enrolment stands on keeps changing; retry".into());
    for _ in 0..ATTEMPTS {
        let ctx = vault.context(Caller::System(NAME), source)?;
        match vault.run(&ctx, join.clone()).await {
            Ok(came) => return came.told(),
            Err(error @ Error::Conflict(_)) => moved = error,
            Err(error) => return Err(refused(vault, source, error)),
        }
    }
    Err(moved)
}

/// Reads the token first: who has none learns nothing else.
fn read(presented: &Presented<'_>) -> Result<Join> {
    let token = JoinToken::parse(presented.token.expose())?;
    let request = Request::parse(presented.csr_pem.as_bytes())?;
    let authorities = presented.authorities.clone();
    Ok(Join { token, asks: Asks { authorities, limits: presented.limits, request } })
}

/// Counts a stranger, and says what it hears: whatever else it was is in the log.
fn refused(vault: &Vault, source: Option<IpAddr>, error: Error) -> Error {
    let passes = matches!(
        error,
        Error::Sealed | Error::Unavailable(_) | Error::OutcomeUnknown | Error::Deadline
    );
    if passes {
        return error;
    }
    vault.count_stranger(error.reason(), source);
    let told = matches!(
        error,
        Error::Unauthenticated(_) | Error::Spent(_) | Error::Invalid(_) | Error::Precondition(_)
    );
    if told {
        return error;
    }
    tracing::error!(%error, "a join could not be decided");
    not_accepted()
}
