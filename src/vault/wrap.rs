//! Wrapping: an answer goes into the store instead of over the wire, in the commit of the entry that
//! says so, and a handle goes over the wire instead. One way for every verb: see [`Wrapping`].
//!
//! What is stored opens with the handle alone: its key is derived from the handle's random bits under
//! a key of the vault's, and of the handle only a MAC is kept.

mod room;
#[cfg(test)]
mod vectors;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use self::room::Room;
use super::elevation::MadeUnder;
use super::session::is_revoked;
use super::{
    Decision, EffectOperation, Note, Operation, Resource, Resumed, RetryKey, Verb, View, handle_of,
    is_active,
};
use crate::audit::Field;
use crate::crypto::{AssociatedData, Format, MacKey, Subject, open, seal};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow};
use crate::store::wraps::{self, WrapRow};
use crate::store::{Needs, StoreError, Tx, Writes};
use crate::types::{
    CredentialId, Entropy, Id, IdentityId, IdentityName, RequestContext, ResourceName, SecretBytes,
    TokenSecret, UnixMillis, VaultId, WrapHandle, WrapState,
};

/// Bytes of an answer that is wrapped, at most: as many as a message may have.
const ANSWER_BYTES: usize = 1_024 * 1_024 + 64 * 1_024;

/// How an answer is to be wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapOrder {
    ttl: Duration,
    recipient: Option<IdentityName>,
}

impl WrapOrder {
    /// How long one can be opened where nobody says.
    pub const USUAL: Duration = Duration::from_mins(2);
    /// The longest that anybody may ask for.
    pub const MOST: Duration = Duration::from_hours(24);

    /// Orders a wrap.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that would live no time, or too long.
    pub fn new(ttl: Duration, recipient: Option<IdentityName>) -> Result<Self> {
        if ttl < Duration::from_secs(1) || ttl > Self::MOST {
            let most = Self::MOST.as_secs();
            return Err(Error::invalid(format!("a wrap lives 1 to {most} seconds")));
        }
        Ok(Self { ttl, recipient })
    }
}

/// An answer that was wrapped, as whoever asked is told of it.
#[derive(Debug, Clone)]
pub struct Wrapped {
    /// Its accessor, which is no secret.
    pub accessor: CredentialId,
    /// The text of its handle.
    pub handle: SecretBytes,
    /// Who made it.
    pub creator: IdentityName,
    /// Who alone may open it.
    pub recipient: Option<IdentityName>,
    /// The action that was answered.
    pub action: &'static str,
    /// On what.
    pub resource: ResourceName,
    /// When it ends.
    pub expires_at: UnixMillis,
}

/// Writes what a verb answers as its message.
pub type Encode<T> = Arc<dyn Fn(&T) -> Result<SecretBytes> + Send + Sync>;

/// A verb whose answer is wrapped. It is decided, prepared, recorded and retried as the verb itself;
/// its commit stores the answer as well. A retry that finds what was made before wraps nothing, as
/// it holds no secret.
pub struct Wrapping<O: Verb> {
    op: O,
    order: WrapOrder,
    message: &'static str,
    encode: Encode<O::Output>,
}

impl<O: Verb> Wrapping<O> {
    /// Wraps what a verb answers, as the message of this name.
    pub fn new(op: O, order: WrapOrder, message: &'static str, encode: Encode<O::Output>) -> Self {
        Self { op, order, message, encode }
    }
}

impl<O: Verb> fmt::Debug for Wrapping<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapping").field("order", &self.order).finish_non_exhaustive()
    }
}

/// What a verb prepared, and its wrap before there is an answer.
pub struct Prepared<P> {
    own: P,
    draft: Draft,
}

impl<P> fmt::Debug for Prepared<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("wrap", &self.draft.row.id).finish_non_exhaustive()
    }
}

/// A wrap before there is an answer.
struct Draft {
    row: WrapRow,
    room: Room,
    seal: Seal,
    /// For the nonce: what is random is drawn where the answer is known.
    entropy: Arc<dyn Entropy>,
    wrapped: Wrapped,
}

