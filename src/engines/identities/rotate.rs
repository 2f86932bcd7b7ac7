//! Ends a login that is older than the rotation of its identity, or whose key is: the worker's doing.
//!
//! New logins live no longer than the rotation, and neither does a key, whatever certificates it had;
//! one of before the policy was tightened, or the identity was labelled, may. It ends as by time:
//! what was asked for with it lives on to its own end.

use async_trait::async_trait;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::keep_an_administrator;
use super::show::{decided, resource};
use super::state::read;
use crate::audit::Field;
use crate::crypto::sha256;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, intact, lifecycles, logins};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, IdentityId, IdentityName, RequestContext,
    UnixMillis,
};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Ends an overdue login.
#[derive(Debug, Clone)]
pub struct EndLogin {
    /// Whose it is.
    pub name: IdentityName,
    /// The login.
    pub id: CredentialId,
}

/// Tells whether a login of an identity, or the key that it is for, is older than that identity's
/// rotation: another certificate for a key is no other secret.
///
/// # Errors
/// What the store answers. A key whose row is not what was sealed is as old as its login: that is an
/// alarm, and holds up no other login.
pub async fn is_overdue(
    tx: &mut Tx,
    identity: &IdentityRow,
    login: &CredentialRow,
    now: UnixMillis,
) -> Result<bool> {
    let lives = lifecycles::of_kind(tx, identity.kind).await?.row;
    let rotation_ms = lives.rotation_of(identity)?.saturating_mul(1_000);
    let since = match key_hash(&login.detail) {
        Some(key) => intact(logins::key_since(tx, identity.id, &key).await)?,
        None => None,
    };
    let since = since.map_or(login.issued_at, |since| since.min(login.issued_at));
    Ok(since.0.saturating_add(rotation_ms) <= now.0)
}

/// SHA-256 of the key that a login certificate is for.
fn key_hash(der: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(sha256(parsed.public_key().raw))
}

#[async_trait]
impl Verb for EndLogin {
    const ACTION: &'static str = "identities.end-login";
    type Prepared = IdentityId;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<IdentityId> {
        decided(decision)
    }

    fn note(&self, _: &IdentityId, note: &mut Note) {
        note.credential = Some(self.id);
        let reason = "it, or its key, is older than the rotation of its kind".to_owned();
        note.private.push((Field::Reason, reason));
    }
}

#[async_trait]
impl Operation for EndLogin {
    const NEEDS: Needs = CONTAINS;

    /// Whoever is needed to administer is passed by.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &IdentityId,
        _: &Decision,
    ) -> Result<()> {
        let identity = read(tx, *id).await?.row;
        let found = tx.lookup::<CredentialRow>(&self.id).await?;
        let theirs = |row: &CredentialRow| {
            row.kind == CredentialKind::Login
                && row.identity == *id
                && row.state == CredentialState::Active
                && row.expires_at > ctx.now
        };
        let not_due = || Error::Conflict("it is not due any more".into());
        let found = found.filter(|found| theirs(&found.row)).ok_or_else(not_due)?;
        if !is_overdue(tx, &identity, &found.row, ctx.now).await? {
            return Err(not_due());
        }
        keep_an_administrator(tx, *id, ctx.now).await?;
        let row = CredentialRow { expires_at: ctx.now, ..found.row };
        tx.update(found.version, &row).await?;
        Ok(())
    }
}
