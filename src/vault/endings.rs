//! What ends soon of what somebody answers for, kept for a while: whoever asks who they are is told.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::View;
use crate::error::Result;
use crate::store::lifecycles;
use crate::types::{IdentityId, IdentityName, Owner, UnixMillis};

/// Owners whose machines are remembered.
const KEPT: usize = 10_000;
/// How long, in milliseconds.
const STANDS_MS: i64 = 60_000;
/// Machines looked for of one owner.
const MOST: i64 = 100;
/// Those that are named.
const NAMED: usize = 5;

/// What ends soon of what one identity answers for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndingSoon {
    /// The first few, by when they end.
    pub first: Vec<(IdentityName, UnixMillis)>,
    /// How many there are, up to a bound.
    pub count: usize,
    /// Whether there may be more.
    pub more: bool,
}

/// What was found of each owner, and when.
#[derive(Debug, Default)]
pub(super) struct Endings(Mutex<HashMap<IdentityId, (UnixMillis, Arc<EndingSoon>)>>);

impl Endings {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    fn kept(&self, owner: IdentityId, now: UnixMillis) -> Option<Arc<EndingSoon>> {
        let kept = self.0.lock();
        let (at, found) = kept.get(&owner)?;
        (now.0.saturating_sub(at.0) < STANDS_MS).then(|| Arc::clone(found))
    }

    fn keep(&self, owner: IdentityId, now: UnixMillis, found: &Arc<EndingSoon>) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(owner, (now, Arc::clone(found)));
    }
}

impl View {
    /// Tells what ends soon of the machines that the caller answers for, itself or in a group. What
    /// is said may be a minute old.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn ending_soon(&self) -> Result<Arc<EndingSoon>> {
        let subject = self.subject()?;
        let (id, now) = (subject.identity.row.id, self.now());
        if subject.identity.row.kind.is_machine() {
            return Ok(Arc::default());
        }
        if let Some(kept) = self.core.endings.kept(id, now) {
            return Ok(kept);
        }
        let groups = subject.groups.iter().map(|group| Owner::Group(group.row.id));
        let owners: Vec<Owner> = std::iter::once(Owner::Identity(id)).chain(groups).collect();
        let read = self.read(move |tx| {
            async move {
                let mut found = Vec::new();
                for owner in owners {
                    found.extend(lifecycles::ending_of(tx, owner, now, MOST).await?);
                }
                Ok(found)
            }
            .boxed()
        });
        let mut all = read.await?;
        all.sort_by_key(|found| found.row.expires_at);
        let most = usize::try_from(MOST).unwrap_or(usize::MAX);
        let named = all
            .iter()
            .take(NAMED)
            .filter_map(|found| found.row.expires_at.map(|end| (found.row.name.clone(), end)));
        let found =
            EndingSoon { first: named.collect(), count: all.len(), more: all.len() >= most };
        let found = Arc::new(found);
        self.core.endings.keep(id, now, &found);
        Ok(found)
    }
}
