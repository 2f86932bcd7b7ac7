//! Accepting a log that was rolled back or altered: who did stands in the record by the very
//! transaction that holds the accepted head fast.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{Anchored, GOVERNS, Vault};
use crate::audit::{
    self, CallerFact, DecisionFact, Draft, Ending, EntryFacts, Field, Head, RecordCodec,
};
use crate::error::{Error, Result};
use crate::store::keys::VaultRow;
use crate::store::{Change, Entry, Job, Settled, StoreError, Tx, Versioned, Work, records};
use crate::types::{CredentialId, Id, IdentityId, IdentityName, RequestId, UnixMillis, VaultId};

/// An administrator who accepts a log that was rolled back or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// Who it is.
    pub identity: IdentityId,
    /// The login whose key signed.
    pub credential: CredentialId,
    /// What it is called.
    pub name: IdentityName,
}

impl Vault {
    /// Accepts the log as it is: records who did, voids what was handed out before
    /// ([`VaultRow::restore_epoch`]), vouches anew for a head that was altered, and gives the HSM
    /// the head. Who may say so, and how many must, is for the caller to know.
    ///
    /// # Errors
    /// [`Error::Precondition`] when nobody accepts it, there is nothing to accept, or the log is
    /// not as it was when it was accepted; [`Error::Tampered`] for an altered head whose root is
    /// not the tree's; what HSM and store answer.
    pub async fn accept_rollback(&self, seen: Anchored, by: &[Approver]) -> Result<()> {
        let Some((last, before)) = by.split_last() else { return Err(another()) };
        if self.check_anchor().await? != seen {
            return Err(another());
        }
        let (mut detail, found, altered) = match seen {
            Anchored::RolledBack { kept, found } => (described(Some(kept), found), found, false),
            Anchored::Altered { kept, found } => {
                (format!("altered head, {}", described(kept, found)), found, true)
            }
            Anchored::Extends { .. } | Anchored::Unknown => {
                return Err(Error::precondition("the log extends what was kept of it"));
            }
        };
        // They come back with the store, and whoever accepts it was told so.
        let unnamed = self.shreds_undone().await?.unnamed;
        if unnamed > 0 {
            detail = format!("{detail}, {unnamed} who were shredded are named nowhere");
        }
        let plain = Ending::plain("OK");
        let mut beside = Vec::new();
        for approver in before {
            beside.push(self.acceptance(approver, &detail)?.end(&plain)?);
        }
        let last = self.acceptance(last, &detail)?;
        let (reply, settled) = oneshot::channel();
        let (codec, at) = (Arc::clone(&self.core.codec), self.core.clock.now()?);
        let vault = self.core.identity.id;
        let work = Box::new(Accept { codec, vault, found, altered, at, last, beside, reply });
        self.core.writer.submit(Job { fence: None, needs: GOVERNS, work }).await?;
        match settled.await.map_err(|_dropped| Error::OutcomeUnknown)? {
            Settled::Durable { outcome: Err(Error::Conflict(_)), .. } => return Err(another()),
            Settled::Durable { outcome, .. } => outcome?,
            Settled::Moved => return Err(Error::internal("an acceptance without a fence moved")),
            Settled::Lost(error) => return Err(error.into()),
        }
        // Before the head: where this is cut off, the store is accepted anew.
        self.let_go_of(unnamed).await?;
        self.keep(found).await?;
        // What was signed of the other log must not keep this one from being signed; but nothing
        // is that does not extend what was accepted.
        *self.core.signed.lock() = Some(found);
        Ok(())
    }

    fn acceptance(&self, by: &Approver, detail: &str) -> Result<Draft> {
        let entropy = self.core.entropy.as_ref();
        let at = self.core.clock.now()?;
        let (identity, credential) = (by.identity, by.credential);
        let private =
            vec![(Field::Identity, by.name.to_string()), (Field::Detail, detail.to_owned())];
        let facts = EntryFacts {
            at,
            request: RequestId(Id::ordered(at, entropy)?),
            caller: CallerFact::Identity { identity, credential, method: "signature" },
            action: "system.accept-rollback",
            resources: Vec::new(),
            decision: DecisionFact {
                allowed: true,
                reason: "accepted",
                by: "administrator".into(),
            },
            factors: Vec::new(),
            private: private.into_iter().map(|(field, value)| (field, value.into())).collect(),
        };
        facts.draft(entropy)
    }
}

/// An acceptance on its way to the store.
struct Accept {
    codec: Arc<RecordCodec>,
    vault: VaultId,
    found: Head,
    altered: bool,
    at: UnixMillis,
    /// Of who accepted it last: it names the rows that changed.
    last: Draft,
    /// Of who accepted it before.
    beside: Vec<Entry>,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Accept {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let row = audit::accept_head(tx, &self.codec, self.found, self.altered).await?;
        records::store_checkpoint(tx, row.checkpoint, String::new(), self.at.0).await?;
        let Versioned { row, version } =
            tx.lookup::<VaultRow>(&self.vault).await?.ok_or(StoreError::Malformed)?;
        let restore_epoch = row.restore_epoch.checked_add(1).ok_or(StoreError::Malformed)?;
        tx.update(version, &VaultRow { restore_epoch, restored_at: self.at, ..row }).await?;
        tx.bump_authority()
    }

    fn entry(&mut self, outcome: Result<&[Change], &Error>) -> Option<Entry> {
        // Refused, it is on no record; one that cannot be encoded is left empty, which no batch
        // accepts.
        let changes = outcome.ok()?;
        Some(self.last.end(&Ending { changes, ..Ending::plain("OK") }).unwrap_or_default())
    }

    fn beside(&self) -> Vec<Entry> {
        self.beside.clone()
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // Whoever asked may have gone.
        let _gone = self.reply.send(settled);
    }
}

fn another() -> Error {
    Error::precondition("the log is not the one that was accepted")
}

fn described(kept: Option<Head>, found: Head) -> String {
    let kept = kept.map_or_else(|| "none".to_owned(), |kept| format!("{} entries", kept.size));
    format!("kept: {kept}, found: {} entries", found.size)
}
