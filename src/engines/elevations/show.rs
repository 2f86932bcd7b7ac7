//! Shows one elevation, to whom it concerns: who asked, who answers for them, who may approve, who
//! voted, administrators.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::case::Case;
use super::definition::RoleDefinition;
use super::eligible::{same_human, voter};
use super::moves::Moves;
use super::review::Review;
use super::unknown;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::credentials;
use crate::store::elevations::{ElevationRoleRow, ElevationRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    ElevationId, ElevationState, IdentityName, Owner, RequestContext, ResourceName, Segment,
    UnixMillis, VaultId,
};
use crate::vault::{Decision, ElevationScope, Operation, READS, Resource, Subject, Verb, View};

/// A vote as it is shown.
#[derive(Debug, Clone)]
pub struct ShownVote {
    /// Who voted.
    pub by: IdentityName,
    /// Whether it is an approval.
    pub approves: bool,
    /// The step that it counts for, from 0.
    pub step: usize,
    /// When.
    pub at: UnixMillis,
    /// How long it allows, in seconds.
    pub ttl_s: i64,
    /// Why.
    pub reason: String,
    /// The factor that was proven with it, where one had to be.
    pub factor: Option<String>,
}

/// An elevation as it is shown.
#[derive(Debug, Clone)]
pub struct Elevation {
    /// Its row.
    pub row: ElevationRow,
    /// What was asked for.
    pub scope: ElevationScope,
    /// The name of who asked.
    pub identity: IdentityName,
    /// The name of its role.
    pub role: Segment,
    /// What the role says.
    pub definition: RoleDefinition,
    /// Who approved and denied it.
    pub votes: Vec<ShownVote>,
    /// The step whose turn it is, from 0; none when nobody has to approve any more.
    pub step: Option<usize>,
    /// Of one that nobody approved beforehand, its review.
    pub review: Option<Review>,
    /// The name of who reviewed it.
    pub reviewed_by: String,
    /// Whether it is over, and something that was made under it is not known to be gone.
    pub revoking: bool,
    /// The name of who last changed it.
    pub changed_by: String,
    /// What became of it in the commit that it is shown from.
    pub(super) moves: Moves,
}

impl Elevation {
    /// Shows a case.
    pub(super) async fn of(tx: &mut Tx, names: &mut Names, case: &Case) -> Result<Self> {
        let row = case.found.row.clone();
        let mut votes = Vec::with_capacity(case.votes.len());
        for vote in &case.votes {
            votes.push(ShownVote {
                by: names.identity(tx, vote.by.parse().map_err(Error::internal)?).await?,
                approves: vote.approves,
                step: vote.step,
                at: UnixMillis(vote.at_ms),
                ttl_s: vote.ttl_s,
                reason: vote.reason.clone(),
                factor: vote.factor.clone(),
            });
        }
        let review = Review::read(&row.review)?;
        let waits = row.state == ElevationState::AwaitingApproval;
        Ok(Self {
            identity: case.requester.row.name.clone(),
            role: case.role.row.name.clone(),
            definition: case.definition.clone(),
            scope: case.scope.clone(),
            step: case.step().filter(|_| waits),
            reviewed_by: match &review {
                Some(review) => names.actor(tx, &review.by).await?,
                None => String::new(),
            },
            review,
            revoking: row.state.is_over()
                && row.next_try.is_some()
                && credentials::has_made_under(tx, row.id).await?,
            changed_by: names.actor(tx, &row.changed_by).await?,
            moves: case.moves.clone(),
            votes,
            row,
        })
    }

    /// Reads one of many for somebody, where they may see it. One that stands on what is not what
    /// was sealed is left out, with the alarm: it must not hide the others.
    pub(super) async fn seen(
        tx: &mut Tx,
        names: &mut Names,
        row: Versioned<ElevationRow>,
        subject: &Subject,
        of: (VaultId, bool),
    ) -> Result<Option<Self>> {
        let seen = async {
            let case = Case::load(tx, row, of).await?;
            if !case.may_see(tx, subject).await? {
                return Ok(None);
            }
            Self::of(tx, names, &case).await.map(Some)
        };
        match seen.await {
            Err(Error::Tampered { .. }) => Ok(None),
            seen => seen,
        }
    }

