//! Streams ceremonies as they change.

use async_trait::async_trait;

use super::case::Case;
use super::show::Ceremony;
use crate::engines::identities::Names;
use crate::engines::watch::{Cursor, Watched};
use crate::error::{Error, Result};
use crate::store::ceremonies::CeremonyRow;
use crate::store::{Tx, Versioned};
use crate::types::{Id, UnixMillis};
use crate::vault::{Decision, Resource, StreamOperation, Verb, View};

/// Asks for ceremonies as they change.
#[derive(Debug, Clone, Copy)]
pub struct WatchCeremonies;

/// All of them, as of a moment, in a vault that is marked as development or not.
struct All {
    now: UnixMillis,
    dev: bool,
}

#[async_trait]
impl Watched for All {
    type Row = CeremonyRow;
    type Told = Ceremony;

    fn place(row: &CeremonyRow) -> (Id, UnixMillis) {
        (row.id.0, row.changed_at)
    }

    /// One that stands on what is not what was sealed is left out, with the alarm: it must not hide
    /// the others.
    async fn told(
        &self,
        tx: &mut Tx,
        names: &mut Names,
        found: Versioned<CeremonyRow>,
    ) -> Result<Option<Ceremony>> {
        let told = async {
            let case = Case::load(tx, found, self.dev).await?;
            Ceremony::of(tx, names, &case, self.now).await.map(Some)
        };
        match told.await {
            Err(Error::Tampered { .. }) => Ok(None),
            told => told,
        }
    }
}

#[async_trait]
impl Verb for WatchCeremonies {
    const ACTION: &'static str = "ceremonies.watch";
    type Prepared = Cursor;
    type Output = Ceremony;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("ceremonies".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Cursor> {
        Cursor::begin::<All>(view).await
    }
}

#[async_trait]
impl StreamOperation for WatchCeremonies {
    async fn next(&self, view: &View, at: &mut Cursor) -> Result<Vec<Ceremony>> {
        at.next(view, All { now: view.now(), dev: view.is_dev() }).await
    }
}