impl Draft {
    async fn new(
        view: &View,
        decision: &Decision,
        order: &WrapOrder,
        (action, message): (&'static str, &'static str),
    ) -> Result<Self> {
        let subject = view.subject()?;
        let (creator, now) = (&subject.identity.row, view.now());
        let recipient = match &order.recipient {
            Some(name) => Some(recipient(view, name).await?),
            None => None,
        };
        let of = (creator.id, creator.revocation_epoch);
        let room = Room { of, most_bytes: view.core.wrapped_bytes };
        view.read(move |tx| room.check(tx, 0, now).boxed()).await?;
        let ttl = Duration::from_secs(decision.oblige_ttl_s(order.ttl.as_secs()));
        let expires_at = now.plus(ttl)?;
        let expires_at = decision.end(action).map_or(expires_at, |end| end.min(expires_at));
        let [elevation, elevation_too] = decision.elevations()?;
        let resource = decision.resource()?.name.clone();
        let id = CredentialId(view.new_id()?);
        let handle = WrapHandle::new(id, TokenSecret::random(view.entropy())?);
        let key = view.keyring().token_key()?;
        let mac = handle_of(&key, WrapHandle::TYPE, id, handle.secret());
        let row = WrapRow {
            id,
            handle: mac.to_vec(),
            creator: creator.id,
            creator_epoch: creator.revocation_epoch,
            credential: subject.credential.row.id,
            elevation,
            elevation_too,
            recipient: recipient.as_ref().map(|row| row.id),
            recipient_epoch: recipient.as_ref().map(|row| row.revocation_epoch),
            action: action.to_owned(),
            resource: resource.clone(),
            message: message.to_owned(),
            state: WrapState::Pending,
            restore_epoch: subject.restore_epoch(),
            created_at: now,
            expires_at,
            opened_by: None,
            opened_at: None,
            opened_from: String::new(),
            changed_at: now,
            changed_by: view.actor(),
        };
        let wrapped = Wrapped {
            accessor: id,
            handle: handle.text(),
            creator: creator.name.clone(),
            recipient: recipient.map(|row| row.name),
            action,
            resource,
            expires_at,
        };
        let seal = Seal::new(&key, view.vault_id(), creator.id, &handle);
        Ok(Self { row, room, seal, entropy: Arc::clone(&view.core.entropy), wrapped })
    }

    /// Says in the entry of the call how its answer is wrapped. What fails, and what an earlier try
    /// did, has an entry with this as well.
    fn note(&self, note: &mut Note) {
        let recipient = self.wrapped.recipient.as_ref().map(IdentityName::as_str);
        let whom = recipient.unwrap_or("whoever has the handle");
        let text = format!("to be wrapped as {} for {whom}", self.wrapped.accessor);
        note.private.push((Field::Detail, text));
    }

    async fn store(&self, tx: &mut Tx, now: UnixMillis, answer: &SecretBytes) -> Result<Wrapped> {
        if answer.len_bytes() > ANSWER_BYTES {
            return Err(Error::invalid(format!(
                "an answer of more than {ANSWER_BYTES} bytes is not wrapped"
            )));
        }
        let Seal { key, place } = &self.seal;
        let sealed = seal(key, place, answer.expose(), self.entropy.as_ref())?;
        self.room.check(tx, sealed.len(), now).await?;
        tx.insert(&self.row).await?;
        wraps::insert_payload(tx, self.row.id, self.row.expires_at, sealed).await?;
        Ok(self.wrapped.clone())
    }
}

/// Finds who is to open it. Who may read a secret may know who is there to get it.
async fn recipient(view: &View, name: &IdentityName) -> Result<IdentityRow> {
    let name = name.clone();
    let read = view
        .read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed());
    let found = read.await?.map(|found| found.row).filter(|row| is_active(row, view.now()));
    found.ok_or_else(|| Error::not_found("there is no active identity of that name to wrap it for"))
}

