//! Versions: sealed for their owner, opened at their place.

use crate::error::Result;
use crate::keyring::{Opened, Place};
use crate::store::keys::KeyOwner;
use crate::store::secrets::{SecretRow, SecretVersionRow};
use crate::types::{IdentityId, ObjectId};
use crate::vault::View;

/// Where a version's value belongs: to this row, this secret and this number. Its name never
/// enters; the row that gives the secret its name is sealed.
pub(in crate::engines) const fn place(secret: ObjectId, id: ObjectId, version: i64) -> Place {
    Place {
        table: "secret_versions",
        column: "value",
        row: id.0,
        object: secret.0,
        object_version: version,
    }
}

/// Whose key it is under.
pub(super) const fn key_owner(owner: IdentityId) -> KeyOwner {
    KeyOwner::Identity(owner)
}

/// Opens a version's value.
pub(super) async fn open(
    view: &View,
    secret: &SecretRow,
    version: &SecretVersionRow,
    message: &[u8],
) -> Result<Opened> {
    let place = place(secret.id, version.id, version.version);
    let blob = [version.wrap.as_slice(), message].concat();
    view.open(key_owner(secret.owner), &place, version.wrap_key, &blob).await
}
