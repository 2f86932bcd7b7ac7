//! Who answers for an identity, as a decision reads it.

use super::is_active;
use crate::error::{Error, Result};
use crate::store::identities::{self, GroupRow, IdentityRow};
use crate::store::{RowRef, Tx, Versioned};
use crate::types::{Kind, Owner, OwnerName, UnixMillis};

/// An owner as of one snapshot.
///
/// A group answers as long as one active human is in it: the one who stays longest is read, and
/// fences what stands on it, because leaving a group moves on the row of who leaves.
#[derive(Debug, Clone)]
pub struct Answerable {
    /// Who it is.
    pub owner: Owner,
    /// Its name.
    pub name: OwnerName,
    human: Option<Versioned<IdentityRow>>,
}

impl Answerable {
    /// Reads who answers for an identity.
    ///
    /// # Errors
    /// [`Error::Internal`] when there is no such owner: rows are never deleted.
    pub async fn of(tx: &mut Tx, identity: &Versioned<IdentityRow>) -> Result<Self> {
        if identity.row.owner == Owner::Identity(identity.row.id) {
            return Ok(Self::human(identity.clone()));
        }
        Self::find(tx, identity.row.owner).await
    }

    /// Reads an owner by its id.
    ///
    /// # Errors
    /// As [`Answerable::of`].
    pub async fn find(tx: &mut Tx, owner: Owner) -> Result<Self> {
        let missing = || Error::internal("an identity without its owner");
        match owner {
            Owner::Identity(id) => {
                Ok(Self::human(tx.lookup::<IdentityRow>(&id).await?.ok_or_else(missing)?))
            }
            Owner::Group(id) => {
                let group = tx.lookup::<GroupRow>(&id).await?.ok_or_else(missing)?;
                Self::group(tx, group).await
            }
        }
    }

    /// Reads an owner by its name, if there is one.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn named(tx: &mut Tx, name: &OwnerName) -> Result<Option<Self>> {
        Ok(match name {
            OwnerName::Identity(name) => {
                identities::identity_named(tx, name).await?.map(Self::human)
            }
            OwnerName::Group(name) => match identities::group_named(tx, name).await? {
                Some(group) => Some(Self::group(tx, group).await?),
                None => None,
            },
        })
    }

    fn human(row: Versioned<IdentityRow>) -> Self {
        Self {
            owner: Owner::Identity(row.row.id),
            name: OwnerName::Identity(row.row.name.clone()),
            human: Some(row),
        }
    }

    async fn group(tx: &mut Tx, group: Versioned<GroupRow>) -> Result<Self> {
        let found = identities::lasting_human(tx, group.row.id).await?;
        let human = found.filter(|(member, _)| member.row.active).map(|(_, human)| human);
        let name = OwnerName::Group(group.row.name);
        Ok(Self { owner: Owner::Group(group.row.id), name, human })
    }

    /// Tells whether somebody answers at a moment.
    #[must_use]
    pub fn is_active(&self, now: UnixMillis) -> bool {
        self.human.as_ref().is_some_and(|human| is_active(&human.row, now))
    }

    /// Tells whether it may be made the owner of a machine: an active human, or a group with one.
    #[must_use]
    pub fn may_own(&self, now: UnixMillis) -> bool {
        let human = |it: &Versioned<IdentityRow>| it.row.kind == Kind::Human;
        self.is_active(now) && self.human.as_ref().is_some_and(human)
    }

    /// When it ends, if ever.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.human.as_ref().and_then(|human| human.row.expires_at)
    }

    /// The sealed row that says so.
    #[must_use]
    pub fn fence(&self) -> Option<RowRef> {
        self.human.as_ref().map(Versioned::fence)
    }
}
