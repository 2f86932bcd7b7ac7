//! Seals the vault: on record first, obeyed by every node after.

use async_trait::async_trait;

use super::{seal_resource, seal_row};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::keys::SealRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, UnixMillis};
use crate::vault::{CONTAINS, Decision, Note, Operation, Resource, Verb, View};

/// Longest reason, in bytes.
const MAX_REASON: usize = 1_024;

/// Seals the vault.
#[derive(Debug)]
pub struct Seal {
    reason: String,
}

impl Seal {
    /// Takes a reason for the record; it may be empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is too long or holds control characters.
    pub fn new(reason: String) -> Result<Self> {
        if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "a reason has at most {MAX_REASON} bytes and no control characters"
            )));
        }
        Ok(Self { reason })
    }
}

/// What is about to be written.
#[derive(Debug)]
pub struct Sealing {
    seal: Versioned<SealRow>,
    reason: String,
}

#[async_trait]
impl Verb for Seal {
    const ACTION: &'static str = "system.seal";
    type Prepared = Sealing;
    type Output = UnixMillis;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![seal_resource(view).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Sealing> {
        Ok(Sealing { seal: seal_row(view).await?, reason: self.reason.clone() })
    }

    fn note(&self, prepared: &Sealing, note: &mut Note) {
        if !prepared.reason.is_empty() {
            note.private.push((Field::Detail, prepared.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for Seal {
    const NEEDS: Needs = CONTAINS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Sealing,
        _: &Decision,
    ) -> Result<UnixMillis> {
        let Versioned { row, version } = &prepared.seal;
        // Sealed by another node a moment ago: that one stands.
        if let Some(since) = row.sealed_at {
            return Ok(since);
        }
        let sealed = SealRow { sealed_at: Some(ctx.now), sealed_by: ctx.actor(), ..row.clone() };
        tx.update(*version, &sealed).await?;
        Ok(ctx.now)
    }
}
