//! Makes a key's next version. What is new uses it from its commit on, on every node.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::create::{check_room, require_room};
use super::find::{awaits, gone, is_shredded, named, of, owner_fence, shredded, stale, unknown};
use super::make::{MadeInHsm, NewVersion, blank, is_made, make_in_hsm, rotates_at};
use super::show::KeyDetail;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::named_keys::{self, NamedKeyRow, NamedKeyVersionRow};
use crate::store::{Needs, StoreError, Tx, Versioned};
use crate::types::{Id, KeyName, NamedKeyState, Placement, RequestContext};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Makes a key's next version.
#[derive(Debug, Clone)]
pub struct RotateKey {
    /// The key's name.
    pub name: KeyName,
    /// The newest version's number, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

/// A version that is to be.
#[derive(Debug)]
enum Next {
    /// Made in memory.
    Sealed(Box<NewVersion>),
    /// To be made in the HSM.
    Hsm(Box<NamedKeyVersionRow>),
}

/// What is to be written.
#[derive(Debug)]
pub struct Rotation {
    was: Versioned<NamedKeyRow>,
    is: NamedKeyRow,
    next: Next,
}

/// Who lost the race for a number hears what who lost the one for the key's row does.
fn raced(error: StoreError) -> Error {
    if error == StoreError::Taken {
        return Error::Conflict("somebody else rotates the key at this moment".into());
    }
    error.into()
}

#[async_trait]
impl Verb for RotateKey {
    const ACTION: &'static str = "keys.rotate";
    type Prepared = Rotation;
    type Output = KeyDetail;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let found = named(view, &self.name).await?;
        let mut resource = of(&self.name, found.as_ref())?;
        // It stands on its owner as well: nothing is made for one who was shredded since.
        if let Some(found) = found {
            let read =
                view.read(move |tx| async move { owner_fence(tx, &found.row).await }.boxed());
            resource.rows.extend(read.await?);
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Rotation> {
        let was = named(view, &self.name).await?.ok_or_else(unknown)?;
        if !decision.resource()?.rows.contains(&was.fence()) {
            return Err(Error::Conflict("the key was changed meanwhile; retry".into()));
        }
        if was.row.state == NamedKeyState::Awaiting {
            return Err(awaits());
        }
        let (id, newest) = (was.row.id, was.row.newest);
        if self.expected != 0 && self.expected != newest {
            return Err(stale(newest));
        }
        let row = was.row.clone();
        let read = view.read(move |tx| {
            async move {
                let last = named_keys::newest_version(tx, id, false).await?;
                Ok((last, is_shredded(tx, &row).await?))
            }
            .boxed()
        });
        let (last, is_shredded) = read.await?;
        if is_shredded {
            return Err(shredded());
        }
        // Numbers of versions that came to nothing are not used again.
        let last = last.filter(|last| last.row.version >= newest);
        let last = last.ok_or_else(|| gone("named_key_versions", id))?.row.version;
        let version = last.saturating_add(1);
        let now = view.now();
        let is = NamedKeyRow {
            newest: version,
            rotate_at: rotates_at(now, was.row.rotate_every_s)?,
            changed_at: now,
            changed_by: view.actor(),
            ..was.row.clone()
        };
        let next = match was.row.placement {
            Placement::Sealed => {
                Next::Sealed(Box::new(NewVersion::seal(view, &was.row, version).await?))
            }
            Placement::Hsm => {
                require_room(view, was.row.owner).await?;
                Next::Hsm(Box::new(blank(view, id, version, Some(was.row.owner))?))
            }
        };
        Ok(Rotation { was, is, next })
    }

    fn note(&self, it: &Rotation, note: &mut Note) {
        if let Next::Sealed(next) = &it.next {
            note.keys.extend(next.used().iter().cloned());
        }
        let NamedKeyRow { algorithm, placement, newest, .. } = &it.is;
        note.private.push((Field::Detail, format!("{algorithm}, {placement}, version {newest}")));
    }
}

#[async_trait]
impl EffectOperation for RotateKey {
    type Effect = Option<MadeInHsm>;
    const NEEDS: Needs = GOVERNS;

    /// What is made in memory is made already.
    fn is_done(&self, it: &Rotation) -> bool {
        matches!(it.next, Next::Sealed(_))
    }

    fn holds(&self, it: &Rotation) -> Option<Id> {
        match &it.next {
            Next::Sealed(_) => None,
            Next::Hsm(_) => Some(it.was.row.owner.0),
        }
    }

    async fn intend(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Rotation,
        _: &Decision,
    ) -> Result<()> {
        if let Next::Hsm(row) = &it.next {
            check_room(tx, it.was.row.owner).await?;
            tx.insert(row.as_ref()).await.map_err(raced)?;
        }
        Ok(())
    }

    async fn act(&self, view: &View, it: &Rotation) -> Result<Option<MadeInHsm>> {
        match &it.next {
            Next::Sealed(_) => Ok(None),
            Next::Hsm(row) => make_in_hsm(view, &it.is, row).await.map(Some),
        }
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Rotation,
        made: &Option<MadeInHsm>,
    ) -> Result<KeyDetail> {
        // Who else rotated or changed it meanwhile was first.
        tx.bump_authority()?;
        let row = tx.change(&it.was, &it.is).await?;
        match (&it.next, made) {
            (Next::Sealed(next), _) => next.store(tx).await?,
            (Next::Hsm(row), Some(made)) => is_made(ctx, tx, (it.is.state, row), made).await?,
            (Next::Hsm(_), None) => return Err(Error::internal("a version without its key")),
        }
        KeyDetail::of(tx, row).await
    }

    /// The row says what to look for in the HSM: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Rotation) -> Result<()> {
        Ok(())
    }
}
