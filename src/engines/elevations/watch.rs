//! Streams elevations that concern the caller as they change.
//!
//! Changes are found by when they were made, and nodes' clocks differ by some seconds: what changed
//! lately is looked at again, and told once for each version.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::show::Elevation;
use crate::engines::identities::Names;
use crate::error::Result;
use crate::store::elevations as rows;
use crate::types::{ElevationId, ResourceName, UnixMillis};
use crate::vault::{Decision, Resource, StreamOperation, Verb, View};

/// How far back is looked again, in milliseconds: twice what clocks may differ by.
const AGAIN_MS: i64 = 10_000;
/// Changes looked at in one look, so many at a time.
const STEP: i64 = 256;
const STEPS: usize = 8;

/// Asks for elevations as they change.
#[derive(Debug, Clone, Copy)]
pub struct WatchElevations;

/// Where a stream stands.
#[derive(Debug)]
pub struct Cursor {
    /// Changes from before the stream began are not told.
    began: UnixMillis,
    /// The change after which is looked.
    after: (UnixMillis, String),
    /// What was told or passed over since then: its version, and when it changed.
    seen: HashMap<ElevationId, (i64, UnixMillis)>,
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
        let began = view.now();
        let from = UnixMillis(began.0.saturating_sub(AGAIN_MS));
        let after = (from, String::new());
        // What stands already when the stream begins is not told.
        let read = view.read(move |tx| {
            async move { Ok(rows::changed_after(tx, from, "", STEP).await?) }.boxed()
        });
        let standing = read.await?.rows.into_iter();
        let seen = standing.map(|it| (it.row.id, (it.version, it.row.changed_at))).collect();
        Ok(Cursor { began, after, seen })
    }
}

#[async_trait]
impl StreamOperation for WatchElevations {
    async fn next(&self, view: &View, at: &mut Cursor) -> Result<Vec<Elevation>> {
        let (subject, of) = (Arc::clone(view.subject()?), (view.vault_id(), view.is_dev()));
        let (mut after, known) = (at.after.clone(), at.seen.clone());
        let read = view.read(move |tx| {
            async move {
                let (mut found, mut changed, mut names) =
                    (Vec::new(), Vec::new(), Names::default());
                for _ in 0..STEPS {
                    let part = rows::changed_after(tx, after.0, &after.1, STEP).await?;
                    after = part.last.unwrap_or(after);
                    for row in part.rows {
                        let (id, version, at) = (row.row.id, row.version, row.row.changed_at);
                        found.push((id, version, at));
                        if known.get(&id).is_some_and(|(told, _)| *told >= version) {
                            continue;
                        }
                        let seen = Elevation::seen(tx, &mut names, row, &subject, of).await?;
                        changed.extend(seen);
                    }
                    if !part.more {
                        break;
                    }
                }
                Ok((found, changed))
            }
            .boxed()
        });
        let (found, changed) = read.await?;
        at.note(view.now(), found);
        Ok(changed)
    }
}

impl Cursor {
    /// Remembers what was found, and moves on past what is too old to be joined by another.
    fn note(&mut self, now: UnixMillis, found: Vec<(ElevationId, i64, UnixMillis)>) {
        let settled = UnixMillis(now.0.saturating_sub(AGAIN_MS).max(self.began.0 - AGAIN_MS));
        for (id, version, at) in found {
            self.seen.insert(id, (version, at));
            if at < settled {
                self.after = (at, id.to_string());
            }
        }
        let from = self.after.0;
        self.seen.retain(|_, (_, at)| *at >= from);
    }
}
