//! Deletes versions, and brings them back while their window is open.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::{
    Found, decided, no_version, owner_of, require_active, resource, resource_to_write,
};
use super::put::purge_at;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretRow, SecretVersionRow, VERSIONS};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{ObjectId, RequestContext, SecretPath, SecretState, UnixMillis};
use crate::vault::{CONTAINS, Decision, Note, Operation, READS, Resource, Verb, View, WRITES};

/// Longest window, in seconds: ten years.
pub(super) const WINDOW_MOST_S: u64 = 3_653 * 86_400;

/// Versions that something is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Their numbers; all that it can be done to where it is empty.
    pub versions: Vec<i64>,
    /// The number of the newest version, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

/// The versions that were changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Their numbers, in order.
    pub versions: Vec<i64>,
}

impl Chosen {
    /// Tells whether one of them is in a state that is to be changed.
    pub(super) async fn any(
        &self,
        view: &View,
        id: ObjectId,
        changes: impl Fn(SecretState) -> bool,
    ) -> Result<bool> {
        let chosen = self.clone();
        let read = view.read(move |tx| {
            async move {
                let found = Found::read(tx, id).await?;
                chosen.of(tx, &found).await
            }
            .boxed()
        });
        Ok(read.await?.iter().any(|version| changes(version.row.state)))
    }

    pub(super) fn check(&self) -> Result<()> {
        let most = usize::try_from(VERSIONS).map_err(Error::internal)?;
        if self.versions.len() > most || self.versions.iter().any(|version| *version < 1) {
            return Err(Error::invalid(format!("name at most {most} versions, each from 1 on")));
        }
        Ok(())
    }

    /// Reads them, in order; those that were destroyed only where they are named.
    pub(super) async fn of(
        &self,
        tx: &mut Tx,
        found: &Found,
    ) -> Result<Vec<Versioned<SecretVersionRow>>> {
        found.expect(self.expected)?;
        let head = &found.head.row;
        if self.versions.is_empty() {
            return Ok(secrets::valued(tx, head, head.newest).await?);
        }
        let mut numbers = self.versions.clone();
        numbers.sort_unstable();
        numbers.dedup();
        let mut chosen = Vec::with_capacity(numbers.len());
        for number in numbers {
            let version = secrets::version_numbered(tx, head.id, number).await?;
            chosen.push(version.ok_or_else(|| no_version(number))?);
        }
        Ok(chosen)
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.versions.as_slice() {
            [] => f.write_str("all versions"),
            versions => write!(f, "versions {versions:?}"),
        }
    }
}

/// Versions of a secret that are taken away.
#[derive(Debug, Clone, Copy)]
pub struct Taking {
    /// The secret.
    pub(super) id: ObjectId,
    /// Whether there was anything to take.
    pub(super) any: bool,
}

impl Taking {
    /// What changes nothing moves nothing: it would make every decision on the vault anew.
    pub(super) const fn needs(self) -> Needs {
        if self.any { CONTAINS } else { READS }
    }

    /// Refuses to change something where nothing was found to change.
    pub(super) fn require(self) -> Result<()> {
        if self.any {
            return Ok(());
        }
        Err(Error::Conflict("a version was written or brought back meanwhile; repeat".into()))
    }
}

/// Deletes versions: they are not read any more, and destroyed when their window closes.
#[derive(Debug, Clone)]
pub struct DeleteSecret {
    /// The secret's name.
    pub path: SecretPath,
    /// Which versions.
    pub chosen: Chosen,
    /// How long they can be undeleted; the secret's own window where it is left out.
    pub window: Option<Duration>,
}

#[async_trait]
impl Verb for DeleteSecret {
    const ACTION: &'static str = "secrets.delete";
    type Prepared = Taking;
    type Output = Changed;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Taking> {
        self.chosen.check()?;
        if self.window.is_some_and(|window| window.as_secs() > WINDOW_MOST_S) {
            return Err(Error::invalid("a window is at most ten years"));
        }
        let id = decided(decision)?;
        let any = self.chosen.any(view, id, |state| state == SecretState::Live).await?;
        Ok(Taking { id, any })
    }

    fn note(&self, _: &Taking, note: &mut Note) {
        note.private.push((Field::Detail, self.chosen.to_string()));
    }
}

impl DeleteSecret {
    fn end(&self, secret: &SecretRow, now: UnixMillis) -> Result<UnixMillis> {
        match self.window {
            Some(window) => now.plus(window),
            None => purge_at(secret, now),
        }
    }
}

#[async_trait]
impl Operation for DeleteSecret {
    /// Whoever reads meanwhile is decided again: after the answer nobody gets the value.
    const NEEDS: Needs = CONTAINS;

    fn needs(&self, it: &Taking) -> Needs {
        it.needs()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Taking,
        _: &Decision,
    ) -> Result<Changed> {
        let found = Found::read(tx, it.id).await?;
        let end = self.end(&found.secret.row, ctx.now)?;
        let mut changed = Vec::new();
        for version in self.chosen.of(tx, &found).await? {
            if version.row.state != SecretState::Live {
                continue;
            }
            it.require()?;
            let row = SecretVersionRow {
                state: SecretState::Deleted,
                purge_at: Some(version.row.purge_at.map_or(end, |at| at.min(end))),
                changed_at: ctx.now,
                changed_by: ctx.actor(),
                ..version.row.clone()
            };
            tx.change(&version, &row).await?;
            changed.push(row.version);
        }
        if it.any {
            found.touch(tx, ctx.now, ctx.actor()).await?;
        }
        Ok(Changed { versions: changed })
    }
}

/// Brings deleted versions back.
#[derive(Debug, Clone)]
pub struct UndeleteSecret {
    /// The secret's name.
    pub path: SecretPath,
    /// Which versions.
    pub chosen: Chosen,
}

#[async_trait]
impl Verb for UndeleteSecret {
    const ACTION: &'static str = "secrets.undelete";
    type Prepared = ObjectId;
    type Output = Changed;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource_to_write(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<ObjectId> {
        self.chosen.check()?;
        let (id, now) = (decided(decision)?, view.now());
        let read = view.read(move |tx| {
            async move {
                let found = Found::read(tx, id).await?;
                require_active(&owner_of(tx, &found.secret.row).await?.row, now)
            }
            .boxed()
        });
        read.await?;
        Ok(id)
    }

    fn note(&self, _: &ObjectId, note: &mut Note) {
        note.private.push((Field::Detail, self.chosen.to_string()));
    }
}

#[async_trait]
impl Operation for UndeleteSecret {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &ObjectId,
        _: &Decision,
    ) -> Result<Changed> {
        let found = Found::read(tx, *id).await?;
        let mut changed = Vec::new();
        for version in self.chosen.of(tx, &found).await? {
            let named = !self.chosen.versions.is_empty();
            let open = version.row.purge_at.is_some_and(|at| at > ctx.now);
            if version.row.state != SecretState::Deleted || !open {
                let gone = version.row.state != SecretState::Live;
                if gone && named {
                    let text = format!("version {} is gone for ever", version.row.version);
                    return Err(Error::precondition(text));
                }
                continue;
            }
            let ends = version.row.expires_at.map(|end| purge_at(&found.secret.row, end));
            let row = SecretVersionRow {
                state: SecretState::Live,
                purge_at: ends.transpose()?,
                changed_at: ctx.now,
                changed_by: ctx.actor(),
                ..version.row.clone()
            };
            tx.change(&version, &row).await?;
            changed.push(row.version);
        }
        Ok(Changed { versions: changed })
    }
}
