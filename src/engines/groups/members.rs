//! Puts identities into groups and takes them out.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::DescribedMember;
use super::show::{decided, resource};
use crate::engines::identities::{Names, TEAM, keep_an_administrator, orphaned, team_full};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow, MemberRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    GroupId, Id, IdentityId, IdentityName, IdentityState, Kind, Owner, RequestContext, Segment,
};
use crate::vault::{
    ADMINISTRATORS, Answerable, CONTAINS, Decision, GOVERNS, Operation, Resource, Verb, View,
};

/// Groups that one identity may be in: all of them are read for each of its decisions.
const GROUPS: usize = 100;

/// Puts an identity into a group.
#[derive(Debug, Clone)]
pub struct AddMember {
    /// The group.
    pub group: Segment,
    /// The identity.
    pub identity: IdentityName,
}

/// A membership as it stands.
#[derive(Debug, Clone)]
pub struct Added {
    /// The member.
    pub member: DescribedMember,
    /// Whether it was not in the group before.
    pub added: bool,
}

/// Takes an identity out of a group.
#[derive(Debug, Clone)]
pub struct RemoveMember {
    /// The group.
    pub group: Segment,
    /// The identity.
    pub identity: IdentityName,
}

/// Who is put into, or taken out of, which group.
#[derive(Debug)]
pub struct Membership {
    group: GroupId,
    identity: IdentityId,
    /// The id of its row, if there is none yet.
    row: Id,
}

impl Membership {
    /// Finds both ends. Only administrators decide who is one, whatever grants say.
    async fn find(view: &View, decision: &Decision, op: (&Segment, &IdentityName)) -> Result<Self> {
        let group = decided(decision)?;
        let administers = view.subject()?.is_administrator();
        if op.0.as_str() == ADMINISTRATORS && !administers {
            return Err(Error::Denied("only administrators decide who is one".into()));
        }
        let name = op.1.clone();
        let found = view
            .read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed())
            .await?;
        let unknown = || Error::not_found("there is no identity of that name");
        let identity = found.ok_or_else(unknown)?.row.id;
        Ok(Self { group, identity, row: view.new_id()? })
    }

    /// Writes a membership, and moves the identity's row on, which fences it.
    async fn write(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        before: Option<Versioned<MemberRow>>,
        active: bool,
    ) -> Result<MemberRow> {
        let row = MemberRow {
            id: before.as_ref().map_or(self.row, |before| before.row.id),
            group_id: self.group,
            identity_id: self.identity,
            active,
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        };
        match before {
            Some(before) => tx.update(before.version, &row).await?,
            None => tx.insert(&row).await?,
        };
        let Versioned { row: mut identity, version } = self.identity(tx).await?;
        // Not a change of the identity itself: the membership's own row tells who made that.
        identity.authority_rev = identity.authority_rev.saturating_add(1);
        identity.changed_at = ctx.now;
        identity.changed_by = ctx.actor();
        tx.update(version, &identity).await?;
        Ok(row)
    }

    async fn identity(&self, tx: &mut Tx) -> Result<Versioned<IdentityRow>> {
        let found = tx.lookup::<IdentityRow>(&self.identity).await?;
        found.ok_or_else(|| Error::internal("an id without its identity"))
    }
}

#[async_trait]
impl Verb for AddMember {
    const ACTION: &'static str = "groups.add";
    type Prepared = Membership;
    type Output = Added;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.group).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Membership> {
        Membership::find(view, decision, (&self.group, &self.identity)).await
    }
}

#[async_trait]
impl Operation for AddMember {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Membership,
        _: &Decision,
    ) -> Result<Added> {
        let found = it.identity(tx).await?.row;
        if found.state == IdentityState::Retired {
            return Err(Error::precondition("the identity is retired"));
        }
        let human = found.kind == Kind::Human;
        if self.group.as_str() == ADMINISTRATORS && !human {
            return Err(Error::invalid("only humans administer"));
        }
        let before = identities::member(tx, it.group, it.identity).await?;
        let (row, added) = match before {
            Some(before) if before.row.active => (before.row, false),
            before => {
                if found.kind.is_machine() {
                    let holder = it.identity(tx).await?;
                    if !Answerable::of(tx, &holder).await?.is_active(ctx.now) {
                        return Err(orphaned());
                    }
                }
                if identities::memberships(tx, it.identity).await?.len() >= GROUPS {
                    let full = format!("an identity is in at most {GROUPS} groups");
                    return Err(Error::Exhausted(full.into()));
                }
                if identities::count_owned(tx, Owner::Group(it.group), 1).await? > 0
                    && identities::count_members(tx, it.group, TEAM).await? >= TEAM
                {
                    return Err(team_full());
                }
                (it.write(ctx, tx, before, true).await?, true)
            }
        };
        let member = DescribedMember::read(tx, &mut Names::default(), &row).await?;
        Ok(Added { member, added })
    }
}

#[async_trait]
impl Verb for RemoveMember {
    const ACTION: &'static str = "groups.remove";
    type Prepared = Membership;
    type Output = bool;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.group).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Membership> {
        Membership::find(view, decision, (&self.group, &self.identity)).await
    }
}

#[async_trait]
impl Operation for RemoveMember {
    const NEEDS: Needs = CONTAINS;

    /// Answers whether it was in the group before.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Membership,
        _: &Decision,
    ) -> Result<bool> {
        let before = identities::member(tx, it.group, it.identity).await?;
        let Some(before) = before.filter(|before| before.row.active) else { return Ok(false) };
        if self.group.as_str() == ADMINISTRATORS {
            keep_an_administrator(tx, it.identity, ctx.now).await?;
        }
        it.write(ctx, tx, Some(before), false).await?;
        Ok(true)
    }
}
