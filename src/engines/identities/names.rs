//! Names for ids, as answers show them, each read once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::identities::{GroupRow, IdentityRow};
use crate::types::{GroupId, IdentityId, IdentityName, Owner, OwnerName, Segment};
use crate::vault::Answerable;

/// Names that were looked up for one answer.
#[derive(Debug, Default)]
pub(in crate::engines) struct Names {
    identities: HashMap<IdentityId, IdentityName>,
    groups: HashMap<GroupId, Segment>,
    owners: HashMap<Owner, Answerable>,
}

impl Names {
    /// Names an identity.
    ///
    /// # Errors
    /// [`Error::Internal`] when there is none: rows are never deleted.
    pub(in crate::engines) async fn identity(
        &mut self,
        tx: &mut Tx,
        id: IdentityId,
    ) -> Result<IdentityName> {
        if let Some(name) = self.identities.get(&id) {
            return Ok(name.clone());
        }
        let found = tx.lookup::<IdentityRow>(&id).await?;
        let name = found.ok_or_else(|| Error::internal("an id without its identity"))?.row.name;
        self.identities.insert(id, name.clone());
        Ok(name)
    }

    /// Names an identity, unless its row is not what was sealed, or is not there.
    ///
    /// # Errors
    /// What the store answers.
    pub(in crate::engines) async fn intact(
        &mut self,
        tx: &mut Tx,
        id: IdentityId,
    ) -> Result<Option<IdentityName>> {
        if let Some(name) = self.identities.get(&id) {
            return Ok(Some(name.clone()));
        }
        let Some(found) = tx.lookup_intact::<IdentityRow>(&id).await? else { return Ok(None) };
        self.identities.insert(id, found.row.name.clone());
        Ok(Some(found.row.name))
    }

    /// Names an owner.
    ///
    /// # Errors
    /// As [`Names::identity`].
    pub(super) async fn owner(&mut self, tx: &mut Tx, owner: Owner) -> Result<OwnerName> {
        Ok(match owner {
            Owner::Identity(id) => OwnerName::Identity(self.identity(tx, id).await?),
            Owner::Group(id) => OwnerName::Group(self.group(tx, id).await?),
        })
    }

    /// Reads who answers for something.
    ///
    /// # Errors
    /// As [`Answerable::find`].
    pub(super) async fn answerable(&mut self, tx: &mut Tx, owner: Owner) -> Result<&Answerable> {
        Ok(match self.owners.entry(owner) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => place.insert(Answerable::find(tx, owner).await?),
        })
    }

    /// Names a group.
    ///
    /// # Errors
    /// As [`Names::identity`].
    pub(in crate::engines) async fn group(&mut self, tx: &mut Tx, id: GroupId) -> Result<Segment> {
        if let Some(name) = self.groups.get(&id) {
            return Ok(name.clone());
        }
        let found = tx.lookup::<GroupRow>(&id).await?;
        let name = found.ok_or_else(|| Error::internal("an id without its group"))?.row.name;
        self.groups.insert(id, name.clone());
        Ok(name)
    }

    /// Names whoever stands in `created_by` or `changed_by`: an identity, or a worker.
    ///
    /// # Errors
    /// As [`Names::identity`].
    pub(in crate::engines) async fn actor(&mut self, tx: &mut Tx, actor: &str) -> Result<String> {
        match actor.parse() {
            Ok(id) => Ok(self.identity(tx, id).await?.to_string()),
            // A worker's name is no id.
            Err(_worker) => Ok(actor.to_owned()),
        }
    }
}
