//! Retires a version of the root key that wraps nothing any more: its key in the HSM is destroyed, and
//! with it whatever copies of the store from before could have been opened by.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{ROOT, RootStatus, resource};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::engines::rotations::{Retiring, Versions};
use crate::error::{Error, Result};
use crate::store::keys::{self, HsmKeyRow};
use crate::store::{Needs, Tx};
use crate::types::RequestContext;
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Retires a version of the root key.
#[derive(Debug, Clone, Copy)]
pub struct RetireRoot {
    /// Which.
    pub version: i64,
}

/// Refuses while anything is wrapped for a version.
async fn require_unused(tx: &mut Tx, key: &HsmKeyRow) -> Result<()> {
    if !keys::has_wraps(tx, &key.id).await? {
        return Ok(());
    }
    let (version, left) = (key.version, keys::count_wraps(tx, &key.id).await?);
    Err(Error::precondition(format!(
        "version {version} of the root key still wraps {left} keys; wait until `strongroom root \
         status` shows none"
    )))
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
                let retiring = Retiring::of(&Versions::read(tx, ROOT).await?, version, node)?;
                require_unused(tx, &retiring.key.row).await?;
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
        require_unused(tx, &it.key.row).await?;
        it.begin(ctx, tx).await
    }

    async fn act(&self, view: &View, it: &Retiring) -> Result<()> {
        it.destroy(view).await
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Retiring,
        (): &(),
    ) -> Result<RootStatus> {
        it.end(ctx, tx).await?;
        RootStatus::read(tx, ctx.now).await
    }

    /// The row says that the key is to be destroyed: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Retiring) -> Result<()> {
        Ok(())
    }
}
