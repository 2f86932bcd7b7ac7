//! Changes what a key may still do, how often it rotates, and its labels.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::create::every_s;
use super::find::{awaits, named, of, unknown};
use super::make::rotates_at;
use super::show::KeyDetail;
use crate::audit::Field;
use crate::engines::identities::{check_labels, read_labels, write_labels};
use crate::error::{Error, Result};
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{KeyName, KeyVersionState, NamedKeyState, Placement, RequestContext};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// How often a key is to rotate by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// As it did.
    Stays,
    /// Not at all.
    Ends,
    /// As often.
    Every(Duration),
}

/// Changes a key.
#[derive(Debug, Clone)]
pub struct UpdateKey {
    /// Its name.
    pub name: KeyName,
    /// The version of its row, as the caller knows it.
    pub revision: i64,
    /// The oldest version that is still used; none leaves it.
    pub min_version: Option<i64>,
    /// Whether it is used; none leaves it.
    pub state: Option<NamedKeyState>,
    /// How often it rotates by itself.
    pub schedule: Schedule,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Keys of labels to take away.
    pub remove_labels: Vec<String>,
}

impl UpdateKey {
    fn changed(&self, view: &View, was: &NamedKeyRow) -> Result<NamedKeyRow> {
        let min_version = self.min_version.unwrap_or(was.min_version);
        if min_version > was.newest || min_version < 1 {
            return Err(Error::invalid("there is no such version"));
        }
        if min_version < was.min_version {
            return Err(Error::precondition(
                "the oldest version that is used only ever rises; what was retired stays so",
            ));
        }
        if was.state == NamedKeyState::Awaiting && self.state.is_some() {
            return Err(awaits());
        }
        if self.state == Some(NamedKeyState::Awaiting) {
            return Err(Error::invalid("a key is made `active` or `disabled`"));
        }
        let rotate_every_s = match self.schedule {
            Schedule::Stays => was.rotate_every_s,
            Schedule::Ends => None,
            Schedule::Every(every) => Some(every_s(every)?),
        };
        let rotate_at = match self.schedule {
            Schedule::Stays => was.rotate_at,
            Schedule::Ends | Schedule::Every(_) => rotates_at(view.now(), rotate_every_s)?,
        };
        let mut labels = read_labels(&was.labels)?;
        labels.extend(self.set_labels.clone());
        labels.retain(|key, _| !self.remove_labels.contains(key));
        check_labels(&labels)?;
        Ok(NamedKeyRow {
            min_version,
            state: self.state.unwrap_or(was.state),
            rotate_every_s,
            rotate_at,
            labels: write_labels(&labels)?,
            changed_at: view.now(),
            changed_by: view.actor(),
            ..was.clone()
        })
    }
}

#[async_trait]
impl Verb for UpdateKey {
    const ACTION: &'static str = "keys.update";
    type Prepared = (Versioned<NamedKeyRow>, NamedKeyRow);
    type Output = KeyDetail;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = named(view, &self.name).await?;
        Ok(vec![of(&self.name, found.as_ref())?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        let was = named(view, &self.name).await?.ok_or_else(unknown)?;
        let shown = decision.resource()?.rows.contains(&was.fence());
        if self.revision != was.version || !shown {
            let text = format!("its revision is {}, which is not what was expected", was.version);
            return Err(Error::Conflict(text.into()));
        }
        let is = self.changed(view, &was.row)?;
        Ok((was, is))
    }

    fn note(&self, (was, is): &Self::Prepared, note: &mut Note) {
        let shown = |row: &NamedKeyRow| {
            let every = row.rotate_every_s.map_or("never".to_owned(), |s| format!("{s} s"));
            let NamedKeyRow { state, min_version, labels, .. } = row;
            format!("{state}, from version {min_version}, rotates {every}, labels {labels}")
        };
        note.private.push((Field::Detail, format!("{} -> {}", shown(&was.row), shown(is))));
    }
}

#[async_trait]
impl Operation for UpdateKey {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (was, is): &Self::Prepared,
        _: &Decision,
    ) -> Result<KeyDetail> {
        let row = tx.change(was, is).await?;
        if is.min_version > was.row.min_version && is.placement == Placement::Hsm {
            retire(ctx, tx, is).await?;
        }
        KeyDetail::of(tx, row).await
    }
}

/// Retires the versions in the HSM that are not used any more: a worker destroys their keys.
async fn retire(ctx: &RequestContext, tx: &mut Tx, key: &NamedKeyRow) -> Result<()> {
    for found in named_keys::versions_in_hsm(tx, key.id).await? {
        let live = found.row.state == KeyVersionState::Live;
        if live && found.row.version < key.min_version {
            tx.change(&found, &retired(ctx, &found.row)).await?;
        }
    }
    Ok(())
}

/// A version that is not used any more, and whose key in the HSM is to be destroyed.
pub(super) fn retired(ctx: &RequestContext, row: &NamedKeyVersionRow) -> NamedKeyVersionRow {
    NamedKeyVersionRow {
        state: KeyVersionState::Retired,
        changed_at: ctx.now,
        changed_by: ctx.actor(),
        ..row.clone()
    }
}
