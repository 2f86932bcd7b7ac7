//! Accepting a log that was rolled back or altered: who did stands in the record by the very
//! transaction that holds the accepted head fast. No administrator does it alone.

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::{self, Field, Head, RecordCodec};
use crate::crypto::hex;
use crate::engines::ceremonies::{Solemn, Term};
use crate::error::{Error, Result};
use crate::store::keys::VaultRow;
use crate::store::{Needs, StoreError, Tx, Versioned, records};
use crate::types::{RequestContext, VaultId};
use crate::vault::{Decision, Divergence, GOVERNS, Note, Operation, Resource, Verb, View};

/// Accepts the log as it is: voids what was handed out before ([`VaultRow::restore_epoch`]), and
/// vouches anew for a head that was altered. The HSM is told of it once that is durable, with
/// [`Vault::adopt`](crate::vault::Vault::adopt).
#[derive(Debug, Clone, Copy)]
pub struct AcceptRollback {
    /// What is accepted.
    pub log: Divergence,
    /// How many were shredded whom nobody names: they come back with the store.
    pub unnamed: i64,
}

#[async_trait]
impl Verb for AcceptRollback {
    const ACTION: &'static str = "system.accept-rollback";
    type Prepared = (Arc<RecordCodec>, VaultId);
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("system/log".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        Ok((view.record(), view.vault_id()))
    }

    fn note(&self, _: &Self::Prepared, note: &mut Note) {
        let Divergence { kept, found, altered } = self.log;
        let kept = kept.map_or_else(|| "none".to_owned(), |kept| format!("{} entries", kept.size));
        let word = if altered { "altered head, " } else { "" };
        let mut text = format!("{word}kept: {kept}, found: {} entries", found.size);
        if self.unnamed > 0 {
            text = format!("{text}, {} who were shredded are named nowhere", self.unnamed);
        }
        note.private.push((Field::Detail, text));
    }
}

impl Solemn for AcceptRollback {
    fn terms(&self) -> Vec<Term> {
        let Divergence { kept, found, altered } = self.log;
        let head = |head: Head| format!("{} {}", head.size, hex(&head.root));
        let kept = kept.map_or_else(|| "none".to_owned(), head);
        let altered = if altered { "yes" } else { "no" };
        vec![
            Term::new("kept", &kept),
            Term::new("found", &head(found)),
            Term::new("head altered", altered),
            Term::new("shredded and named nowhere", &self.unnamed.to_string()),
        ]
    }
}

#[async_trait]
impl Operation for AcceptRollback {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (codec, vault): &Self::Prepared,
        _: &Decision,
    ) -> Result<()> {
        let Divergence { found, altered, .. } = self.log;
        let row = match audit::accept_head(tx, codec, found, altered).await {
            Err(StoreError::Stale) => {
                return Err(Error::precondition("the log is not the one that was accepted"));
            }
            row => row?,
        };
        records::store_checkpoint(tx, row.checkpoint, String::new(), ctx.now.0).await?;
        let Versioned { row, version } =
            tx.lookup::<VaultRow>(vault).await?.ok_or(StoreError::Malformed)?;
        let restore_epoch = row.restore_epoch.checked_add(1).ok_or(StoreError::Malformed)?;
        tx.update(version, &VaultRow { restore_epoch, restored_at: ctx.now, ..row }).await?;
        Ok(())
    }
}
