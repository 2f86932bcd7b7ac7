//! Writes a new version, and with the first one the secret.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::destroy::destroy;
use super::find::{Found, nameable, named, of, owner_of, readable, require_active, stale, unknown};
use super::sealing::{key_owner, place};
use super::value::SecretValue;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::SealedValue;
use crate::store::identities::{IdentityRow, identity_named};
use crate::store::secrets::{self, SecretHeadRow, SecretRow, SecretVersionRow};
use crate::store::{Needs, StoreError, Tx};
use crate::types::{
    ElevationId, Id, IdentityName, ObjectId, RequestContext, SecretPath, SecretState, UnixMillis,
};
use crate::vault::{Claimed, Decision, Note, Operation, Resource, RetryKey, Verb, View, WRITES};

/// How many versions of a secret keep their value, where nobody said otherwise.
const MAX_VERSIONS: i64 = 10;
/// How long a version can be undeleted, in seconds, where nobody said otherwise: 30 days.
const WINDOW_S: i64 = 30 * 86_400;

/// Writes a version.
#[derive(Debug)]
pub struct PutSecret {
    /// The secret's name.
    pub path: SecretPath,
    /// Whose data a new secret is; the caller's where it is left out.
    pub owner: Option<IdentityName>,
    /// The value.
    pub value: SecretValue,
    /// The number of the newest version, as the caller knows it; 0 for a new secret.
    pub expected: i64,
    /// How long the version is read; until it is taken away where there is none.
    pub ttl: Option<Duration>,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
    /// What was read with the secret's row.
    pub standing: Standing,
}

/// A secret as it stood when it was decided on, and its owner: a second look would cost more than the
/// first.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Option<Result<(Found, IdentityRow)>>>);

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The secret.
    pub id: ObjectId,
    /// The version's number.
    pub version: i64,
}

/// A version that is to be written.
#[derive(Debug)]
pub struct NewVersion {
    found: Option<Found>,
    secret: SecretRow,
    row: SecretVersionRow,
    sealed: SealedValue,
}

/// What becomes of a call that writes a version.
#[derive(Debug)]
pub enum Writing {
    /// It writes one.
    New(Box<NewVersion>),
    /// An earlier try wrote this one: nothing was sealed for another.
    Before(String),
}

impl Writing {
    pub(super) fn note(&self, note: &mut Note) {
        match self {
            Self::New(new) => new.note(note),
            Self::Before(_) => {}
        }
    }

    pub(super) fn made(&self) -> String {
        match self {
            Self::New(new) => new.row.version.to_string(),
            Self::Before(made) => made.clone(),
        }
    }

    pub(super) async fn store(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<Written> {
        match self {
            Self::New(new) => new.store(ctx, tx).await,
            // The claim found the earlier try once more, unless it was over meanwhile.
            Self::Before(_) => Err(Error::Conflict(
                "what an earlier try wrote is forgotten; look, and repeat with another key".into(),
            )),
        }
    }
}

/// What a version is made of besides its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The version whose value it is, and the one that this was first written as.
    pub(super) restored: Option<(i64, i64)>,
    pub(super) expires_at: Option<UnixMillis>,
}

impl NewVersion {
    /// Seals the next version of a secret.
    pub(super) async fn seal(
        view: &View,
        found: Option<Found>,
        secret: SecretRow,
        value: &SecretValue,
        origin: Origin,
    ) -> Result<Self> {
        let newest = found.as_ref().map_or(0, |found| found.head.row.newest);
        let version = newest.checked_add(1).ok_or_else(|| Error::internal("too many versions"))?;
        let (id, now, by) = (ObjectId(view.new_id()?), view.now(), view.actor());
        let place = place(secret.id, id, version);
        let sealed = view.seal_for(key_owner(secret.owner), &place, &value.bytes).await?;
        let purge_at = origin.expires_at.map(|end| purge_at(&secret, end)).transpose()?;
        let row = SecretVersionRow {
            id,
            secret: secret.id,
            version,
            state: SecretState::Live,
            is_json: value.is_json,
            len_bytes: i64::try_from(value.bytes.len_bytes()).map_err(Error::internal)?,
            // The commit fills these in, and the mark of what is restored.
            wrap: Vec::new(),
            wrap_key: id.0,
            restored_from: origin.restored.map(|(from, _)| from),
            root: origin.restored.map_or(version, |(_, root)| root),
            expires_at: origin.expires_at,
            purge_at,
            exposed_at: None,
            exposed_under: None,
            created_at: now,
            created_by: by.clone(),
            changed_at: now,
            changed_by: by,
        };
        Ok(Self { found, secret, row, sealed })
    }

