//! Factors of humans: invited, enrolled, proven, removed. Where a proof is kept, and how a decision
//! asks for one, is the vault's own: see `src/vault/factors.rs`.

mod enrol;
mod guard;
mod invite;
mod list;
mod recovery;
mod remove;
mod verify;

use futures_util::FutureExt as _;

pub use enrol::{ConfirmFactor, EnrolFactor, Enrolment};
pub use invite::{InviteFactor, Invited};
pub use list::{ListFactors, ShownFactor, ShownFactors};
pub use recovery::{MakeRecoveryCodes, RecoveryCode, RecoverySet};
pub use remove::{RemoveFactor, ResetFactors};
pub use verify::{Code, Proven, Tried, VerifyFactor};

use crate::error::{Error, Result};
use crate::keyring::{Opened, Place};
use crate::policy::SubjectFacts;
use crate::store::factors::{self, FactorRow};
use crate::store::identities::{self, IdentityRow};
use crate::store::keys::KeyOwner;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{
    FactorId, FactorKind, FactorState, IdentityId, IdentityName, RequestContext, ResourceName,
};
use crate::vault::{Answerable, FRESH, ProvenFactor, Resource, Subject, View};

/// Names the factors of a human.
fn resource_name(identity: &IdentityName) -> Result<ResourceName> {
    ResourceName::join("factors", &[identity.as_str()])
}

/// The caller's own factors, as a decision sees them.
fn own(view: &View) -> Result<Vec<Resource>> {
    let subject = view.subject()?;
    let row = &subject.identity.row;
    let mut resource =
        Resource::named(resource_name(&row.name)?).with_row(row.id.0, &subject.identity);
    resource.owner = Some(row.owner);
    resource.holder = Some(row.id);
    resource.identity = Some(subject.own_facts(view.now()));
    Ok(vec![resource])
}

/// Somebody whose factors are spoken of, as of one snapshot.
struct Somebody {
    identity: Versioned<IdentityRow>,
    owner: Answerable,
}

impl Somebody {
    async fn find(view: &View, name: &IdentityName) -> Result<Option<Self>> {
        let name = name.clone();
        let read = view.read(move |tx| {
            async move {
                let Some(identity) = identities::identity_named(tx, &name).await? else {
                    return Ok(None);
                };
                let owner = Answerable::of(tx, &identity).await?;
                Ok(Some(Self { identity, owner }))
            }
            .boxed()
        });
        read.await
    }

    /// Their factors as a decision sees them; of nobody, the name alone.
    async fn resources(view: &View, name: &IdentityName) -> Result<Vec<Resource>> {
        let resource = Resource::named(resource_name(name)?);
        let Some(found) = Self::find(view, name).await? else { return Ok(vec![resource]) };
        let row = &found.identity.row;
        let mut resource = resource.with_row(row.id.0, &found.identity);
        resource.rows.extend(found.owner.fence());
        resource.owner = Some(row.owner);
        resource.holder = Some(row.id);
        resource.identity = Some(SubjectFacts {
            id: Some(row.id),
            kind: row.kind,
            administrator: false,
            registered_by: row.created_by.parse().ok(),
            has_certificate: true,
            owner_active: found.owner.is_active(view.now()),
            owner_expires_at: found.owner.expires_at(),
        });
        Ok(vec![resource])
    }

    /// Reads them again for what follows a decision, which has to be about the same row.
    async fn decided(view: &View, name: &IdentityName, on: &Resource) -> Result<IdentityRow> {
        let found = Self::find(view, name).await?;
        let found = found.ok_or_else(|| Error::not_found("there is no such identity"))?;
        if !on.rows.contains(&found.identity.fence()) {
            return Err(Error::Conflict("the identity changed; retry".into()));
        }
        Ok(found.identity.row)
    }
}

/// Reads what the caller has enrolled or is enrolling.
async fn standing(view: &View) -> Result<Vec<Versioned<FactorRow>>> {
    let id = view.identity()?;
    view.read(move |tx| async move { Ok(factors::standing(tx, id).await?) }.boxed()).await
}

fn is_active(factor: &Versioned<FactorRow>) -> bool {
    factor.row.state == FactorState::Active
}

/// Checks that the caller proved a factor now.
fn require_fresh(view: &View) -> Result<&ProvenFactor> {
    view.subject()?.require_factor(view.now(), FactorKind::ALL, FRESH)
}

/// Checks that an administrator who has a factor proved one now, before they change another's: with
/// a stolen login alone nobody lets themselves in by somebody else's account. Who has none yet may
/// invite, because somebody has to be the first.
async fn require_own(tx: &mut Tx, ctx: &RequestContext, subject: &Subject) -> Result<()> {
    let own = factors::standing(tx, subject.identity.row.id).await?;
    if own.iter().any(is_active) {
        subject.require_factor(ctx.now, FactorKind::ALL, FRESH)?;
    }
    Ok(())
}

/// Where the secret of a factor belongs. It is sealed once: a factor gets no other.
pub(super) const fn place(factor: FactorId) -> Place {
    Place { table: "factors", column: "secret", row: factor.0, object: factor.0, object_version: 1 }
}

/// Decrypts the secret of an authenticator.
async fn secret(view: &View, factor: &FactorRow) -> Result<Opened> {
    let missing = || Error::internal("an authenticator without its secret");
    let (blob, key) = factor.secret.as_ref().zip(factor.secret_key).ok_or_else(missing)?;
    let owner = KeyOwner::Identity(factor.identity);
    Ok(view.keyring().open(view.reader(), owner, &place(factor.id), key, blob).await?)
}

/// Ends a factor, for good; what was proven by it ends with it, because the commit moves its row.
async fn end(ctx: &RequestContext, tx: &mut Tx, factor: Versioned<FactorRow>) -> Result<()> {
    let row = FactorRow {
        state: FactorState::Removed,
        changed_at: ctx.now,
        changed_by: ctx.actor(),
        ..factor.row
    };
    tx.update(factor.version, &row).await?;
    Ok(())
}

/// Says of the first row of a human what an update says of a later one: somebody else was quicker.
fn first(error: StoreError) -> StoreError {
    if error == StoreError::Taken { StoreError::Stale } else { error }
}

fn not_accepted() -> Error {
    Error::Denied("the code is not accepted: it is wrong, over, or was used".into())
}

fn none_enrolled() -> Error {
    Error::precondition(
        "you have no factor yet: ask an administrator for an invitation (`strongroom factor \
         invite NAME`), and enrol one with it",
    )
}

/// The administrator that a factor goes back to which is enrolled with a proof of another.
fn vouched(by: &ProvenFactor) -> Option<IdentityId> {
    by.factor.row.vouched_by
}
