//! A vault of which a restore was accepted, as far as rows tell.

use async_trait::async_trait;
use strongroom::store::keys::VaultRow;
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, RequestContext, VaultId};
use strongroom::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};

use super::logins::fingerprint;
use super::node::Fixture;

/// Counts a restore, as its acceptance does.
pub(crate) async fn restored(f: &Fixture) {
    let vault = &f.node().vault;
    let admin = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(admin, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(admin), None).unwrap();
    vault.run(&ctx, Restored).await.unwrap();
}

struct Restored;

#[async_trait]
impl Verb for Restored {
    const ACTION: &'static str = "system.seal";
    type Prepared = VaultId;
    type Output = ();

    async fn resources(&self, _: &View) -> strongroom::Result<Vec<Resource>> {
        Ok(vec![Resource::named("system/seal".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> strongroom::Result<VaultId> {
        Ok(view.vault_id())
    }
}

#[async_trait]
impl Operation for Restored {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &VaultId,
        _: &Decision,
    ) -> strongroom::Result<()> {
        let read = tx.lookup::<VaultRow>(id).await?.unwrap();
        let restore_epoch = read.row.restore_epoch + 1;
        let row = VaultRow { restore_epoch, restored_at: ctx.now, ..read.row };
        tx.update(read.version, &row).await?;
        Ok(())
    }
}
