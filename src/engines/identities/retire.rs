//! Retires an identity: contained for good, its name never used again.

use async_trait::async_trait;

use super::show::{decided, resource};
use super::state::{contain, note_reason, read};
use super::{Described, LONG, check_text};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, IdentityName, IdentityState, Kind, Owner, RequestContext};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// What an owner answers for is counted up to here.
pub(super) const COUNTED: i64 = 1_000;

/// Retires an identity: everything that it holds ends as by a suspension, and it never comes back.
#[derive(Debug, Clone)]
pub struct RetireIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Verb for RetireIdentity {
    const ACTION: &'static str = "identities.retire";
    type Prepared = IdentityId;
    type Output = Described;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<IdentityId> {
        check_text("a reason", &self.reason, LONG)?;
        decided(decision)
    }

    fn note(&self, _: &IdentityId, note: &mut Note) {
        note_reason(&self.reason, note);
    }
}

#[async_trait]
impl Operation for RetireIdentity {
    const NEEDS: Needs = CONTAINS;

    /// What it owns cannot grow meanwhile: who is made an owner fences this row.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &IdentityId,
        _: &Decision,
    ) -> Result<Described> {
        let found = read(tx, *id).await?;
        check_retirable(tx, &found.row).await?;
        retire(ctx, tx, found).await?;
        Described::contained(tx, *id, ctx.now).await
    }
}

/// Checks that an identity is one that may be retired, and answers for nobody.
///
/// # Errors
/// [`Error::Precondition`].
pub(super) async fn check_retirable(tx: &mut Tx, row: &IdentityRow) -> Result<()> {
    if row.kind == Kind::Bootstrap {
        return Err(Error::precondition("the bootstrap identity ends by itself"));
    }
    if row.state == IdentityState::Retired {
        return Ok(());
    }
    let owned = identities::count_owned(tx, Owner::Identity(row.id), COUNTED).await?;
    if owned > 0 {
        let most = if owned == COUNTED { "at least " } else { "" };
        return Err(Error::precondition(format!(
            "it answers for {most}{owned} identities: list them with `identity list \
             --owner`, and transfer or retire each of them first"
        )));
    }
    Ok(())
}

/// Retires one that was checked, unless it is.
pub(super) async fn retire(
    ctx: &RequestContext,
    tx: &mut Tx,
    found: Versioned<IdentityRow>,
) -> Result<()> {
    if found.row.state == IdentityState::Retired {
        return Ok(());
    }
    contain(ctx, tx, found, IdentityState::Retired).await
}
