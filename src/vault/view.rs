//! What a verb may look at and work with while it is decided and prepared: never the writer.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::core::SharedCore;
use super::{Resource, StateKeeper, Subject};
use crate::audit::RecordCodec;
use crate::crypto::VerifierKey;
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::{KeyUse, Keyring, Material, Opened, Place, Rewrapped, SealedValue, Wrapped};
use crate::store::keys::KeyOwner;
use crate::store::{Fence, Reader, RowRef, Tx};
use crate::types::{Entropy, Id, IdentityId, RequestContext, SecretBytes, UnixMillis, VaultId};

/// A view of the vault for one request.
#[derive(Debug)]
pub struct View {
    pub(super) core: SharedCore,
    pub(super) ctx: RequestContext,
    pub(super) subject: Option<Arc<Subject>>,
    /// Keys that were used so far: what fails before it is prepared can note none by itself.
    used: Mutex<Vec<KeyUse>>,
    /// Keys that something was encrypted under, or signed with: whoever rotates one meanwhile moves the
    /// ground.
    under: Mutex<Under>,
}

/// Keys that something stands on besides its decision.
#[derive(Debug, Default)]
struct Under {
    rows: Vec<RowRef>,
    /// The authority epoch at which the first of them was looked for.
    as_of: Option<i64>,
}

impl Under {
    fn add(&mut self, as_of: i64, rows: impl IntoIterator<Item = RowRef>) {
        self.rows.extend(rows);
        self.as_of = Some(self.as_of.map_or(as_of, |before| before.min(as_of)));
    }

    /// Adds them to what a decision stood on. A decision is shared, and another request may have found
    /// that it stands at a later epoch, which says nothing of these.
    fn fence(&self, stood_on: Fence) -> Fence {
        if self.rows.is_empty() {
            return stood_on;
        }
        let rows = stood_on.rows.iter().chain(&self.rows).cloned().collect();
        let epoch = self.as_of.map_or(stood_on.epoch, |as_of| stood_on.epoch.min(as_of));
        Fence { epoch, rows }
    }
}

impl View {
    pub(super) fn new(
        core: SharedCore,
        ctx: RequestContext,
        subject: Option<Arc<Subject>>,
    ) -> Self {
        let (used, under) = (Mutex::new(Vec::new()), Mutex::default());
        Self { core, ctx, subject, used, under }
    }

    /// Reads from the store, all of it from one snapshot.
    ///
    /// # Errors
    /// What the closure answers, or the store.
    pub async fn read<T, F>(&self, view: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.core.reader.view(view).await
    }

