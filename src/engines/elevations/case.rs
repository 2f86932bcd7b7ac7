//! One elevation with all that its rules stand on, read in the commit that changes it.

use super::definition::{RoleDefinition, current_step};
use super::moves::Moves;
use super::notify;
use super::scope::{Resources, hash, stands_on};
use super::unknown;
use crate::error::{Error, Result};
use crate::store::elevations::{self, ElevationRoleRow, ElevationRow};
use crate::store::identities::IdentityRow;
use crate::store::{Tx, Versioned};
use crate::types::{ElevationEvent, ElevationId, IdentityId, RequestContext, VaultId};
use crate::vault::{ElevationScope, StandsOn, Vote};

/// An elevation, its role, who asked, and what it is about.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) found: Versioned<ElevationRow>,
    pub(super) scope: ElevationScope,
    pub(super) votes: Vec<Vote>,
    pub(super) role: Versioned<ElevationRoleRow>,
    pub(super) definition: RoleDefinition,
    pub(super) requester: Versioned<IdentityRow>,
    pub(super) resources: Resources,
    /// The vault, and whether it is marked as development.
    pub(super) vault: VaultId,
    pub(super) dev: bool,
    /// What this commit did, so far.
    pub(super) moves: Moves,
}

impl Case {
    /// Reads it, and keeps others who would change it waiting.
    pub(super) async fn hold(tx: &mut Tx, id: ElevationId, of: (VaultId, bool)) -> Result<Self> {
        elevations::hold(tx, id).await?;
        let found = tx.lookup::<ElevationRow>(&id).await?.ok_or_else(unknown)?;
        Self::load(tx, found, of).await
    }

    /// Reads what belongs to a row.
    pub(super) async fn load(
        tx: &mut Tx,
        found: Versioned<ElevationRow>,
        (vault, dev): (VaultId, bool),
    ) -> Result<Self> {
        let row = &found.row;
        let missing = |what| move || Error::internal(what);
        let role = tx.lookup::<ElevationRoleRow>(&row.role).await?;
        let role = role.ok_or_else(missing("an elevation without its role"))?;
        let requester = tx.lookup::<IdentityRow>(&row.identity).await?;
        let requester = requester.ok_or_else(missing("an elevation of nobody"))?;
        let scope = ElevationScope::read(&row.scope)?;
        let resources = Resources::read(tx, &scope.resources).await?;
        let definition = RoleDefinition::read(&role.row.definition)?;
        let votes = Vote::read_all(&row.votes)?;
        let moves = Moves::default();
        Ok(Self { found, scope, votes, role, definition, requester, resources, vault, dev, moves })
    }

    /// Checks that what was frozen is what is there: the request itself, its role, the resources
    /// that it names.
    pub(super) fn check_frozen(&self) -> Result<()> {
        let row = &self.found.row;
        if hash(&self.scope, self.vault, (row.id, row.identity, row.role)) != row.scope_hash {
            return Err(Error::internal("a scope that is not what was hashed"));
        }
        if self.stands_on() == self.scope.stands_on {
            return Ok(());
        }
        Err(Error::precondition(
            "the role, or a resource that was asked for, changed since; ask again",
        ))
    }

    /// What it stands on now.
    pub(super) fn stands_on(&self) -> Vec<StandsOn> {
        let mut rows = vec![stands_on(&self.role)];
        rows.extend(self.resources.stands_on.iter().cloned());
        rows
    }

    /// Approvals of each step.
    pub(super) fn given(&self) -> Vec<u32> {
        let count = |step| {
            let of = self.votes.iter().filter(|vote| vote.approves && vote.step == step).count();
            u32::try_from(of).unwrap_or(u32::MAX)
        };
        (0..self.definition.steps.len()).map(count).collect()
    }

    /// The step whose turn it is; none when all are approved.
    pub(super) fn step(&self) -> Option<usize> {
        current_step(self.definition.steps.iter().map(|step| step.approvals), &self.given())
    }

    pub(super) fn denials(&self) -> usize {
        self.votes.iter().filter(|vote| !vote.approves).count()
    }

    /// Moves it on by an event of the table, by compare-and-set.
    pub(super) async fn moves(
        &mut self,
        ctx: &RequestContext,
        tx: &mut Tx,
        event: ElevationEvent,
        change: impl FnOnce(&mut ElevationRow),
    ) -> Result<()> {
        let from = self.found.row.state;
        let state = from.moved(event)?;
        self.moves.add(self.found.row.id, from, event, state);
        self.write(ctx, tx, |row| {
            row.state = state;
            if state.is_over() {
                row.next_try = None;
            }
            change(row);
        })
        .await?;
        notify::event(ctx, tx, &self.found.row, event).await
    }

    /// Writes it, by compare-and-set.
    pub(super) async fn write(
        &mut self,
        ctx: &RequestContext,
        tx: &mut Tx,
        change: impl FnOnce(&mut ElevationRow),
    ) -> Result<()> {
        let mut row = self.found.row.clone();
        change(&mut row);
        row.votes = serde_json::to_string(&self.votes).map_err(Error::internal)?;
        row.changed_at = ctx.now;
        row.changed_by = ctx.actor();
        self.found = tx.update(self.found.version, &row).await?;
        Ok(())
    }

    /// Tells whether it is somebody's.
    pub(super) fn is_of(&self, identity: IdentityId) -> bool {
        self.found.row.identity == identity
    }
}