#[async_trait]
impl<O: Verb> Verb for Wrapping<O> {
    const ACTION: &'static str = O::ACTION;
    const SPENDS: bool = O::SPENDS;
    type Prepared = Prepared<O::Prepared>;
    type Output = (O::Output, Option<Wrapped>);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        self.op.resources(view).await
    }

    fn as_of(&self) -> Option<i64> {
        self.op.as_of()
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        // First: what cannot be wrapped has no effect.
        let names = (O::ACTION, self.message);
        let draft = Draft::new(view, decision, &self.order, names).await?;
        Ok(Prepared { own: self.op.prepare(view, decision).await?, draft })
    }

    fn note(&self, prepared: &Self::Prepared, note: &mut Note) {
        self.op.note(&prepared.own, note);
        prepared.draft.note(note);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.op.retry_key()
    }

    fn made(&self, prepared: &Self::Prepared) -> String {
        self.op.made(&prepared.own)
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Self::Output> {
        Ok((self.op.replay(view, made).await?, None))
    }

    async fn supersede(&self, ctx: &RequestContext, tx: &mut Tx, made: &str) -> Result<Resumed> {
        self.op.supersede(ctx, tx, made).await
    }
}

/// What storing an answer needs besides.
const fn needs(own: Needs) -> Needs {
    Needs { writes: Writes::Many, ..own }
}

#[async_trait]
impl<O: Operation> Operation for Wrapping<O> {
    const NEEDS: Needs = needs(O::NEEDS);
    const GOES_ON: bool = O::GOES_ON;

    fn needs(&self, prepared: &Self::Prepared) -> Needs {
        needs(self.op.needs(&prepared.own))
    }

    fn outcome(&self, (output, _): &Self::Output) -> &'static str {
        self.op.outcome(output)
    }

    fn tells(&self, (output, _): &Self::Output) -> Vec<(Field, String)> {
        self.op.tells(output)
    }

    fn durable(&self, prepared: &Self::Prepared) {
        self.op.durable(&prepared.own);
    }

    fn holds(&self, prepared: &Self::Prepared) -> Option<Id> {
        // What it counts itself is the creator's.
        self.op.holds(&prepared.own).or(Some(prepared.draft.row.creator.0))
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        decision: &Decision,
    ) -> Result<Self::Output> {
        let output = self.op.commit(ctx, tx, &prepared.own, decision).await?;
        let answer = (self.encode)(&output)?;
        let wrapped = prepared.draft.store(tx, ctx.now, &answer).await?;
        Ok((output, Some(wrapped)))
    }
}

#[async_trait]
impl<O: EffectOperation> EffectOperation for Wrapping<O> {
    type Effect = O::Effect;
    const NEEDS: Needs = needs(O::NEEDS);

    fn needs(&self, prepared: &Self::Prepared) -> Needs {
        needs(self.op.needs(&prepared.own))
    }

    fn is_done(&self, prepared: &Self::Prepared) -> bool {
        self.op.is_done(&prepared.own)
    }

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        decision: &Decision,
    ) -> Result<()> {
        self.op.intend(ctx, tx, &prepared.own, decision).await
    }

    async fn act(&self, view: &View, prepared: &Self::Prepared) -> Result<O::Effect> {
        self.op.act(view, &prepared.own).await
    }

    /// Where the answer cannot be stored, the effect is undone as any other whose record failed.
    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        effect: &O::Effect,
    ) -> Result<Self::Output> {
        let output = self.op.record(ctx, tx, &prepared.own, effect).await?;
        let answer = (self.encode)(&output)?;
        let wrapped = prepared.draft.store(tx, ctx.now, &answer).await?;
        Ok((output, Some(wrapped)))
    }

    async fn abandon(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
    ) -> Result<()> {
        self.op.abandon(ctx, tx, &prepared.own).await
    }

    async fn resume(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        made: &str,
        replace: bool,
    ) -> Result<Resumed> {
        self.op.resume(ctx, tx, made, replace).await
    }
}

