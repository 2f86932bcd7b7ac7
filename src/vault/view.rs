//! What a verb may look at and work with while it is decided and prepared: never the writer.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Subject;
use super::core::Core;
use crate::audit::RecordCodec;
use crate::crypto::VerifierKey;
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::Keyring;
use crate::store::{Reader, Tx};
use crate::types::{Entropy, Id, IdentityId, RequestContext, UnixMillis, VaultId};

/// A view of the vault for one request.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) core: Arc<Core>,
    pub(super) ctx: RequestContext,
    pub(super) subject: Option<Arc<Subject>>,
}

impl View {
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

    /// Whether the installation is marked as development, for ever.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        self.core.identity.dev
    }
}
