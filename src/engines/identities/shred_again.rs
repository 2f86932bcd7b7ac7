//! Shreds an identity again that a restore brought back: before anybody is served, and whatever stands
//! against it in the restored store.

use std::slice;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::retire::retire;
use super::show::of;
use super::shred::CONNECTIONS;
use super::shreds::{destroy, destroy_keys, hand_over};
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::store::database::ConnectionRow;
use crate::store::identities::IdentityRow;
use crate::store::keys::KeyOwner;
use crate::store::shreds::{self, ShredRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, IdentityState, RequestContext, ResourceName, VaultId};
use crate::vault::{CONTAINS, Decision, Operation, Resource, Verb, View};

/// Shreds an identity again.
#[derive(Debug, Clone, Copy)]
pub struct ShredAgain {
    /// Its id: a store from before it was registered does not know its name.
    pub id: IdentityId,
}

#[async_trait]
impl Verb for ShredAgain {
    const ACTION: &'static str = "identities.shred-again";
    type Prepared = (VaultId, Keyring);
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let id = self.id;
        let found =
            view.read(move |tx| async move { Ok(tx.lookup::<IdentityRow>(&id).await?) }.boxed());
        if let Some(found) = found.await? {
            return Ok(vec![of(&found)?]);
        }
        let mut unknown = Resource::named(ResourceName::join("identities", &[&id.to_string()])?);
        unknown.id = Some(id.0);
        Ok(vec![unknown])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        Ok((view.vault_id(), view.keyring().clone()))
    }
}

#[async_trait]
impl Operation for ShredAgain {
    const NEEDS: Needs = CONTAINS;

    fn durable(&self, (_, keyring): &Self::Prepared) {
        keyring.forget(KeyOwner::Identity(self.id));
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (vault, _): &Self::Prepared,
        _: &Decision,
    ) -> Result<()> {
        let id = self.id;
        if let Some(found) = tx.lookup::<IdentityRow>(&id).await? {
            retire_as_far_as_may_be(ctx, tx, found).await?;
        }
        // It says that it is shredded, and somebody put its key back.
        if tx.lookup::<ShredRow>(&id).await?.is_some() {
            destroy_keys(tx, KeyOwner::Identity(id)).await?;
            hand_over(ctx, tx, id).await?;
            return Ok(());
        }
        let connections = without_leases(tx, id).await?;
        destroy(ctx, tx, (*vault, id), &connections).await?;
        Ok(())
    }
}

/// Retires it, whoever it answers for: that others do now is not in this store. The last administrator
/// stays one, so that somebody can go through what was restored; what was theirs does not open.
async fn retire_as_far_as_may_be(
    ctx: &RequestContext,
    tx: &mut Tx,
    found: Versioned<IdentityRow>,
) -> Result<()> {
    if found.row.state != IdentityState::Retired {
        match retire(ctx, tx, found.clone()).await {
            Err(Error::Precondition(_)) => {}
            done => return done,
        }
    }
    // What stands on its row is decided again.
    tx.update(found.version, &found.row).await?;
    Ok(())
}

/// Its connections, but those on which leases are live as this store has it: their credentials are what
/// ends them.
async fn without_leases(tx: &mut Tx, id: IdentityId) -> Result<Vec<Versioned<ConnectionRow>>> {
    let mut free = Vec::new();
    for connection in shreds::connections_of(tx, id, CONNECTIONS).await? {
        if shreds::lease_on(tx, slice::from_ref(&connection)).await?.is_none() {
            free.push(connection);
        }
    }
    Ok(free)
}