    /// The word for where it is: one that is over while something made under it is not shows that.
    #[must_use]
    pub fn shown_state(&self) -> &'static str {
        if self.revoking { "revoking" } else { self.row.state.as_str() }
    }
}

impl Case {
    /// Tells whether somebody may look at it.
    pub(super) async fn may_see(&self, tx: &mut Tx, subject: &Subject) -> Result<bool> {
        let who = &subject.identity.row;
        if subject.is_administrator() || same_human(who, &self.requester.row) {
            return Ok(true);
        }
        let answers = match self.requester.row.owner {
            Owner::Identity(id) => id == who.id,
            Owner::Group(id) => subject.groups.iter().any(|group| group.row.id == id),
        };
        if answers || self.is_voter(tx, who).await? || self.is_reviewer(tx, who).await? {
            return Ok(true);
        }
        for vote in &self.votes {
            if voter(tx, vote).await?.row.id == who.id {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// An elevation as a decision sees it: of its role, held by who asked, owned by who answers for
/// that. One that does not exist is named by its id.
pub(super) async fn resource(view: &View, id: ElevationId) -> Result<Vec<Resource>> {
    let read = view.read(move |tx| {
        async move {
            let Some(found) = tx.lookup::<ElevationRow>(&id).await? else { return Ok(None) };
            // What is not what was sealed is named by nobody, and ended by administrators all the
            // same.
            let role = tx.lookup_intact::<ElevationRoleRow>(&found.row.role).await?;
            let holder = tx.lookup_intact::<IdentityRow>(&found.row.identity).await?;
            Ok(Some((found, role, holder)))
        }
        .boxed()
    });
    let found: Option<(Versioned<ElevationRow>, _, _)> = read.await?;
    let Some((found, role, holder)) = found else {
        let name = ResourceName::join("elevations", &[&id.to_string()])?;
        return Ok(vec![Resource::named(name)]);
    };
    let name = match &role {
        Some(role) => ResourceName::join("elevations", &[role.row.name.as_str()])?,
        None => ResourceName::join("elevations", &[&id.to_string()])?,
    };
    let mut resource = Resource::named(name).with_row(id.0, &found);
    if let Some(holder) = holder {
        resource.rows.push(holder.fence());
        resource.holder = Some(holder.row.id);
        resource.owner = Some(holder.row.owner);
    }
    Ok(vec![resource])
}

/// Reads an elevation that the caller may see.
pub(super) async fn visible(view: &View, id: ElevationId) -> Result<Elevation> {
    let (subject, of) = (view.subject()?.clone(), (view.vault_id(), view.is_dev()));
    let read = view.read(move |tx| {
        async move {
            let found = tx.lookup::<ElevationRow>(&id).await?.ok_or_else(unknown)?;
            let case = Case::load(tx, found, of).await?;
            if !case.may_see(tx, &subject).await? {
                return Err(unknown());
            }
            Elevation::of(tx, &mut Names::default(), &case).await
        }
        .boxed()
    });
    read.await
}

/// Shows an elevation.
#[derive(Debug, Clone, Copy)]
pub struct ShowElevation {
    /// Its id.
    pub id: ElevationId,
}

#[async_trait]
impl Verb for ShowElevation {
    const ACTION: &'static str = "elevations.show";
    type Prepared = Elevation;
    type Output = Elevation;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource(view, self.id).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Elevation> {
        visible(view, self.id).await
    }
}

#[async_trait]
impl Operation for ShowElevation {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &Elevation,
        _: &Decision,
    ) -> Result<Elevation> {
        Ok(shown.clone())
    }
}
