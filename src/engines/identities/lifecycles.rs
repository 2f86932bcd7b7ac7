//! How the identities of one kind live: bounds that are enforced wherever something is issued, and
//! by the worker that suspends what is over or unused.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Names;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Kind, RequestContext, UnixMillis};
use crate::vault::{Decision, GOVERNS, Note, Operation, READS, Resource, Verb, View};

const DAY_S: i64 = 86_400;
/// Nothing that is issued may be allowed to live longer, or shorter.
const MOST_S: i64 = 397 * DAY_S;
const LEAST_S: i64 = 60;
/// Of humans: who administers has to get the next login before the last one ends, and counts as one
/// who can log in only while a good part of it is left.
const LEAST_HUMAN_S: i64 = 3_600;

/// After how long logins that are used in development must have been replaced, where nobody says.
const DEVELOPMENT_ROTATION: Duration = Duration::from_hours(30 * 24);

/// How the identities of one kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    /// How long what is issued to them lives at most, each time.
    pub max_ttl: Duration,
    /// How long it lives at most, however often it is renewed.
    pub max_age: Duration,
    /// After how long what they log in with must have been replaced.
    pub rotation: Duration,
    /// The same, of those with the label `environment=development`; where it is not said, 30 days or
    /// what holds for all.
    pub development_rotation: Option<Duration>,
    /// After how long without use they are suspended, if ever.
    pub dormant_after: Option<Duration>,
    /// How long before an end they are told of it.
    pub notice: Duration,
    /// Whether each of their tokens can be used once alone.
    pub single_use: bool,
}

impl Lifecycle {
    /// What a new vault begins with.
    #[must_use]
    pub const fn usual(kind: Kind) -> Self {
        let (life, dormant) = match kind {
            Kind::Human | Kind::Bootstrap => (30, 180),
            Kind::Service | Kind::Pipeline => (90, 90),
            Kind::Agent | Kind::Model | Kind::Dataset => (30, 90),
            Kind::Runner => (7, 30),
        };
        let life = Duration::from_hours(life * 24);
        Self {
            max_ttl: life,
            max_age: life,
            rotation: life,
            development_rotation: None,
            dormant_after: Some(Duration::from_hours(dormant * 24)),
            notice: Duration::from_hours(14 * 24),
            single_use: matches!(kind, Kind::Runner),
        }
    }

    /// Writes it as a row that nobody has written before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a bound is out of bounds.
    pub fn row(&self, kind: Kind, now: UnixMillis, by: String) -> Result<LifecycleRow> {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let row = LifecycleRow {
            id: kind,
            max_ttl_s: seconds(self.max_ttl),
            max_age_s: seconds(self.max_age),
            rotation_s: seconds(self.rotation),
            development_rotation_s: seconds(
                self.development_rotation.unwrap_or(self.rotation.min(DEVELOPMENT_ROTATION)),
            ),
            dormant_after_s: self.dormant_after.map_or(0, seconds),
            notice_s: seconds(self.notice),
            single_use: self.single_use,
            created_at: now,
            created_by: by.clone(),
            changed_at: now,
            changed_by: by,
        };
        let least_s = if kind == Kind::Human { LEAST_HUMAN_S } else { LEAST_S };
        let life = |s: i64| (least_s..=MOST_S).contains(&s);
        if !(life(row.max_ttl_s) && life(row.max_age_s) && life(row.rotation_s)) {
            return Err(Error::invalid(format!(
                "the longest TTL, the greatest age and the rotation are {least_s} s to 397 days"
            )));
        }
        if row.max_ttl_s > row.max_age_s {
            return Err(Error::invalid("the longest TTL is beyond the greatest age"));
        }
        if !(least_s..=row.rotation_s).contains(&row.development_rotation_s) {
            return Err(Error::invalid(format!(
                "the rotation in development is {least_s} s at least and the rotation at most"
            )));
        }
        if row.dormant_after_s != 0 && row.dormant_after_s < DAY_S {
            return Err(Error::invalid("nobody is dormant after less than a day"));
        }
        if row.notice_s > MOST_S {
            return Err(Error::invalid("notice is given at most 397 days before"));
        }
        Ok(row)
    }
}