/// What opens an answer: its key, and the place that it is bound to.
struct Seal {
    key: SecretBytes,
    place: Vec<u8>,
}

impl Seal {
    fn new(key: &MacKey, vault: VaultId, creator: IdentityId, handle: &WrapHandle) -> Self {
        let id = handle.id().0;
        let parts: [&[u8]; 3] =
            [b"strongroom/wrap-payload/v1\0", id.as_bytes(), handle.secret().expose()];
        let place = AssociatedData {
            format: Format::Xaes256Gcm,
            vault,
            table: "wrap_payloads",
            column: "payload",
            row: id.as_bytes(),
            key_owner: Subject::Id(creator.0),
            object: Subject::Id(id),
            object_version: 1,
            key: Subject::Label("handle"),
            key_version: 1,
        };
        Self { key: SecretBytes::new(key.tag(&parts).to_vec()), place: place.encode() }
    }
}

/// Opens an answer with its handle.
///
/// # Errors
/// [`Error::Tampered`] where it is not what was stored; [`Error::Sealed`].
pub fn open_wrapped(
    view: &View,
    row: &WrapRow,
    handle: &WrapHandle,
    payload: &[u8],
) -> Result<SecretBytes> {
    let key = view.keyring().token_key()?;
    let Seal { key, place } = Seal::new(&key, view.vault_id(), row.creator, handle);
    let opened = open(&key, &place, payload);
    opened.map_err(|_altered| missing_payload(row.id))
}

/// Says that the answer of a wrap that may be opened is not there, or is not what was stored.
#[must_use]
pub fn missing_payload(wrap: CredentialId) -> Error {
    StoreError::Tampered { table: "wrap_payloads", id: wrap.to_string() }.into()
}

/// What can be done with a wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapFate {
    /// It may be opened.
    Open,
    /// It was opened.
    Opened,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
    /// What it stood on is gone; why.
    Void(&'static str),
}

/// Tells what can be done with a wrap: whose credentials died with a containment, a revocation or a
/// restore gives nothing any more, and gets nothing.
///
/// # Errors
/// What the store answers.
pub async fn wrap_fate(
    tx: &mut Tx,
    row: &WrapRow,
    now: UnixMillis,
    restore_epoch: i64,
) -> Result<WrapFate> {
    match row.state {
        WrapState::Opened => return Ok(WrapFate::Opened),
        WrapState::Revoked => return Ok(WrapFate::Revoked),
        WrapState::Pending => {}
    }
    if row.expires_at <= now {
        return Ok(WrapFate::Expired);
    }
    if row.restore_epoch != restore_epoch {
        return Ok(WrapFate::Void("the vault was restored since"));
    }
    if !stands(tx, row.creator, row.creator_epoch, now).await? {
        return Ok(WrapFate::Void("whoever made it was contained since"));
    }
    if let Some((recipient, epoch)) = row.recipient.zip(row.recipient_epoch)
        && !stands(tx, recipient, epoch, now).await?
    {
        return Ok(WrapFate::Void("whoever it is for was contained since"));
    }
    if is_revoked(tx, row.credential).await? {
        return Ok(WrapFate::Void("the credential that it was asked for with was revoked"));
    }
    for id in [row.elevation, row.elevation_too].into_iter().flatten() {
        if !MadeUnder::load(tx, id, row.creator).await?.is_in_force(now, restore_epoch) {
            return Ok(WrapFate::Void("the elevation that it was made under is over"));
        }
    }
    Ok(WrapFate::Open)
}

async fn stands(tx: &mut Tx, id: IdentityId, epoch: i64, now: UnixMillis) -> Result<bool> {
    let missing = || Error::internal("a wrap without its identity");
    let row = tx.lookup::<IdentityRow>(&id).await?.ok_or_else(missing)?.row;
    Ok(is_active(&row, now) && row.revocation_epoch == epoch)
}