    fn note(&self, note: &mut Note) {
        note.keys.extend(self.sealed.used().iter().cloned());
        note.private.push((Field::Detail, format!("version {}", self.row.version)));
    }

    /// Stores it, by a compare-and-set on which version is the newest; what is over the secret's
    /// number of versions is destroyed in the same commit.
    async fn store(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<Written> {
        let (id, version) = (self.secret.id, self.row.version);
        let last = version.saturating_sub(self.secret.max_versions);
        let head = SecretHeadRow {
            id,
            newest: version,
            valued_from: last.saturating_add(1).max(1),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        };
        if let Some(found) = &self.found {
            let before = &found.head;
            let valued_from = head.valued_from.max(before.row.valued_from);
            tx.update(before.version, &SecretHeadRow { valued_from, ..head }).await?;
        } else {
            tx.insert(&self.secret).await.map_err(taken)?;
            tx.insert(&head).await?;
        }
        let stored = self.sealed.store(tx).await?;
        let (wrap, message) = stored.parts()?;
        let (exposed_at, exposed_under) = self.mark(ctx, tx).await?;
        let row = SecretVersionRow {
            wrap: wrap.to_vec(),
            wrap_key: stored.key_id,
            exposed_at,
            exposed_under,
            ..self.row.clone()
        };
        tx.insert(&row).await?;
        secrets::insert_message(tx, row.id, message).await?;
        if let Some(found) = &self.found {
            for surplus in secrets::valued(tx, &found.head.row, last).await? {
                destroy(ctx, tx, &surplus).await?;
            }
        }
        Ok(Written { id, version })
    }

    /// The mark of the version whose value it is: it may have come since that was opened.
    async fn mark(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
    ) -> Result<(Option<UnixMillis>, Option<ElevationId>)> {
        let (Some(from), Some(found)) = (self.row.restored_from, &self.found) else {
            return Ok((None, None));
        };
        let source = found.version(tx, from).await?;
        readable(&source.row, ctx.now)?;
        if source.row.exposed_at.is_none() {
            // Who marks it at the same time marks this one as well, or is refused.
            tx.change(&source, &source.row).await?;
        }
        Ok((source.row.exposed_at, source.row.exposed_under))
    }
}

/// When what is written ends: as was asked for, and not after what its grant allows.
pub(super) fn end(
    view: &View,
    decision: &Decision,
    asked: Option<UnixMillis>,
) -> Result<Option<UnixMillis>> {
    let most = decision.verdict.obligations.max_ttl_s.map(Duration::from_secs);
    let most = most.map(|ttl| view.now().plus(ttl)).transpose()?;
    Ok(asked.into_iter().chain(most).min())
}

/// When a version that ends at a moment is destroyed.
pub(super) fn purge_at(secret: &SecretRow, end: UnixMillis) -> Result<UnixMillis> {
    let window_s = u64::try_from(secret.window_s).map_err(Error::internal)?;
    end.plus(Duration::from_secs(window_s))
}

/// Who lost the race for a new name hears what who lost the one for a version does.
fn taken(error: StoreError) -> Error {
    if error == StoreError::Taken {
        return Error::Conflict("somebody else made this secret first".into());
    }
    error.into()
}

impl PutSecret {
    /// A secret that is not there yet.
    async fn fresh(&self, view: &View) -> Result<SecretRow> {
        if self.expected != 0 {
            return Err(unknown());
        }
        let owner = match &self.owner {
            Some(name) => nameable(view, name).await?.row.id,
            None => view.identity()?,
        };
        let (now, by) = (view.now(), view.actor());
        Ok(SecretRow {
            id: ObjectId(Id::random(view.entropy())?),
            path: self.path.clone(),
            owner,
            labels: "{}".to_owned(),
            max_versions: MAX_VERSIONS,
            window_s: WINDOW_S,
            created_at: now,
            created_by: by.clone(),
            changed_at: now,
            changed_by: by.clone(),
            owned_since: now,
            owned_by: by,
        })
    }

