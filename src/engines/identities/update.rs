//! Changes what is known about an identity. Name, kind and person never change.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::create::check_machine_ttl;
use super::labels::{check_labels, read_labels, write_labels};
use super::show::{decided, described};
use super::state::{next, read, retired};
use super::{Described, LONG, check_text, keep_an_administrator};
use crate::error::{Error, Result};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityId, IdentityName, IdentityState, Kind, RequestContext, Tier, UnixMillis,
};
use crate::vault::{Answerable, Decision, GOVERNS, Operation, Resource, Verb, View};

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
        check_text("a purpose", self.purpose.as_deref().unwrap_or_default(), LONG)?;
        check_text("what it needs", self.needs.as_deref().unwrap_or_default(), LONG)?;
        check_labels(&self.set_labels)?;
        if self.remove_labels.iter().any(|key| self.set_labels.contains_key(key)) {
            return Err(Error::invalid("a label is either set or taken away"));
        }
        Ok(())
    }

    /// Checks a new end. Nobody answers for what has no active owner, so it ends when it was to.
    async fn check_end(&self, view: &View, id: IdentityId) -> Result<()> {
        let Some(end) = self.end else { return Ok(()) };
        let (row, owner) = view
            .read(move |tx| {
                async move {
                    let found = read(tx, id).await?;
                    let owner = Answerable::of(tx, &found).await?;
                    Ok((found.row, owner))
                }
                .boxed()
            })
            .await?;
        match end {
            End::In(ttl) if row.kind.is_machine() => check_machine_ttl(Some(ttl))?,
            End::Never if row.kind.is_machine() => {
                return Err(Error::invalid("a machine must end: say how long it lives"));
            }
            End::In(_) | End::Never => {}
        }
        let later = end.at(view.now())?.is_none_or(|at| row.expires_at.is_some_and(|old| at > old));
        if later && row.kind.is_machine() && !owner.is_active(view.now()) {
            return Err(Error::precondition(
                "an identity without an active owner receives nothing new, no later end either; \
                 transfer it first",
            ));
        }
        Ok(())
    }

    fn apply(&self, row: &mut IdentityRow, now: UnixMillis) -> Result<()> {
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
        Ok(())
    }
}

#[async_trait]
impl Verb for UpdateIdentity {
    const ACTION: &'static str = "identities.update";
    type Prepared = IdentityId;
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

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<IdentityId> {
        self.check()?;
        let id = decided(decision)?;
        self.check_end(view, id).await?;
        Ok(id)
    }
}

#[async_trait]
impl Operation for UpdateIdentity {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &IdentityId,
        _: &Decision,
    ) -> Result<Described> {
        let Versioned { row, version } = read(tx, *id).await?;
        if row.state == IdentityState::Retired {
            return Err(retired());
        }
        if row.kind == Kind::Bootstrap {
            return Err(Error::precondition("the bootstrap identity stays as it is"));
        }
        if matches!(self.end, Some(End::In(_))) {
            keep_an_administrator(tx, *id, ctx.now).await?;
        }
        let mut changed = row.clone();
        self.apply(&mut changed, ctx.now)?;
        if changed != row {
            changed.changed_at = ctx.now;
            changed.changed_by = ctx.actor();
            tx.update(version, &changed).await?;
        }
        Described::find(tx, *id, ctx.now).await
    }
}
