//! Whose things a list is of: the identity that is named, or whoever asks.

use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::Versioned;
use crate::store::identities::{self, IdentityRow};
use crate::types::{IdentityName, ResourceName};
use crate::vault::{Resource, View};

/// Finds the identity that is named, or else the caller's own.
///
/// # Errors
/// What the store answers.
pub(in crate::engines) async fn whose(
    view: &View,
    name: Option<&IdentityName>,
) -> Result<Option<Versioned<IdentityRow>>> {
    let own = &view.subject()?.identity;
    let Some(name) = name.filter(|name| **name != own.row.name).cloned() else {
        return Ok(Some(own.clone()));
    };
    view.read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed())
        .await
}

/// What it has as a decision sees it, by the name of all that: held by it, and owned by whoever
/// answers for it. What nobody has is named and nothing else.
///
/// # Errors
/// As [`whose`].
pub(in crate::engines) async fn held_by(
    view: &View,
    name: Option<&IdentityName>,
    named: impl FnOnce(&IdentityName) -> Result<ResourceName>,
) -> Result<Resource> {
    let found = whose(view, name).await?;
    let name = name.or(found.as_ref().map(|found| &found.row.name));
    let name = name.ok_or_else(|| Error::internal("a caller without a name"))?;
    let mut resource = Resource::named(named(name)?);
    if let Some(found) = &found {
        resource = resource.with_row(found.row.id.0, found);
        resource.holder = Some(found.row.id);
        resource.owner = Some(found.row.owner);
    }
    Ok(resource)
}