    /// Reads what the caller asks of itself: whoever asks again with every call, each time with a
    /// new token, hears for a second what was read, as long as nothing of its identity changes.
    ///
    /// # Errors
    /// As [`View::read`], and as [`View::subject`].
    pub async fn read_own<T, F>(&self, view: F) -> Result<T>
    where
        T: Clone + Send + Sync + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let kin = self.subject()?.kin();
        if let Some(kept) = kin.kept(self.now()) {
            return Ok(kept);
        }
        let read = self.read(view).await?;
        kin.keep(read.clone());
        Ok(read)
    }

    /// The store's reading end, for the keyring.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.core.reader
    }

    /// The request.
    #[must_use]
    pub const fn ctx(&self) -> &RequestContext {
        &self.ctx
    }

    /// The request's time.
    #[must_use]
    pub const fn now(&self) -> UnixMillis {
        self.ctx.now
    }

    /// Who asks.
    ///
    /// # Errors
    /// [`Error::Internal`] for a verb that the vault's own workers must not run.
    pub fn subject(&self) -> Result<&Arc<Subject>> {
        self.subject.as_ref().ok_or_else(|| Error::internal("a worker ran a caller's verb"))
    }

    /// What the caller hears of a failure before it is decided: an administrator may look at
    /// every row.
    pub(super) fn tells(&self, error: Error) -> Error {
        let administers = self.subject.as_ref().is_some_and(|subject| subject.is_administrator());
        if administers { error.told() } else { error }
    }

    /// Who asks, as `created_by` and `changed_by` name it.
    #[must_use]
    pub fn actor(&self) -> String {
        self.ctx.actor()
    }

    /// Tells whether who asks may do something, without doing it: for lists, which show what their
    /// caller may see. It leaves no entry of its own.
    ///
    /// # Errors
    /// As [`View::subject`].
    pub fn may(&self, action: &'static str, resource: &Resource) -> Result<bool> {
        super::decide::may(&self.core, &self.ctx, action, self.subject()?, resource)
    }

    /// The identity of who asks.
    ///
    /// # Errors
    /// As [`View::subject`].
    pub fn identity(&self) -> Result<IdentityId> {
        self.subject().map(|subject| subject.identity.row.id)
    }

    /// The key hierarchy.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.core.keyring
    }

    /// Encrypts for an owner, and notes the keys.
    ///
    /// # Errors
    /// As [`Keyring::seal_for`].
    pub async fn seal_for(
        &self,
        owner: KeyOwner,
        place: &Place,
        plaintext: &SecretBytes,
    ) -> Result<SealedValue> {
        let as_of = self.reader().epoch_seen();
        let sealed = self.keyring().seal_for(self.reader(), owner, place, plaintext, self.now());
        let sealed = sealed.await?;
        self.used.lock().extend_from_slice(sealed.used());
        self.stands_on(as_of, sealed.fence().cloned());
        Ok(sealed)
    }

    /// Wraps data keys for another owner, and notes the keys.
    ///
    /// # Errors
    /// As [`Keyring::rewrap`].
    pub async fn rewrap(
        &self,
        owners: (KeyOwner, KeyOwner),
        wrapped: &[Wrapped],
    ) -> Result<Rewrapped> {
        let as_of = self.reader().epoch_seen();
        let rewrapped = self.keyring().rewrap(self.reader(), owners, wrapped, self.now()).await?;
        self.used.lock().extend_from_slice(rewrapped.used());
        self.stands_on(as_of, rewrapped.fence().cloned());
        Ok(rewrapped)
    }

    /// Decrypts, and notes the keys.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub async fn open(
        &self,
        owner: KeyOwner,
        place: &Place,
        key_id: Id,
        blob: &[u8],
    ) -> Result<Opened> {
        let opened = self.keyring().open(self.reader(), owner, place, key_id, blob).await?;
        self.used.lock().extend_from_slice(&opened.used);
        Ok(opened)
    }

    /// Opens a named key at its place, or takes it as it is kept, and notes the keys.
    ///
    /// # Errors
    /// As [`Keyring::material`].
    pub async fn material(
        &self,
        owner: KeyOwner,
        place: &Place,
        key_id: Id,
        blob: &[u8],
    ) -> Result<Arc<Material>> {
        let opened = self.keyring().material(self.reader(), owner, place, key_id, blob).await;
        let (key, used) = opened?;
        self.used.lock().extend(used);
        Ok(key)
    }

    /// Notes that a key in the HSM was used. One that did not answer may have used it all the
    /// same.
    ///
    /// # Errors
    /// What the HSM answered.
    pub fn noted<T>(&self, key: &KeyUse, done: Result<T>) -> Result<T> {
        if matches!(done, Ok(_) | Err(Error::Unavailable(_))) {
            self.used.lock().push(key.clone());
        }
        done
    }

    /// Stands on keys as they were read under an epoch, besides what the decision stands on.
    pub(super) fn stands_on(&self, as_of: i64, keys: impl IntoIterator<Item = RowRef>) {
        self.under.lock().add(as_of, keys);
    }

    /// Adds the keys that something was encrypted under, or signed with, to what the decision stood on:
    /// where one was rotated, the request is decided, and what it encrypts encrypted, anew.
    pub(super) fn fence(&self, stood_on: Fence) -> Fence {
        self.under.lock().fence(stood_on)
    }

    /// The keys that were used for this request so far.
    #[must_use]
    pub fn used(&self) -> Vec<KeyUse> {
        self.used.lock().clone()
    }

    /// The token.
    #[must_use]
    pub fn hsm(&self) -> &Arc<dyn Hsm> {
        &self.core.hsm
    }

    /// The public key of the log's checkpoints, named as the log.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub fn log_key(&self) -> Result<VerifierKey> {
        self.core.log_key()
    }

    /// What vouches for the log's head.
    #[must_use]
    pub fn record(&self) -> Arc<RecordCodec> {
        Arc::clone(&self.core.codec)
    }

    /// The state check.
    #[must_use]
    pub fn state(&self) -> &StateKeeper {
        &self.core.state
    }

    /// Randomness.
    #[must_use]
    pub fn entropy(&self) -> &dyn Entropy {
        self.core.entropy.as_ref()
    }

    /// A new id that sorts by time.
    ///
    /// # Errors
    /// [`Error::Internal`] when randomness fails.
    pub fn new_id(&self) -> Result<Id> {
        Id::ordered(self.ctx.now, self.entropy())
    }

    /// The installation.
    #[must_use]
    pub fn vault_id(&self) -> VaultId {
        self.core.identity.id
    }

    /// The installation's trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.core.identity.trust_domain
    }

    /// The name of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        self.core.clock.node()
    }

    /// How many administrators a ceremony takes: the one who asks, in an installation that is marked
    /// as development.
    #[must_use]
    pub fn quorum(&self) -> u32 {
        if self.is_dev() { 1 } else { self.core.quorum }
    }

    /// Whether the installation is marked as development, for ever.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        self.core.identity.dev
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SealedRow as _;
    use crate::store::keys::HsmKeyRow;

    #[test]
    fn a_key_that_was_looked_for_before_its_decision_was_seen_to_stand_is_compared() {
        let row = |key: &str| RowRef { table: HsmKeyRow::TABLE, key: key.to_owned(), version: 1 };
        let stood_on = |epoch| Fence { epoch, rows: Arc::new([row("decision")]) };
        let mut under = Under::default();
        assert_eq!((under.fence(stood_on(7)).epoch, under.fence(stood_on(7)).rows.len()), (7, 1));
        under.add(6, None);
        assert_eq!(under.fence(stood_on(7)).epoch, 7, "what was made anew stands on no row");
        under.add(5, [row("key")]);
        under.add(8, [row("other")]);
        let fence = under.fence(stood_on(7));
        assert_eq!(fence.epoch, 5);
        let keys: Vec<_> = fence.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["decision", "key", "other"]);
        assert_eq!(under.fence(stood_on(-1)).epoch, -1, "which no commit has");
    }
}
