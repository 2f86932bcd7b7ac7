//! Streams elevations that concern the caller as they change.

use std::sync::Arc;

use async_trait::async_trait;

use super::show::Elevation;
use crate::engines::identities::Names;
use crate::engines::watch::{Cursor, Watched};
use crate::error::Result;
use crate::store::elevations::ElevationRow;
use crate::store::{Tx, Versioned};
use crate::types::{Id, ResourceName, UnixMillis, VaultId};
use crate::vault::{Decision, Resource, StreamOperation, Subject, Verb, View};

/// Asks for elevations as they change.
#[derive(Debug, Clone, Copy)]
pub struct WatchElevations;

/// Elevations that somebody may see.
struct Theirs {
    subject: Arc<Subject>,
    of: (VaultId, bool),
}

#[async_trait]
impl Watched for Theirs {
    type Row = ElevationRow;
    type Told = Elevation;

    fn place(row: &ElevationRow) -> (Id, UnixMillis) {
        (row.id.0, row.changed_at)
    }

    async fn told(
        &self,
        tx: &mut Tx,
        names: &mut Names,
        found: Versioned<ElevationRow>,
    ) -> Result<Option<Elevation>> {
        Elevation::seen(tx, names, found, &self.subject, self.of).await
    }
}

#[async_trait]
impl Verb for WatchElevations {
    const ACTION: &'static str = "elevations.watch";
    type Prepared = Cursor;
    type Output = Elevation;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("elevations", &[])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Cursor> {
        Cursor::begin::<Theirs>(view).await
    }
}

#[async_trait]
impl StreamOperation for WatchElevations {
    async fn next(&self, view: &View, at: &mut Cursor) -> Result<Vec<Elevation>> {
        let subject = Arc::clone(view.subject()?);
        at.next(view, Theirs { subject, of: (view.vault_id(), view.is_dev()) }).await
    }
}
