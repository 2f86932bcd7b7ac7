//! What an identity holds: what a suspension would end, and what is still to be ended after one.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Described;
use super::keep_an_administrator;
use super::retire::COUNTED;
use super::show::{decided, resource};
use crate::error::{Error, Result};
use crate::store::credentials::{self, Held};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, elevations, factors, identities, lent, secrets, wraps};
use crate::types::{
    CredentialKind, IdentityId, IdentityName, Kind, Owner, RequestContext, ResourceName, UnixMillis,
};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View, is_active};

/// Targets shown, of those that leases are open on.
const TARGETS: usize = 100;

/// Shows what an identity holds.
#[derive(Debug, Clone)]
pub struct ShowHoldings {
    /// Its name.
    pub name: IdentityName,
}

/// Credentials of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// What kind.
    pub kind: CredentialKind,
    /// How many are in force.
    pub in_force: i64,
    /// How many are dead before their time: a lease among them is still to be ended outside.
    pub contained: i64,
}

/// Open leases on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnTarget {
    /// What they are on.
    pub resource: ResourceName,
    /// How many are in force.
    pub in_force: i64,
    /// How many are still to be ended.
    pub ending: i64,
}

/// What an identity holds.
#[derive(Debug, Clone)]
pub struct Holdings {
    /// The identity, with its groups.
    pub identity: Described,
    /// Its credentials, by kind.
    pub credentials: Vec<InForce>,
    /// What its leases are on, at most 100.
    pub targets: Vec<OnTarget>,
    /// How many identities it answers for, counted up to 1,000.
    pub owned: i64,
    /// How many secrets are its data, counted up to 1,000: nothing is written to them once it is
    /// contained.
    pub secrets: i64,
    /// How many grants it holds by itself.
    pub grants: i64,
    /// How many elevations it has asked for or in force, counted up to 1,000: a suspension ends them.
    pub elevations: i64,
    /// How many factors it has enrolled: they stay, and prove nothing while it is contained.
    pub factors: i64,
    /// How many invitations to enrol are open, one or none: a suspension ends it.
    pub invitations: i64,
    /// How many wrapped answers wait to be opened that it made or that are for it, 1,000 of each at the
    /// most: a suspension voids them.
    pub wraps: i64,
    /// How many tokens, logins and enrolments of others hang on its tokens, or on logins that hang on
    /// one, 1,000 of each at the most: a suspension ends them.
    pub lent: i64,
    /// How many machines nobody would answer for without it, counted up to 1,000: what it owns, and
    /// what groups own in which it is the only active human.
    pub orphans: i64,
    /// Whether it is the last administrator who can log in, whom nobody contains.
    pub last_administrator: bool,
    /// Whether it holds so much that not all of it was counted.
    pub partial: bool,
}

impl Holdings {
    async fn read(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<Self> {
        let identity = Described::find(tx, id, now).await?;
        let row = &identity.identity.row;
        // Nothing of an identity that is not in force is in force, whatever its epoch.
        let epoch = if is_active(row, now) { row.revocation_epoch } else { i64::MAX };
        let mut held = Self {
            credentials: Vec::new(),
            targets: Vec::new(),
            owned: identities::count_owned(tx, Owner::Identity(id), COUNTED).await?,
            secrets: secrets::count_owned(tx, id, COUNTED).await?,
            grants: identities::count_grants(tx, id.0).await?,
            elevations: elevations::count_in_force(tx, (id, epoch), COUNTED).await?,
            factors: factors::count_standing(tx, id).await?,
            invitations: factors::count_invitations(tx, (id, epoch), now).await?,
            wraps: wraps::count_pending(tx, (id, epoch), now, COUNTED)
                .await?
                .saturating_add(wraps::count_waiting(tx, (id, epoch), now, COUNTED).await?),
            lent: lent::count_lent(tx, (id, epoch), now, COUNTED).await?,
            orphans: orphans(tx, row, now).await?,
            last_administrator: match keep_an_administrator(tx, id, now).await {
                Ok(()) => false,
                Err(Error::Precondition(_)) => true,
                Err(error) => return Err(error),
            },
            partial: false,
            identity,
        };
        for kind in CredentialKind::ALL.iter().copied() {
            let counted = match kind {
                CredentialKind::Lease => {
                    let targets = credentials::open_leases(tx, id, epoch).await?;
                    held.count_targets(targets)
                }
                CredentialKind::Login
                | CredentialKind::Certificate
                | CredentialKind::Token
                | CredentialKind::Enrolment => {
                    credentials::unexpired(tx, kind, id, epoch, now).await?
                }
            };
            held.partial |= counted.looked_at > credentials::COUNTED;
            let Held { in_force, contained, .. } = counted;
            held.credentials.push(InForce { kind, in_force, contained });
        }
        Ok(held)
    }

    fn count_targets(&mut self, targets: Vec<(ResourceName, Held)>) -> Held {
        let mut all = Held::default();
        for (resource, held) in targets {
            all.in_force = all.in_force.saturating_add(held.in_force);
            all.contained = all.contained.saturating_add(held.contained);
            all.looked_at = all.looked_at.saturating_add(held.looked_at);
            if self.targets.len() < TARGETS {
                let (in_force, ending) = (held.in_force, held.contained);
                self.targets.push(OnTarget { resource, in_force, ending });
            }
        }
        all
    }
}

/// Counts the machines that nobody would answer for without an identity.
async fn orphans(tx: &mut Tx, row: &IdentityRow, now: UnixMillis) -> Result<i64> {
    if row.kind != Kind::Human {
        return Ok(0);
    }
    let mut left = identities::count_owned(tx, Owner::Identity(row.id), COUNTED).await?;
    for member in identities::memberships(tx, row.id).await? {
        let group = member.row.group_id;
        // Of two, one is somebody else.
        let humans = identities::humans_of(tx, group, now, 2).await?;
        if humans.iter().all(|one| one.row.identity_id == row.id) {
            let owned = identities::count_owned(tx, Owner::Group(group), COUNTED).await?;
            left = left.saturating_add(owned);
        }
    }
    Ok(left.min(COUNTED))
}

#[async_trait]
impl Verb for ShowHoldings {
    const ACTION: &'static str = "identities.holdings";
    type Prepared = Holdings;
    type Output = Holdings;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Holdings> {
        let (id, now) = (decided(decision)?, view.now());
        view.read(move |tx| Holdings::read(tx, id, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowHoldings {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Holdings,
        _: &Decision,
    ) -> Result<Holdings> {
        Ok(prepared.clone())
    }
}
