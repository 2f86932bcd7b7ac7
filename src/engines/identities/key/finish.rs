//! Ends the old version of an identity's key once nothing is under it; the worker's.
//!
//! In two steps: first everybody hears that all of it was moved, because rows of before may still be in
//! use on some node; a minute later its wraps are removed.

use async_trait::async_trait;

use super::{Step, UnderWay, resource_of};
use crate::audit::Field;
use crate::engines::rotations::{next, went_on};
use crate::error::Result;
use crate::keyring::Keyring;
use crate::store::keys::{self, IdentityKeyRow, KeyOwner, KeyState};
use crate::store::rotations;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, RotationState, UnixMillis};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// How long what was read before may be in use, in milliseconds: longer than any request.
const USED_MS: i64 = 60_000;

impl UnderWay {
    /// What is to be done next.
    pub(super) async fn due(&self, tx: &mut Tx, now: UnixMillis) -> Result<Step> {
        let (rotation, old) = (&self.rotation.row, &self.old.row);
        if old.state == KeyState::Destroyed {
            return Ok(Step::Finish);
        }
        if rotations::has_under(tx, old.id).await? {
            return Ok(Step::Move);
        }
        let used = now.0.saturating_sub(rotation.changed_at.0) < USED_MS;
        let waits = rotation.state == RotationState::Moved && used;
        Ok(if waits { Step::Wait } else { Step::Finish })
    }
}

/// Takes the next step to the end of an identity's old key.
#[derive(Debug, Clone)]
pub struct FinishIdentityKey {
    /// The rotation.
    pub id: String,
}

/// What is to be ended.
#[derive(Debug)]
pub struct Finishing {
    under_way: UnderWay,
    keyring: Keyring,
}

#[async_trait]
impl Verb for FinishIdentityKey {
    const ACTION: &'static str = "identities.finish-key";
    type Prepared = Finishing;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource_of(view, &self.id).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Finishing> {
        let under_way = UnderWay::of(view, &self.id).await?;
        Ok(Finishing { under_way, keyring: view.keyring().clone() })
    }

    fn note(&self, it: &Finishing, note: &mut Note) {
        let rotation = &it.under_way.rotation.row;
        let (from, to, total) = (rotation.from_version, rotation.to_version, rotation.total);
        let what = match rotation.state {
            RotationState::Moving => format!("{total} data keys moved"),
            RotationState::Pending
            | RotationState::Moved
            | RotationState::Retiring
            | RotationState::Retired
            | RotationState::Failed => format!("version {from} removed"),
        };
        note.private.push((Field::Detail, format!("identity key {from} -> {to}: {what}")));
    }
}

#[async_trait]
impl Operation for FinishIdentityKey {
    /// It looks at what is under the key beside nobody, and everybody hears of it.
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Finishing,
        _: &Decision,
    ) -> Result<()> {
        let UnderWay { rotation, old, .. } = &it.under_way;
        // What is under a shredded key does not open, and is moved nowhere.
        if old.row.state == KeyState::Destroyed {
            tx.change(rotation, &next(ctx, &rotation.row, RotationState::Retired)).await?;
            return Ok(());
        }
        if rotations::has_under(tx, old.row.id).await? {
            return Err(went_on());
        }
        if rotation.row.state == RotationState::Moving {
            tx.change(rotation, &next(ctx, &rotation.row, RotationState::Moved)).await?;
            return Ok(());
        }
        if ctx.now.0.saturating_sub(rotation.row.changed_at.0) < USED_MS {
            return Err(went_on());
        }
        let gone = IdentityKeyRow { state: KeyState::Destroyed, ..old.row.clone() };
        tx.change(old, &gone).await?;
        keys::remove_wraps(tx, old.row.id).await?;
        tx.change(rotation, &next(ctx, &rotation.row, RotationState::Retired)).await?;
        Ok(())
    }

    fn durable(&self, it: &Finishing) {
        it.keyring.forget(KeyOwner::Identity(it.under_way.owner));
    }
}
