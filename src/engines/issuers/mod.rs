//! Issuers of OIDC tokens that are believed, the rules that bind their claims to identities, and
//! logging in by them: federation, so that a workload stores no secret, and people sign in where
//! their company has them do.
//!
//! Must not know how a request came in. What a token is believed for is decided by its signature and
//! by rules alone, before policy is asked about anything.

mod candidates;
mod change;
mod definition;
mod fetch;
mod json;
mod jwk;
mod jwt;
mod keep;
mod keys;
mod login;
mod memory;
mod preset;
mod provider;
mod refused;
mod register;
mod review;
mod rule;
mod rules;
mod show;
mod sign_in;
mod template;
mod test;
mod verify;

pub use change::{AddIssuer, RemoveIssuer, UpdateIssuer};
pub use definition::{IssuerDefinition, KeySource, Review};
pub use fetch::request_id_token;
pub use jwt::TOKEN_BYTES;
pub use keep::{EndSessions, Ending, PurgeUses};
pub use keys::IssuerKeys;
pub use login::{Login, LoginRequest, Session};
pub use provider::{Asked, DeviceCode, Doors, NoToken, Polled, Way};
pub use refused::{Refused, Why};
pub use rule::{Condition, RuleDefinition, Scalar};
pub use rules::{AddRule, Binds, DescribedRule, ListRules, RemoveRule};
pub use show::{DescribedIssuer, ListIssuers, ShowIssuer};
pub use sign_in::{Provider, nonce_of, providers};
pub use template::Template;
pub use test::{TestToken, Tested, Trial};

use refused::refused;

use crate::error::Error;

/// The one sentence that every refused login hears.
#[must_use]
pub fn not_accepted() -> Error {
    refused()
}
