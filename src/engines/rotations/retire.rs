//! Retires a version of a key in the HSM whose place another took: its row says first that it is
//! destroyed, then its key is.

use super::{Versions, find, next};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::keys::{HsmKeyRow, KeyState};
use crate::store::rotations::RotationRow;
use crate::store::{Tx, Versioned};
use crate::types::{RequestContext, RotationState};
use crate::vault::View;

/// A version that is retired.
#[derive(Debug)]
pub struct Retiring {
    /// Its key.
    pub(in crate::engines) key: Versioned<HsmKeyRow>,
    /// The rotation by which another took its place.
    rotation: String,
    node: String,
}

impl Retiring {
    /// Finds a version whose place another took.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] for the current one, and for one that is retired.
    pub(in crate::engines) fn of(found: &Versions, version: i64, node: String) -> Result<Self> {
        let key = found.numbered(version).cloned();
        let key = key.ok_or_else(|| Error::not_found("there is no version of that number"))?;
        match key.row.state {
            KeyState::Retired => {}
            KeyState::Active => {
                return Err(Error::precondition("it is the current version: rotate it first"));
            }
            KeyState::Destroyed => return Err(Error::precondition("it is retired already")),
        }
        let missing = || Error::internal("an old version whose place nothing took");
        let rotation = found.replaced(version).ok_or_else(missing)?.row.id.clone();
        Ok(Self { key, rotation, node })
    }

    /// Tells the record that its key is destroyed.
    pub(in crate::engines) fn used(&self) -> KeyUse {
        let HsmKeyRow { id, version, .. } = &self.key.row;
        KeyUse { key: id.clone(), version: *version, purpose: "destroy" }
    }

    /// Marks it: from here on nobody uses it, whatever row of before somebody puts back, and every node
    /// lets go of it. Where that is as far as it comes, a worker destroys the key.
    ///
    /// The rotation is read here: the keeper may have noted meanwhile that all of it is moved, which is
    /// nothing that whoever retires the version has to hear of.
    pub(in crate::engines) async fn begin(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<()> {
        tx.bump_authority()?;
        let destroyed = HsmKeyRow { state: KeyState::Destroyed, ..self.key.row.clone() };
        tx.change(&self.key, &destroyed).await?;
        let found =
            find(tx, &self.rotation, &[RotationState::Moving, RotationState::Moved]).await?;
        let node = self.node.clone();
        let retiring = RotationRow { node, ..next(ctx, &found.row, RotationState::Retiring) };
        tx.change(&found, &retiring).await?;
        Ok(())
    }

    /// Destroys its key.
    pub(in crate::engines) async fn destroy(&self, view: &View) -> Result<()> {
        let destroyed = view.hsm().destroy_key(&self.key.row.id).await.map_err(Error::from);
        view.noted(&self.used(), destroyed)
    }

    /// Notes that it is no more.
    pub(in crate::engines) async fn end(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<()> {
        let found = find(tx, &self.rotation, &[RotationState::Retiring]).await?;
        tx.change(&found, &next(ctx, &found.row, RotationState::Retired)).await?;
        Ok(())
    }
}
