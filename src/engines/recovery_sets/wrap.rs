//! Wraps keys that were there before a recovery set for it, some at a time; the worker's.

use async_trait::async_trait;

use super::one;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, Recipient};
use crate::store::keys::{IdentityKeyRow, KeyState, WrapRow};
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::{Needs, Tx};
use crate::types::RequestContext;
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Wraps keys for a set.
#[derive(Debug, Clone)]
pub struct WrapForSet {
    /// The set.
    pub set: Recipient,
    /// The keys.
    pub keys: Vec<IdentityKeyRow>,
}

#[async_trait]
impl Verb for WrapForSet {
    const ACTION: &'static str = "recovery_sets.wrap";
    type Prepared = (Vec<WrapRow>, Vec<KeyUse>);
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(one(self.set.set)?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        Ok(view.keyring().wrap_for_set(view.reader(), &self.set, &self.keys).await?)
    }

    fn note(&self, (wraps, used): &Self::Prepared, note: &mut Note) {
        note.keys.extend_from_slice(used);
        note.private.push((Field::Detail, format!("{} keys", wraps.len())));
    }
}

#[async_trait]
impl Operation for WrapForSet {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        (wraps, _): &Self::Prepared,
        _: &Decision,
    ) -> Result<()> {
        let set = tx.lookup::<RecoverySetRow>(&self.set.set).await?;
        if set.is_none_or(|set| set.row.state != KeyState::Active) {
            return Err(Error::Conflict("the recovery set was destroyed".into()));
        }
        recovery_sets::add_wraps(tx, wraps).await?;
        Ok(())
    }
}
