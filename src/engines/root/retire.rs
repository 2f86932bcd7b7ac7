//! Retires a version of the root key that wraps nothing any more: its key in the HSM is destroyed, and
//! with it whatever copies of the store from before could have been opened by.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{ROOT, RootStatus, resource};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::engines::rotations::{Versions, find, next};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::keys::{self, HsmKeyRow, KeyState};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, RotationState};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Retires a version of the root key.
#[derive(Debug, Clone, Copy)]
pub struct RetireRoot {
    /// Which.
    pub version: i64,
}

/// A version that is retired.
#[derive(Debug)]
pub struct Retiring {
    key: Versioned<HsmKeyRow>,
    rotation: Versioned<RotationRow>,
    node: String,
}

impl Retiring {
    fn used(&self) -> KeyUse {
        let HsmKeyRow { id, version, .. } = &self.key.row;
        KeyUse { key: id.clone(), version: *version, purpose: "destroy" }
    }

    /// Refuses while anything is wrapped for it.
    async fn require_unused(&self, tx: &mut Tx) -> Result<()> {
        let HsmKeyRow { id, version, .. } = &self.key.row;
        if !keys::has_wraps(tx, id).await? {
            return Ok(());
        }
        let left = keys::count_wraps(tx, id).await?;
        Err(Error::precondition(format!(
            "version {version} of the root key still wraps {left} keys; wait until `strongroom root \
             status` shows none"
        )))
    }
}

#[async_trait]
impl Verb for RetireRoot {
    const ACTION: &'static str = "root.retire";
    type Prepared = Retiring;
    type Output = RootStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Retiring> {
        let (version, node) = (self.version, view.node().to_owned());
        let read = view.read(move |tx| {
            async move {
                let found = Versions::read(tx, ROOT).await?;
                let key = found.numbered(version).cloned().ok_or_else(|| {
                    Error::not_found("the root key has no version of that number")
                })?;
                match key.row.state {
                    KeyState::Retired => {}
                    KeyState::Active => {
                        return Err(Error::precondition(
                            "it is the current version: rotate the root key first",
                        ));
                    }
                    KeyState::Destroyed => {
                        return Err(Error::precondition("it is retired already"));
                    }
                }
                let rotation = found.replaced(version).cloned();
                let rotation = rotation
                    .ok_or_else(|| Error::internal("a retired root key that nothing replaced"))?;
                let retiring = Retiring { key, rotation, node };
                retiring.require_unused(tx).await?;
                Ok(retiring)
            }
            .boxed()
        });
        read.await
    }

    fn note(&self, it: &Retiring, note: &mut Note) {
        note.keys.push(it.used());
        note.private.push((Field::Detail, format!("root {}", it.key.row.version)));
    }
}

impl Solemn for RetireRoot {
    fn terms(&self) -> Vec<Term> {
        vec![Term::new("version", &self.version.to_string())]
    }
}

#[async_trait]
impl EffectOperation for RetireRoot {
    type Effect = ();
    /// It looks at wraps beside nobody: what is committed before is counted, what comes after finds the
    /// key destroyed.
    const NEEDS: Needs = GOVERNS;

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Retiring,
        _: &Decision,
    ) -> Result<()> {
        tx.bump_authority()?;
        it.require_unused(tx).await?;
        // From here on nothing opens by it, whatever row of before somebody puts back.
        let destroyed = HsmKeyRow { state: KeyState::Destroyed, ..it.key.row.clone() };
        tx.change(&it.key, &destroyed).await?;
        let node = it.node.clone();
        let retiring = RotationRow { node, ..next(ctx, &it.rotation.row, RotationState::Retiring) };
        tx.change(&it.rotation, &retiring).await?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &Retiring) -> Result<()> {
        let destroyed = view.hsm().destroy_key(&it.key.row.id).await.map_err(Error::from);
        view.noted(&it.used(), destroyed)
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Retiring,
        (): &(),
    ) -> Result<RootStatus> {
        let found = find(tx, &it.rotation.row.id, &[RotationState::Retiring]).await?;
        tx.change(&found, &next(ctx, &found.row, RotationState::Retired)).await?;
        RootStatus::read(tx, ctx.now).await
    }

    /// The row says that the key is to be destroyed: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Retiring) -> Result<()> {
        Ok(())
    }
}
