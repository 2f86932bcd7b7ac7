//! Grants as they are held: read once for each identity and group, shared by all who hold them.

use std::collections::HashMap;

use super::Terms;
use crate::error::{Error, Result};
use crate::policy::{GrantFacts, GrantOrigin, GrantSubject};
use crate::store::identities::{self, GrantRow, GroupRow};
use crate::store::{Tx, Versioned};
use crate::types::{GroupId, Id, IdentityId};

/// Grants that one identity or group may hold.
pub const GRANTS: i64 = 10_000;

/// What one identity or group holds, shared by all who hold it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) holder: Id,
    /// Of the holder's row, which every change of its grants moves.
    pub(super) version: i64,
    pub(super) by_action: HashMap<String, Vec<HeldGrant>>,
    pub(super) count: usize,
}

impl Held {
    pub(super) async fn load(tx: &mut Tx, holder: Id, version: i64) -> Result<Self> {
        let mut by_action: HashMap<String, Vec<HeldGrant>> = HashMap::new();
        let grants = identities::grants_of(tx, holder, GRANTS).await?;
        let count = grants.len();
        for grant in grants {
            let held = HeldGrant::read(grant.row)?;
            by_action.entry(held.row.action.clone()).or_default().push(held);
        }
        Ok(Self { holder, version, by_action, count })
    }
}

/// A grant with its conditions read.
#[derive(Debug)]
pub struct HeldGrant {
    /// The grant.
    pub row: GrantRow,
    /// When it begins, and what else must be true.
    pub terms: Terms,
    subject: GrantSubject,
    granted_by: IdentityId,
    origin: GrantOrigin,
}

impl HeldGrant {
    /// Reads a grant's row.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(row: GrantRow) -> Result<Self> {
        let terms = Terms::read(&row.conditions)?;
        let subject = if row.subject_is_group {
            GrantSubject::Group(GroupId(row.subject))
        } else {
            GrantSubject::Identity(IdentityId(row.subject))
        };
        let granted_by = row.created_by.parse().map_err(Error::internal)?;
        Ok(Self { row, terms, subject, granted_by, origin: GrantOrigin::Given })
    }

    /// Says that it comes from an elevation.
    pub(super) fn elevated(self, standing: bool) -> Self {
        Self { origin: GrantOrigin::Elevation { standing }, ..self }
    }

    /// The grant, as facts.
    #[must_use]
    pub fn facts(&self) -> GrantFacts<'_> {
        GrantFacts {
            id: self.row.id,
            subject: self.subject,
            action: &self.row.action,
            resource: &self.row.resource,
            not_before: self.terms.not_before,
            expires_at: self.row.expires_at,
            conditions: &self.terms.conditions,
            granted_by: self.granted_by,
            origin: self.origin,
        }
    }
}

/// The groups that an identity is in: members that are what was sealed, with their groups.
pub(super) async fn groups_of(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Vec<Versioned<GroupRow>>> {
    let groups = identities::groups_of(tx, identity).await?;
    let mut named: HashMap<GroupId, _> =
        groups.into_iter().map(|group| (group.row.id, group)).collect();
    let mut groups = Vec::with_capacity(named.len());
    for member in identities::memberships(tx, identity).await? {
        let group = named.remove(&member.row.group_id);
        groups.push(group.ok_or_else(|| Error::internal("a member without its group"))?);
    }
    Ok(groups)
}
