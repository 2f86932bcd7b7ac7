//! Makes the next version of an identity's key. What is encrypted for it from then on is under the new
//! version, on every node; what is under the old one opens until it is moved.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::show::IdentityKeyStatus;
use crate::audit::Field;
use crate::engines::identities::show::{decided, resource};
use crate::engines::rotations::{Schedule, raced};
use crate::error::{Error, Result};
use crate::keyring::NewKey;
use crate::store::keys::{self, IdentityKeyRow, KeyOwner, KeyState};
use crate::store::rotations::{self, RotationRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, IdentityName, RequestContext, Rotates, RotationState};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Makes the next version of an identity's key.
#[derive(Debug, Clone)]
pub struct RotateIdentityKey {
    /// The identity's name.
    pub name: IdentityName,
    /// The current version, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

/// What is to be written.
#[derive(Debug)]
pub struct KeyRotation {
    owner: IdentityId,
    was: Versioned<IdentityKeyRow>,
    new: NewKey,
    node: String,
}

#[async_trait]
impl Verb for RotateIdentityKey {
    const ACTION: &'static str = "identities.rotate-key";
    type Prepared = KeyRotation;
    type Output = IdentityKeyStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<KeyRotation> {
        let id = decided(decision)?;
        let owner = KeyOwner::Identity(id);
        let read = view.read(move |tx| {
            async move {
                let was = keys::current_key(tx, owner).await?;
                let last = rotations::of_subject(tx, Rotates::Identity(id), 1).await?;
                Ok((was, last))
            }
            .boxed()
        });
        let (was, last) = read.await?;
        let was = was.ok_or_else(|| {
            Error::precondition(
                "the identity has no key: its first is made when something is encrypted for it",
            )
        })?;
        let version = was.row.version;
        if self.expected != 0 && self.expected != version {
            return Err(Error::Conflict(format!("the current version is {version}").into()));
        }
        let goes_on = |state| matches!(state, RotationState::Moving | RotationState::Moved);
        if last.first().is_some_and(|last| goes_on(last.row.state)) {
            return Err(Error::precondition(
                "what is under its key is still being moved from the version before; wait until \
                 `strongroom identity key` shows one version",
            ));
        }
        let new = view.keyring().new_identity_key(view.reader(), owner, view.now()).await?;
        Ok(KeyRotation { owner: id, was, new, node: view.node().to_owned() })
    }

    fn note(&self, it: &KeyRotation, note: &mut Note) {
        note.keys.push(it.new.used.clone());
        let (from, to) = (it.was.row.version, it.new.row().version);
        note.private.push((Field::Detail, format!("identity key {from} -> {to}")));
    }
}

#[async_trait]
impl Operation for RotateIdentityKey {
    /// Whoever encrypts for it meanwhile does so again.
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &KeyRotation,
        _: &Decision,
    ) -> Result<IdentityKeyStatus> {
        let subject = Rotates::Identity(it.owner);
        let total = rotations::count_under(tx, it.was.row.id).await?;
        it.new.store(tx).await?;
        let retired = IdentityKeyRow { state: KeyState::Retired, ..it.was.row.clone() };
        tx.change(&it.was, &retired).await?;
        let (from_version, to_version) = (it.was.row.version, it.new.row().version);
        let row = RotationRow {
            id: RotationRow::name(subject, to_version),
            subject,
            from_version,
            to_version,
            state: RotationState::Moving,
            total,
            node: it.node.clone(),
            started_at: ctx.now,
            started_by: ctx.actor(),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        };
        tx.insert(&row).await.map_err(raced)?;
        Schedule::rotated(ctx, tx, subject).await?;
        IdentityKeyStatus::read(tx, it.owner, ctx.now).await
    }
}
