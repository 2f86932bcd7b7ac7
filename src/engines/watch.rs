//! Streams what concerns the caller as it changes, one noun like the other.
//!
//! Changes are found by when they were made, and nodes' clocks differ by some seconds: what changed
//! lately is looked at again, and told once for each version.

use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::identities::Names;
use crate::error::Result;
use crate::store::walks::changed_after;
use crate::store::{SealedRow, Tx, Versioned};
use crate::types::{Id, UnixMillis};
use crate::vault::View;

/// How far back is looked again, in milliseconds: twice what clocks may differ by.
const AGAIN_MS: i64 = 10_000;
/// Changes looked at in one look, so many at a time.
const STEP: i64 = 256;
const STEPS: usize = 8;

/// What is watched: which rows, and what of one is told to who watches.
#[async_trait]
pub(super) trait Watched: Send + Sync + 'static {
    /// The rows; their table has `changed_at` and `id`.
    type Row: SealedRow + 'static;
    /// What is told of one.
    type Told: Send + 'static;

    /// The id of a row, and when it changed.
    fn place(row: &Self::Row) -> (Id, UnixMillis);

    /// Reads what is told of a row; nothing where it does not concern who watches.
    async fn told(
        &self,
        tx: &mut Tx,
        names: &mut Names,
        found: Versioned<Self::Row>,
    ) -> Result<Option<Self::Told>>;
}

/// Where a stream stands.
#[derive(Debug)]
pub struct Cursor {
    /// Changes from before the stream began are not told.
    began: UnixMillis,
    /// The change after which is looked.
    after: (UnixMillis, String),
    /// What was told or passed over since then: its version, and when it changed.
    seen: HashMap<Id, (i64, UnixMillis)>,
}

impl Cursor {
    /// Begins a stream: what stands already is not told.
    pub(super) async fn begin<W: Watched>(view: &View) -> Result<Self> {
        let began = view.now();
        let from = UnixMillis(began.0.saturating_sub(AGAIN_MS));
        let read = view.read(move |tx| {
            async move { Ok(changed_after::<W::Row>(tx, from, "", STEP).await?) }.boxed()
        });
        let standing = read.await?.rows.into_iter();
        let seen = standing.map(|found| {
            let (id, at) = W::place(&found.row);
            (id, (found.version, at))
        });
        Ok(Self { began, after: (from, String::new()), seen: seen.collect() })
    }

    /// Reads what changed since.
    pub(super) async fn next<W: Watched>(&mut self, view: &View, what: W) -> Result<Vec<W::Told>> {
        let (mut after, known) = (self.after.clone(), self.seen.clone());
        let read = view.read(move |tx| {
            async move {
                let (mut found, mut changed, mut names) =
                    (Vec::new(), Vec::new(), Names::default());
                for _ in 0..STEPS {
                    let part = changed_after::<W::Row>(tx, after.0, &after.1, STEP).await?;
                    after = part.last.unwrap_or(after);
                    for row in part.rows {
                        let ((id, at), version) = (W::place(&row.row), row.version);
                        found.push((id, version, at));
                        if known.get(&id).is_some_and(|(told, _)| *told >= version) {
                            continue;
                        }
                        changed.extend(what.told(tx, &mut names, row).await?);
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
        self.note(view.now(), found);
        Ok(changed)
    }

    /// Remembers what was found, and moves on past what is too old to be joined by another.
    fn note(&mut self, now: UnixMillis, found: Vec<(Id, i64, UnixMillis)>) {
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
