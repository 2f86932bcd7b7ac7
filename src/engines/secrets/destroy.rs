//! Destroys versions for ever: their data keys and their values.

use async_trait::async_trait;

use super::delete::{Changed, Chosen, Taking};
use super::find::{Found, decided, resource, unknown};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{ObjectId, RequestContext, ResourceName, SecretPath, SecretState};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, TAKES_BACK, Verb, View};

/// Destroys a version: nothing that is in the store afterwards opens its value.
pub(super) async fn destroy(
    ctx: &RequestContext,
    tx: &mut Tx,
    found: &Versioned<SecretVersionRow>,
) -> Result<()> {
    let row = SecretVersionRow {
        state: SecretState::Destroyed,
        wrap: Vec::new(),
        purge_at: None,
        changed_at: ctx.now,
        changed_by: ctx.actor(),
        ..found.row.clone()
    };
    tx.change(found, &row).await?;
    Ok(secrets::remove_message(tx, row.id).await?)
}

/// Destroys versions, deleted before or not.
#[derive(Debug, Clone)]
pub struct DestroySecret {
    /// The secret's name.
    pub path: SecretPath,
    /// Which versions.
    pub chosen: Chosen,
}

#[async_trait]
impl Verb for DestroySecret {
    const ACTION: &'static str = "secrets.destroy";
    type Prepared = Taking;
    type Output = Changed;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Taking> {
        self.chosen.check()?;
        let id = decided(decision)?;
        let any = self.chosen.any(view, id, |state| state != SecretState::Destroyed).await?;
        Ok(Taking { id, any })
    }

    fn note(&self, _: &Taking, note: &mut Note) {
        note.private.push((Field::Detail, self.chosen.to_string()));
    }
}

#[async_trait]
impl Operation for DestroySecret {
    const NEEDS: Needs = CONTAINS;

    fn needs(&self, it: &Taking) -> Needs {
        it.needs()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Taking,
        _: &Decision,
    ) -> Result<Changed> {
        let found = Found::read(tx, it.id).await?;
        let mut changed = Vec::new();
        for version in self.chosen.of(tx, &found).await? {
            if version.row.state != SecretState::Destroyed {
                it.require()?;
                destroy(ctx, tx, &version).await?;
                changed.push(version.row.version);
            }
        }
        if it.any {
            found.touch(tx, ctx.now, ctx.actor()).await?;
        }
        Ok(Changed { versions: changed })
    }
}

/// Destroys a version whose time for that has come; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct PurgeVersion {
    /// The secret.
    pub secret: ObjectId,
    /// The version's number.
    pub version: i64,
    /// The version's row.
    pub id: ObjectId,
    /// The row's version that was found due.
    pub row_version: i64,
}

#[async_trait]
impl Verb for PurgeVersion {
    const ACTION: &'static str = "secrets.purge";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        let name: ResourceName = "secrets".parse()?;
        Ok(vec![Resource { id: Some(self.secret.0), ..Resource::named(name) }])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        note.private.push((Field::Detail, format!("version {}", self.version)));
    }
}

#[async_trait]
impl Operation for PurgeVersion {
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let found = tx.lookup::<SecretVersionRow>(&self.id).await?.ok_or_else(unknown)?;
        let due = found.row.purge_at.is_some_and(|at| at <= ctx.now);
        if found.version != self.row_version || !due {
            return Err(Error::Conflict("it is not due any more".into()));
        }
        destroy(ctx, tx, &found).await
    }
}
