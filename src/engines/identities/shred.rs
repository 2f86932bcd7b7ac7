//! Shreds an identity: its key is destroyed, and with it all that is under it.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::retire::{check_retirable, retire};
use super::show::{decided, resource};
use super::shreds::{Shred, destroy};
use super::state::{note_reason, read};
use super::{LONG, check_text, keep_an_administrator};
use crate::engines::ceremonies::{Solemn, Term};
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::store::database::ConnectionRow;
use crate::store::identities::IdentityRow;
use crate::store::keys::KeyOwner;
use crate::store::shreds::{self, ShredRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, IdentityName, IdentityState, RequestContext, UnixMillis, VaultId};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Connections of one identity that are forgotten with it, at most.
pub(super) const CONNECTIONS: i64 = 256;

/// Shreds an identity, and retires it.
#[derive(Debug, Clone)]
pub struct ShredIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Its name once more: what is meant.
    pub confirm: String,
    /// Why.
    pub reason: String,
}

/// Whose key is to be destroyed.
#[derive(Debug)]
pub struct Prepared {
    id: IdentityId,
    vault: VaultId,
    keyring: Keyring,
}

/// Checks that nothing stands against shredding an identity; the connections that go with it.
///
/// # Errors
/// [`Error::Precondition`] with what does.
pub(super) async fn check(
    tx: &mut Tx,
    row: &IdentityRow,
    now: UnixMillis,
) -> Result<Vec<Versioned<ConnectionRow>>> {
    if let Some(shred) = tx.lookup::<ShredRow>(&row.id).await? {
        let at = shred.row.shredded_at;
        return Err(Error::precondition(format!("it was shredded at {at}")));
    }
    check_retirable(tx, row).await?;
    keep_an_administrator(tx, row.id, now).await?;
    let connections = shreds::connections_of(tx, row.id, CONNECTIONS.saturating_add(1)).await?;
    if i64::try_from(connections.len()).is_ok_and(|found| found > CONNECTIONS) {
        return Err(Error::precondition(format!(
            "more than {CONNECTIONS} connections are its own; remove some first"
        )));
    }
    if let Some((connection, _)) = shreds::lease_on(tx, &connections).await? {
        return Err(Error::precondition(format!(
            "leases are live on {connection}, which is its own; revoke them, or wait until they \
             have ended"
        )));
    }
    Ok(connections)
}

#[async_trait]
impl Verb for ShredIdentity {
    const ACTION: &'static str = "identities.shred";
    type Prepared = Prepared;
    type Output = Shred;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        check_text("a reason", &self.reason, LONG)?;
        let id = decided(decision)?;
        if self.confirm != self.name.as_str() {
            return Err(Error::invalid("to confirm, say the name of the identity once more"));
        }
        let now = view.now();
        let checked = view.read(move |tx| {
            async move {
                let found = read(tx, id).await?;
                check(tx, &found.row, now).await.map(drop)
            }
            .boxed()
        });
        checked.await?;
        Ok(Prepared { id, vault: view.vault_id(), keyring: view.keyring().clone() })
    }

    fn note(&self, _: &Prepared, note: &mut Note) {
        note_reason(&self.reason, note);
    }
}

impl Solemn for ShredIdentity {
    fn terms(&self) -> Vec<Term> {
        vec![Term::new("confirm", &self.confirm), Term::new("reason", &self.reason)]
    }
}

#[async_trait]
impl Operation for ShredIdentity {
    const NEEDS: Needs = CONTAINS;
    // What this node holds of the key is wiped, whoever waits.
    const GOES_ON: bool = true;

    fn durable(&self, it: &Prepared) {
        it.keyring.forget(KeyOwner::Identity(it.id));
    }

    fn outlives(&self, _: &Prepared) -> bool {
        true
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Prepared,
        _: &Decision,
    ) -> Result<Shred> {
        let found = read(tx, it.id).await?;
        let connections = check(tx, &found.row, ctx.now).await?;
        // What stands on its row is decided again, also where it was retired before.
        if found.row.state == IdentityState::Retired {
            tx.update(found.version, &found.row).await?;
        } else {
            retire(ctx, tx, found).await?;
        }
        let row = destroy(ctx, tx, (it.vault, it.id), &connections).await?;
        Shred::of(tx, &row).await
    }
}
