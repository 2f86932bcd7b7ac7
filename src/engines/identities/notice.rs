//! Tells of an end that comes: once in the record, the worker's doing.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Names;
use super::show::{decided, resource};
use super::state::read;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::lifecycles;
use crate::store::{Needs, Tx};
use crate::types::{IdentityId, IdentityName, OwnerName, RequestContext, UnixMillis};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES_ONE};

/// Tells the record that an identity ends within its notice.
#[derive(Debug, Clone)]
pub struct TellEnd {
    /// Its name.
    pub name: IdentityName,
    /// The end that was found.
    pub end: UnixMillis,
}

/// Whose end comes, and who answers for it.
#[derive(Debug)]
pub struct PreparedNotice {
    id: IdentityId,
    owner: OwnerName,
}

#[async_trait]
impl Verb for TellEnd {
    const ACTION: &'static str = "identities.tell-end";
    type Prepared = PreparedNotice;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<PreparedNotice> {
        let id = decided(decision)?;
        let owner = view.read(move |tx| {
            async move {
                let found = read(tx, id).await?;
                Names::default().owner(tx, found.row.owner).await
            }
            .boxed()
        });
        Ok(PreparedNotice { id, owner: owner.await? })
    }

    fn note(&self, it: &PreparedNotice, note: &mut Note) {
        note.private.push((Field::Detail, format!("ends {}; owner: {}", self.end, it.owner)));
    }
}

#[async_trait]
impl Operation for TellEnd {
    const NEEDS: Needs = WRITES_ONE;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &PreparedNotice,
        _: &Decision,
    ) -> Result<()> {
        let row = read(tx, it.id).await?.row;
        let comes = row.state.stands() && row.expires_at == Some(self.end);
        if !comes || !lifecycles::tell(tx, it.id, self.end).await? {
            return Err(Error::Conflict("it was told, or changed, meanwhile".into()));
        }
        Ok(())
    }
}