    /// The secret that is there, if this may be its next version.
    async fn found(&self, view: &View) -> Result<Found> {
        let standing = self.standing.0.lock().take();
        let (found, owner) = standing.ok_or_else(unknown)??;
        if let Some(name) = &self.owner
            && nameable(view, name).await?.row.id != owner.id
        {
            let text = "the secret has another owner; `secret transfer` changes it";
            return Err(Error::precondition(text));
        }
        require_active(&owner, view.now())?;
        let newest = found.head.row.newest;
        if newest == self.expected { Ok(found) } else { Err(stale(newest)) }
    }
}

#[async_trait]
impl Verb for PutSecret {
    const ACTION: &'static str = "secrets.put";
    type Prepared = Writing;
    type Output = Written;

    /// It stands on the owner as well: nothing is written for one who is not active.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let (path, owner) = (self.path.clone(), self.owner.clone());
        let caller = view.subject()?.identity.clone();
        let read = view.read(move |tx| {
            async move {
                let found = secrets::secret_named(tx, &path).await?;
                let mut resource = of(&path, found.as_ref())?;
                if let Some(secret) = found {
                    // Whoever writes what is its own is known, as of the same epoch.
                    let owner = if secret.row.owner == caller.row.id {
                        caller
                    } else {
                        owner_of(tx, &secret.row).await?
                    };
                    resource.rows.push(owner.fence());
                    let found = Found::of(tx, secret).await;
                    return Ok((resource, Some(found.map(|found| (found, owner.row)))));
                }
                if let Some(name) = &owner {
                    let owner = identity_named(tx, name).await?;
                    resource.rows.extend(owner.map(|owner| owner.fence()));
                }
                Ok((resource, None))
            }
            .boxed()
        });
        let (resource, standing) = read.await?;
        *self.standing.0.lock() = standing;
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Writing> {
        if let Claimed::Made(before) = view.claimed(self).await? {
            return Ok(Writing::Before(before));
        }
        let (found, secret) = match decision.resource()?.id {
            Some(_) => {
                let found = self.found(view).await?;
                let secret = found.secret.row.clone();
                (Some(found), secret)
            }
            None => (None, self.fresh(view).await?),
        };
        let asked = self.ttl.map(|ttl| view.now().plus(ttl)).transpose()?;
        let origin = Origin { expires_at: end(view, decision, asked)?, restored: None };
        let new = NewVersion::seal(view, found, secret, &self.value, origin).await?;
        Ok(Writing::New(Box::new(new)))
    }

    fn note(&self, it: &Writing, note: &mut Note) {
        it.note(note);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, it: &Writing) -> String {
        it.made()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Written> {
        again(view, &self.path, made).await
    }
}

/// Answers the retry of a call that wrote a version.
pub(super) async fn again(view: &View, path: &SecretPath, made: &str) -> Result<Written> {
    let id = named(view, path).await?.ok_or_else(unknown)?.row.id;
    Ok(Written { id, version: made.parse().map_err(Error::internal)? })
}

#[async_trait]
impl Operation for PutSecret {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Writing,
        _: &Decision,
    ) -> Result<Written> {
        it.store(ctx, tx).await
    }
}
