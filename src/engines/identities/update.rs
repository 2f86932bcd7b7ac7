//! Changes what is known about an identity. Name, kind and person never change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::create::check_machine_ttl;
use super::labels::{check_labels, read_labels, write_labels};
use super::show::{decided, described};
use super::state::{end_outside, next, read, retired};
use super::text::check_purpose;
use super::{Described, LONG, check_text, keep_an_administrator};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityName, IdentityState, Kind, RequestContext, Tier, UnixMillis};
use crate::vault::{Answerable, Decision, GOVERNS, Note, Operation, READS, Resource, Verb, View};

/// Changes an identity; what is left out stays.
#[derive(Debug, Clone)]
pub struct UpdateIdentity {
    /// Its name.
    pub name: IdentityName,
    /// What it is for.
    pub purpose: Option<String>,
    /// What it has to reach.
    pub needs: Option<String>,
    /// How much harm its misuse could do.
    pub tier: Option<Tier>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away, by key.
    pub remove_labels: Vec<String>,
    /// When it is to end.
    pub end: Option<End>,
}

/// When an identity is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After so long, from now on.
    In(Duration),
    /// Never, which is for humans.
    Never,
}

impl End {
    fn at(self, now: UnixMillis) -> Result<Option<UnixMillis>> {
        match self {
            Self::In(ttl) => now.plus(ttl).map(Some),
            Self::Never => Ok(None),
        }
    }
}

impl UpdateIdentity {
    fn check(&self) -> Result<()> {
        self.purpose.as_deref().map_or(Ok(()), check_purpose)?;
        check_text("what it needs", self.needs.as_deref().unwrap_or_default(), LONG)?;
        check_labels(&self.set_labels)?;
        if self.remove_labels.iter().any(|key| self.set_labels.contains_key(key)) {
            return Err(Error::invalid("a label is either set or taken away"));
        }
        Ok(())
    }

    /// Checks a new end. Nobody answers for what has no active owner, so it ends when it was to.
    fn check_end(&self, row: &IdentityRow, owned: bool, now: UnixMillis) -> Result<()> {
        let Some(end) = self.end else { return Ok(()) };
        match end {
            End::In(ttl) if row.kind.is_machine() => check_machine_ttl(Some(ttl))?,
            End::Never if row.kind.is_machine() => {
                return Err(Error::invalid("a machine must end: say how long it lives"));
            }
            End::In(_) | End::Never => {}
        }
        let later = end.at(now)?.is_none_or(|at| row.expires_at.is_some_and(|old| at > old));
        if later && row.kind.is_machine() && !owned {
            return Err(Error::precondition(
                "an identity without an active owner receives nothing new, no later end either; \
                 transfer it first",
            ));
        }
        Ok(())
    }

    fn changed(&self, old: &IdentityRow, now: UnixMillis) -> Result<IdentityRow> {
        let mut row = old.clone();
        let mut labels = read_labels(&row.labels)?;
        labels.extend(self.set_labels.clone());
        labels.retain(|key, _| !self.remove_labels.contains(key));
        check_labels(&labels)?;
        row.labels = write_labels(&labels)?;
        row.purpose = self.purpose.clone().unwrap_or_else(|| row.purpose.clone());
        row.needs = self.needs.clone().unwrap_or_else(|| row.needs.clone());
        row.tier = self.tier.unwrap_or(row.tier);
        if let Some(end) = self.end {
            if row.expires_at.is_some_and(|old| old <= now) {
                // Its end ended what it held: a later one brings nothing back.
                row.revocation_epoch = next(row.revocation_epoch)?;
            }
            row.expires_at = end.at(now)?;
        }
        Ok(row)
    }
}

/// An identity as it was decided on, and as it is to be.
#[derive(Debug)]
pub struct PreparedUpdate {
    found: Versioned<IdentityRow>,
    changed: IdentityRow,
    differences: String,
}

impl PreparedUpdate {
    fn changes(&self) -> bool {
        self.found.row != self.changed
    }
}

