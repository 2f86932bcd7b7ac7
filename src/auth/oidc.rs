//! Tokens of OIDC issuers, traded for a session.
//!
//! Whoever presents one is a stranger until it is believed: what is refused is counted, never
//! answered in detail, and nothing of it is written.

use std::net::IpAddr;

use crate::engines::issuers::{
    IssuerKeys, Login, LoginRequest, Provider, Refused, Session, not_accepted, providers,
};
use crate::error::{Error, Result};
use crate::store::Reader;
use crate::types::{Caller, TaskGroup};
use crate::vault::Vault;

/// Who logs identities in, as the record names it.
const NAME: &str = "federation";
/// Times that what a login stands on may move under it.
const ATTEMPTS: usize = 3;

/// Logs in by issuers.
#[derive(Debug, Clone)]
pub struct Federation {
    reader: Reader,
    keys: IssuerKeys,
}

impl Federation {
    /// Makes one that knows no keys yet, and fetches them in these tasks.
    #[must_use]
    pub fn new(reader: Reader, tasks: TaskGroup) -> Self {
        Self { reader, keys: IssuerKeys::new(tasks) }
    }

    /// The keys of issuers.
    #[must_use]
    pub const fn keys(&self) -> &IssuerKeys {
        &self.keys
    }

    /// Lists where people sign in. That is for whoever asks, and stands on no record.
    ///
    /// # Errors
    /// [`Error::Sealed`]; what the store answers, without what is wrong with it.
    pub async fn providers(&self, vault: &Vault) -> Result<Vec<Provider>> {
        if vault.is_sealed() {
            return Err(Error::Sealed);
        }
        providers(&self.reader).await.map_err(|error| {
            tracing::error!(%error, "where people sign in could not be read");
            Error::unavailable("where people sign in is not known for now")
        })
    }

    /// Trades a token for a session.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], the same sentence whatever is wrong with token, rules or identity;
    /// [`Error::Invalid`] for a token that is too large; what the vault answers.
    pub async fn login(
        &self,
        vault: &Vault,
        source: Option<IpAddr>,
        request: &LoginRequest<'_>,
    ) -> Result<Session> {
        if vault.is_sealed() {
            return Err(Error::Sealed);
        }
        let mut moved = Error::Conflict("what this login stands on keeps changing; retry".into());
        for _ in 0..ATTEMPTS {
            match self.attempt(vault, source, request).await {
                Err(error @ Error::Conflict(_)) => moved = error,
                answer => return answer,
            }
        }
        Err(moved)
    }

    async fn attempt(
        &self,
        vault: &Vault,
        source: Option<IpAddr>,
        request: &LoginRequest<'_>,
    ) -> Result<Session> {
        let ctx = vault.context(Caller::System(NAME), source)?;
        let id = vault.installation().id;
        match Login::verify(&self.reader, &self.keys, id, request, ctx.now).await {
            Ok(login) => vault.run(&ctx, login).await.map_err(told),
            Err(Refused::Token(why)) => {
                vault.count_stranger(why.word, source);
                Err(not_accepted())
            }
            Err(Refused::Vault(error @ (Error::Invalid(_) | Error::Unavailable(_)))) => {
                vault.count_stranger(error.reason(), source);
                Err(error)
            }
            Err(Refused::Vault(Error::Sealed)) => Err(Error::Sealed),
            // Whatever else it was is in the log: a stranger hears the one sentence.
            Err(Refused::Vault(error)) => {
                tracing::error!(%error, "a login could not be decided");
                vault.count_stranger(error.reason(), source);
                Err(not_accepted())
            }
        }
    }
}

/// What somebody hears who is believed and gets nothing all the same: neither how much there may be
/// nor what the rule lacks.
fn told(error: Error) -> Error {
    let full = matches!(error, Error::Exhausted(_));
    if !full && !matches!(error, Error::Precondition(_)) {
        return error;
    }
    tracing::warn!(%error, "a login by a token that is believed came to nothing");
    // Waiting helps against a limit alone: programs have to know the two apart.
    if full {
        let text = "nothing more is given for this token for now; the vault's log says why";
        Error::Exhausted(text.into())
    } else {
        not_accepted()
    }
}
