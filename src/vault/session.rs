//! Sessions: tokens that somebody got for an issuer's token. They are dead from the commit on that
//! removes the rule or the issuer that gave them, because both are looked at with them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DEPTH, TokenDetail};
use crate::error::{Error, Result};
use crate::policy::SignInFacts;
use crate::store::credentials::CredentialRow;
use crate::store::issuers::{IssuerRow, RuleRow};
use crate::store::{RowRef, Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, CredentialState, Id, ObjectId, UnixMillis};

/// What a token was got for, in its detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The issuer's id.
    pub issuer: String,
    /// The rule's id.
    pub rule: String,
    /// The issuer's revocation epoch; a lower one than its is dead.
    pub epoch: i64,
    /// What was used up for it: see [`crate::store::issuers::Use`].
    pub used: String,
    /// What the issuer said of a person's signing in; none where a machine logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignIn>,
}

/// What a provider said of a person's signing in, verified when it was believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The issuer's name.
    pub issuer: String,
    /// What the provider calls the person.
    pub sub: String,
    /// The groups that it says the person is in: its own, and none of the vault's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// How the person proved who they are (RFC 8176).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// When the person did, in Unix milliseconds; none where the provider does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time_ms: Option<i64>,
}

impl SignIn {
    /// When the person proved who they are; the beginning of time where nobody said.
    #[must_use]
    pub fn auth_time(&self) -> UnixMillis {
        UnixMillis(self.auth_time_ms.unwrap_or(0))
    }

    /// Says it on the record.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { issuer, sub, groups: _, amr, auth_time_ms } = self;
        let at = auth_time_ms.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
        format!("signed in by {issuer} as {sub}, auth_time {at}, amr {}", amr.join(" "))
    }

    /// The same, as facts.
    #[must_use]
    pub fn facts(&self) -> SignInFacts<'_> {
        let Self { issuer, sub, groups, amr, auth_time_ms: _ } = self;
        SignInFacts { issuer, sub, groups, amr }
    }
}

/// What a session stands on.
#[derive(Debug)]
pub(super) struct Session {
    issuer: Versioned<IssuerRow>,
    rule: Versioned<RuleRow>,
    epoch: i64,
    pub(super) sign_in: Option<SignIn>,
}

impl Session {
    /// Reads what a token stands on, where that is an issuer's.
    async fn of(tx: &mut Tx, token: Option<&TokenDetail>) -> Result<Option<Arc<Self>>> {
        match token.and_then(|token| token.session.as_ref()) {
            Some(origin) => Ok(Some(Arc::new(Self::load(tx, origin).await?))),
            None => Ok(None),
        }
    }

    /// Reads what a credential stands on, by what stands above it: what was got for an issuer's
    /// token hangs on nothing.
    pub(super) async fn below(
        tx: &mut Tx,
        token: Option<&TokenDetail>,
        root: Option<&Versioned<CredentialRow>>,
    ) -> Result<Option<Arc<Self>>> {
        match root {
            None => Self::of(tx, token).await,
            Some(root) if root.row.kind == CredentialKind::Token => {
                Self::of(tx, Some(&TokenDetail::decode(&root.row.detail)?)).await
            }
            Some(_) => Ok(None),
        }
    }

    async fn load(tx: &mut Tx, origin: &Origin) -> Result<Self> {
        let missing = || Error::internal("a session without what gave it");
        let id = |text: &str| text.parse::<Id>().map(ObjectId);
        let issuer = tx.lookup::<IssuerRow>(&id(&origin.issuer)?).await?.ok_or_else(missing)?;
        let rule = tx.lookup::<RuleRow>(&id(&origin.rule)?).await?.ok_or_else(missing)?;
        Ok(Self { issuer, rule, epoch: origin.epoch, sign_in: origin.sign_in.clone() })
    }

    /// Tells whether what gave it is still believed.
    pub(super) fn stands(&self) -> bool {
        let (issuer, rule) = (&self.issuer.row, &self.rule.row);
        issuer.active && rule.active && self.epoch == issuer.revocation_epoch
    }

    /// The rows that say so.
    pub(super) fn fences(&self) -> [RowRef; 2] {
        [self.issuer.fence(), self.rule.fence()]
    }
}

/// Tells whether a credential was revoked, or anything that it hangs on, or whether what gave it is
/// believed no more. That it expired or was spent is no such end, and no worker is waited for.
///
/// # Errors
/// What the store answers.
pub(super) async fn is_revoked(tx: &mut Tx, credential: CredentialId) -> Result<bool> {
    let mut next = credential;
    // As deep as any can be: itself, the tokens above it, a login and an enrolment.
    for _ in 0..DEPTH.saturating_add(3) {
        let missing = || Error::internal("a credential without what it hangs on");
        let row = tx.lookup::<CredentialRow>(&next).await?.ok_or_else(missing)?.row;
        match row.state {
            CredentialState::Pending | CredentialState::Active | CredentialState::Spent => {}
            CredentialState::Revoking | CredentialState::Ended => return Ok(true),
        }
        let Some(above) = row.parent else {
            let token = row.kind == CredentialKind::Token;
            let detail = token.then(|| TokenDetail::decode(&row.detail)).transpose()?;
            let session = Session::of(tx, detail.as_ref()).await?;
            return Ok(session.is_some_and(|session| !session.stands()));
        };
        next = above;
    }
    Err(Error::internal("a token is deeper than any can be"))
}