/// Says what changes, and what it was.
fn differences(old: &IdentityRow, new: &IdentityRow) -> Result<String> {
    let end = |row: &IdentityRow| row.expires_at.map_or_else(never, |at| at.to_string());
    let mut both = vec![
        ("purpose".to_owned(), quoted(&new.purpose), quoted(&old.purpose)),
        ("needs".to_owned(), quoted(&new.needs), quoted(&old.needs)),
        ("tier".to_owned(), new.tier.to_string(), old.tier.to_string()),
        ("end".to_owned(), end(new), end(old)),
    ];
    let (after, before) = (read_labels(&new.labels)?, read_labels(&old.labels)?);
    let keys: BTreeSet<&String> = after.keys().chain(before.keys()).collect();
    both.extend(keys.into_iter().map(|key| {
        let value = |of: &BTreeMap<String, String>| of.get(key).map_or_else(none, |v| quoted(v));
        (format!("label {key}"), value(&after), value(&before))
    }));
    both.retain(|(_, new, old)| new != old);
    let side = |value: fn(&(String, String, String)) -> &String| {
        let said = both.iter().map(|one| format!("{} {}", one.0, value(one)));
        said.collect::<Vec<_>>().join(", ")
    };
    Ok(if both.is_empty() {
        "nothing changed".to_owned()
    } else {
        format!("{}; was: {}", side(|one| &one.1), side(|one| &one.2))
    })
}

/// Quotes text, so that what somebody wrote is not taken for what is said about it.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn never() -> String {
    "never".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

#[async_trait]
impl Verb for UpdateIdentity {
    const ACTION: &'static str = "identities.update";
    type Prepared = PreparedUpdate;
    type Output = Described;

    /// A new end stands on the owner as well.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let (mut resource, found) = described(view, &self.name).await?;
        if let Some(found) = found.filter(|_| self.end.is_some()) {
            let owner =
                view.read(move |tx| async move { Answerable::of(tx, &found).await }.boxed());
            resource.rows.extend(owner.await?.fence());
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<PreparedUpdate> {
        self.check()?;
        let (id, now) = (decided(decision)?, view.now());
        let read = view.read(move |tx| {
            async move {
                let found = read(tx, id).await?;
                let owned = Answerable::of(tx, &found).await?.is_active(now);
                Ok((found, owned))
            }
            .boxed()
        });
        let (found, owned) = read.await?;
        if !decision.resource()?.rows.contains(&found.fence()) {
            return Err(Error::Conflict("the identity changed; retry".into()));
        }
        if found.row.state == IdentityState::Retired {
            return Err(retired());
        }
        if found.row.kind == Kind::Bootstrap {
            return Err(Error::precondition("the bootstrap identity stays as it is"));
        }
        self.check_end(&found.row, owned, now)?;
        let changed = self.changed(&found.row, now)?;
        let differences = differences(&found.row, &changed)?;
        Ok(PreparedUpdate { found, changed, differences })
    }

    fn note(&self, it: &PreparedUpdate, note: &mut Note) {
        note.private.push((Field::Detail, it.differences.clone()));
    }
}

#[async_trait]
impl Operation for UpdateIdentity {
    const NEEDS: Needs = GOVERNS;

    /// What changes nothing disturbs nobody.
    fn needs(&self, it: &PreparedUpdate) -> Needs {
        if it.changes() { GOVERNS } else { READS }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &PreparedUpdate,
        _: &Decision,
    ) -> Result<Described> {
        let Versioned { row, version } = &it.found;
        if it.changes() {
            if matches!(self.end, Some(End::In(_))) {
                keep_an_administrator(tx, row.id, ctx.now).await?;
            }
            let mut changed = it.changed.clone();
            changed.note_change(ctx.now, ctx.actor());
            let changed = tx.update(*version, &changed).await?.row;
            // Its end may have come after the worker's last look.
            if changed.revocation_epoch != row.revocation_epoch {
                end_outside(ctx, tx, &changed).await?;
            }
        }
        Described::find(tx, row.id, ctx.now).await
    }
}
