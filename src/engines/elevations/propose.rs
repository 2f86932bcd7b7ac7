//! Changes of a role: wanted by one administrator, confirmed by another, in effect a day later.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::definition::RoleDefinition;
use super::eligible::same_human;
use super::notify;
use super::roles::{ElevationRole, find, no_such_role, resource};
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::elevations::ElevationRoleRow;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, NoticeKind, ObjectId, RequestContext, Segment, UnixMillis};
use crate::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};

/// How long after it was wanted a change takes effect; at once in a development vault.
const LATER: Duration = Duration::from_hours(24);

/// What a role is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What it is to say.
    pub definition: RoleDefinition,
    /// Who wants it: an identity's id.
    pub by: String,
    /// Since when, in Unix milliseconds.
    pub at_ms: i64,
    /// Who confirmed it; empty while nobody did.
    pub confirmed_by: String,
}

impl Proposal {
    /// Reads what a row holds; none where nobody wants it changed.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Option<Self>> {
        if json.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(json).map(Some).map_err(Error::internal)
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// Writes it into its role.
    fn applied(self, row: ElevationRoleRow, now: UnixMillis) -> Result<ElevationRoleRow> {
        Ok(ElevationRoleRow {
            definition: self.definition.to_json()?,
            proposal: String::new(),
            next_try: None,
            confirmed_by: self.confirmed_by,
            changed_at: now,
            changed_by: self.by,
            ..row
        })
    }
}

/// Confirms a change of a role that another administrator wants.
#[derive(Debug, Clone)]
pub struct ConfirmRole {
    /// Its name.
    pub name: Segment,
    /// The version of the role that was seen, with what it is to say.
    pub version: i64,
}

#[async_trait]
impl Verb for ConfirmRole {
    const ACTION: &'static str = "elevations.confirm-role";
    type Prepared = (Versioned<ElevationRoleRow>, bool);
    type Output = ElevationRole;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let found = find(view, &self.name).await?.ok_or_else(no_such_role)?;
        if found.version != self.version {
            return Err(Error::precondition("the role changed since it was seen; look again"));
        }
        let proposal = Proposal::read(&found.row.proposal)?;
        let proposal = proposal.filter(|proposal| proposal.confirmed_by.is_empty());
        let proposal =
            proposal.ok_or_else(|| Error::precondition("there is nothing to be confirmed"))?;
        let id: IdentityId = proposal.by.parse().map_err(Error::internal)?;
        let wanted_by = view
            .read(move |tx| async move { Ok(tx.lookup::<IdentityRow>(&id).await?) }.boxed())
            .await?
            .ok_or_else(|| Error::internal("a change that nobody wants"))?;
        if same_human(&wanted_by.row, &view.subject()?.identity.row) {
            return Err(Error::Denied(
                "a change of a role is confirmed by another administrator than who wants it".into(),
            ));
        }
        Ok((found, view.is_dev()))
    }
}

#[async_trait]
impl Operation for ConfirmRole {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (found, dev): &Self::Prepared,
        _: &Decision,
    ) -> Result<ElevationRole> {
        let row = found.row.clone();
        let nothing = || Error::internal("a proposal that is none");
        let mut proposal = Proposal::read(&row.proposal)?.ok_or_else(nothing)?;
        proposal.confirmed_by = ctx.actor();
        let effective = UnixMillis(proposal.at_ms).plus(LATER)?;
        let row = if *dev || effective <= ctx.now {
            proposal.applied(row, ctx.now)?
        } else {
            ElevationRoleRow { proposal: proposal.to_json()?, next_try: Some(effective), ..row }
        };
        let applied = row.proposal.is_empty();
        let role = tx.update(found.version, &row).await?;
        let kind = if applied { NoticeKind::RoleChanged } else { NoticeKind::RoleConfirmed };
        notify::role(ctx, tx, &role.row, kind).await?;
        ElevationRole::of(tx, &mut Names::default(), role).await
    }
}

/// Lets a confirmed change of a role take effect; the worker's.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRole {
    /// The role.
    pub id: ObjectId,
    /// The version that was found due.
    pub version: i64,
}

#[async_trait]
impl Verb for ApplyRole {
    const ACTION: &'static str = "elevations.apply-role";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("elevations".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Operation for ApplyRole {
    const NEEDS: Needs = GOVERNS;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let found = tx.lookup::<ElevationRoleRow>(&self.id).await?.ok_or_else(no_such_role)?;
        let due = found.row.next_try.is_some_and(|at| at <= ctx.now);
        let proposal = Proposal::read(&found.row.proposal)?;
        let proposal = proposal.filter(|it| due && !it.confirmed_by.is_empty());
        match proposal {
            Some(proposal) if found.version == self.version => {
                let row = proposal.applied(found.row, ctx.now)?;
                tx.update(found.version, &row).await?;
                notify::role(ctx, tx, &row, NoticeKind::RoleChanged).await
            }
            Some(_) | None => Err(Error::Conflict("it is not due any more".into())),
        }
    }
}