/// How the identities of one kind live, with a name for an id.
#[derive(Debug, Clone)]
pub struct DescribedLifecycle {
    /// Its row.
    pub lifecycle: Versioned<LifecycleRow>,
    /// Who last changed it.
    pub changed_by: String,
}

impl DescribedLifecycle {
    async fn find(tx: &mut Tx, names: &mut Names, kind: Kind) -> Result<Self> {
        let lifecycle = lifecycles::of_kind(tx, kind).await?;
        let changed_by = names.actor(tx, &lifecycle.row.changed_by).await?;
        Ok(Self { lifecycle, changed_by })
    }
}

/// Lists how the identities of each kind live.
#[derive(Debug, Clone, Copy)]
pub struct ListLifecycles;

/// Says how the identities of a kind live from now on.
#[derive(Debug, Clone, Copy)]
pub struct PutLifecycle {
    /// The kind.
    pub kind: Kind,
    /// How they live.
    pub lifecycle: Lifecycle,
}

/// How they lived, and how they are to live.
#[derive(Debug)]
pub struct PreparedLifecycle {
    before: Versioned<LifecycleRow>,
    row: LifecycleRow,
}

/// Writes the bounds for the record.
fn bounds(row: &LifecycleRow) -> String {
    let LifecycleRow { max_ttl_s, max_age_s, rotation_s, dormant_after_s, notice_s, .. } = row;
    let LifecycleRow { development_rotation_s, single_use, .. } = row;
    format!(
        "max_ttl_s {max_ttl_s}, max_age_s {max_age_s}, rotation_s {rotation_s}, \
         development_rotation_s {development_rotation_s}, dormant_after_s {dormant_after_s}, \
         notice_s {notice_s}, single_use {single_use}"
    )
}

fn everybody() -> Result<Vec<Resource>> {
    Ok(vec![Resource::named("identities".parse()?)])
}

#[async_trait]
impl Verb for ListLifecycles {
    const ACTION: &'static str = "identities.list-policies";
    type Prepared = Vec<DescribedLifecycle>;
    type Output = Vec<DescribedLifecycle>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        everybody()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let list = view.read(|tx| {
            async move {
                let (mut names, mut all) = (Names::default(), Vec::new());
                for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Bootstrap) {
                    all.push(DescribedLifecycle::find(tx, &mut names, *kind).await?);
                }
                Ok(all)
            }
            .boxed()
        });
        list.await
    }
}

#[async_trait]
impl Operation for ListLifecycles {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Self::Prepared,
        _: &Decision,
    ) -> Result<Self::Output> {
        Ok(prepared.clone())
    }
}

#[async_trait]
impl Verb for PutLifecycle {
    const ACTION: &'static str = "identities.put-policy";
    type Prepared = PreparedLifecycle;
    type Output = DescribedLifecycle;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        everybody()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<PreparedLifecycle> {
        let kind = self.kind;
        if kind == Kind::Bootstrap {
            return Err(Error::invalid("the bootstrap identity lives as the vault made it"));
        }
        let row = self.lifecycle.row(kind, view.now(), view.actor())?;
        let before = view
            .read(move |tx| async move { Ok(lifecycles::of_kind(tx, kind).await?) }.boxed())
            .await?;
        Ok(PreparedLifecycle { before, row })
    }

    fn note(&self, it: &PreparedLifecycle, note: &mut Note) {
        let (before, after) = (bounds(&it.before.row), bounds(&it.row));
        note.private.push((Field::Detail, format!("{}: {after}; was: {before}", self.kind)));
    }
}

#[async_trait]
impl Operation for PutLifecycle {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &PreparedLifecycle,
        _: &Decision,
    ) -> Result<DescribedLifecycle> {
        let Versioned { row: before, version } = &it.before;
        let row = LifecycleRow {
            created_at: before.created_at,
            created_by: before.created_by.clone(),
            ..it.row.clone()
        };
        tx.update(*version, &row).await?;
        DescribedLifecycle::find(tx, &mut Names::default(), self.kind).await
    }
}
