//! Ends a login that is older than the rotation of its identity: the worker's doing.
//!
//! New logins live no longer than the rotation; one of before the policy was tightened, or the
//! identity was labelled, may. It ends
//! as by time: what was asked for with it lives on to its own end.

use async_trait::async_trait;

use super::keep_an_administrator;
use super::show::{decided, resource};
use super::state::read;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx, lifecycles};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, IdentityId, IdentityName, RequestContext,
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
        let reason = "it is older than the rotation of its kind".to_owned();
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
        let lives = lifecycles::of_kind(tx, identity.kind).await?.row;
        let rotation_ms = lives.rotation_of(&identity)?.saturating_mul(1_000);
        let found = tx.lookup::<CredentialRow>(&self.id).await?;
        let overdue = |row: &CredentialRow| {
            row.kind == CredentialKind::Login
                && row.identity == *id
                && row.state == CredentialState::Active
                && row.expires_at > ctx.now
                && row.issued_at.0.saturating_add(rotation_ms) <= ctx.now.0
        };
        let found = found.filter(|found| overdue(&found.row));
        let found = found.ok_or_else(|| Error::Conflict("it is not due any more".into()))?;
        keep_an_administrator(tx, *id, ctx.now).await?;
        let row = CredentialRow { expires_at: ctx.now, ..found.row };
        tx.update(found.version, &row).await?;
        Ok(())
    }
}
