//! The log's head where the database's owner cannot roll it back.
//!
//! [`Vault::check_anchor`] asks whether the stored log extends what the HSM keeps, before anything
//! is served; a log that does not is served only once administrators accepted it.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::Vault;
use crate::audit::{self, Head};
use crate::crypto::Checkpoint;
use crate::error::{Error, Result};
use crate::keyring::{self, HeadKept};
use crate::store::StoreError;
use crate::store::records::HeadRow;

/// Times that a head is written in one round, where it keeps moving.
const REWRITES: usize = 8;

/// What the HSM's head says about the stored log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchored {
    /// The log extends it, or is it.
    Extends {
        /// What the HSM keeps.
        kept: Head,
    },
    /// The HSM keeps none: it holds no data objects, or none was written yet.
    Unknown,
    /// The log was rolled back, cut or written anew.
    RolledBack {
        /// What the HSM keeps.
        kept: Head,
        /// What the store says.
        found: Head,
    },
    /// The log's head is none that a vault wrote.
    Altered {
        /// What the HSM keeps, if anything.
        kept: Option<Head>,
        /// What the store says.
        found: Head,
    },
}

/// A log that does not extend what was kept of it, or that no vault wrote so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divergence {
    /// What the HSM keeps; none where it keeps nothing.
    pub kept: Option<Head>,
    /// What the store says.
    pub found: Head,
    /// Whether that is none that a vault wrote.
    pub altered: bool,
}

impl Anchored {
    /// What somebody has to accept before it is served, where that is so.
    #[must_use]
    pub const fn divergence(self) -> Option<Divergence> {
        match self {
            Self::Extends { .. } | Self::Unknown => None,
            Self::RolledBack { kept, found } => {
                Some(Divergence { kept: Some(kept), found, altered: false })
            }
            Self::Altered { kept, found } => Some(Divergence { kept, found, altered: true }),
        }
    }
}

impl Vault {
    /// Compares the stored log with the head that the HSM keeps.
    ///
    /// # Errors
    /// [`Error::Sealed`]; what HSM and store answer. A log that was rolled back is no error but an
    /// answer.
    pub async fn check_anchor(&self) -> Result<Anchored> {
        let anchor = match self.core.keyring.read_head().await? {
            Some(kept) => {
                let size = i64::try_from(kept.size).map_err(Error::internal)?;
                Some(Head { size, root: kept.root })
            }
            None => None,
        };
        let (row, vouched) = self.seen_head().await?;
        if !vouched {
            tracing::error!(alarm = true, "the log's head is none that a vault wrote");
            return Ok(Anchored::Altered { kept: anchor, found: Head::read(&row) });
        }
        let stored = self.stored_checkpoint(&row)?;
        for kept in [anchor, stored].into_iter().flatten() {
            let (extends, found) = self.extends(kept).await?;
            // Nothing that does not extend it is signed, whatever is decided now.
            self.note_signed(kept);
            if !extends {
                let (kept_size, found_size) = (kept.size, found.size);
                tracing::error!(
                    alarm = true,
                    kept = kept_size,
                    found = found_size,
                    "the log does not extend the head that was kept of it"
                );
                return Ok(Anchored::RolledBack { kept, found });
            }
        }
        Ok(anchor.map_or(Anchored::Unknown, |kept| Anchored::Extends { kept }))
    }

    /// Writes the newest head into the HSM, if it moved. One that the log does not extend stays.
    ///
    /// # Errors
    /// [`Error::Tampered`] for a log that was rolled back or altered; what HSM and store answer.
    pub async fn write_anchor(&self) -> Result<()> {
        // A node that shares the token may have written a newer head between our looking and our
        // writing. That head was in the store before: whoever writes last looks again and sees it.
        for _ in 0..REWRITES {
            let anchored = self.check_anchor().await?;
            let newest = self.head().await?;
            match anchored {
                Anchored::Extends { kept } if kept.size >= newest.size => break,
                Anchored::Unknown | Anchored::Extends { .. } => {
                    if self.keep(newest).await? == HeadKept::Nowhere {
                        break;
                    }
                }
                Anchored::RolledBack { kept: head, .. } | Anchored::Altered { found: head, .. } => {
                    return Err(rolled_back(head));
                }
            }
        }
        Ok(())
    }

    /// Gives the HSM the head of a log that was accepted, in the place of the one that it keeps, and
    /// lets go of so many who were shredded and are named nowhere, with whom it was accepted.
    ///
    /// # Errors
    /// What the HSM answers.
    pub async fn adopt(&self, found: Head, unnamed: i64) -> Result<()> {
        // Before the head: where this is cut off, the store is accepted anew.
        self.let_go_of(unnamed).await?;
        self.keep(found).await?;
        // What was signed of the other log must not keep this one from being signed; but nothing
        // is that does not extend what was accepted.
        *self.core.signed.lock() = Some(found);
        Ok(())
    }

    /// Takes notice of a head that is about to be signed: nothing is signed that does not extend
    /// what this node signed or saw signed before, and the stored checkpoint. False when the log
    /// has moved on meanwhile.
    ///
    /// # Errors
    /// [`Error::Tampered`], with an alarm, when the head went back or is another tree's.
    pub(super) async fn extend_signed(&self, head: Head, stored: Option<Head>) -> Result<bool> {
        let signed = *self.core.signed.lock();
        for before in [signed, stored].into_iter().flatten() {
            let (extends, found) = self.extends(before).await?;
            if !extends {
                return Err(rolled_back(before));
            }
            if found != head {
                return Ok(false);
            }
        }
        *self.core.signed.lock() = Some(head);
        Ok(true)
    }

    fn note_signed(&self, head: Head) {
        let mut signed = self.core.signed.lock();
        if signed.is_none_or(|signed| signed.size < head.size) {
            *signed = Some(head);
        }
    }

    /// The head that the stored checkpoint speaks of; none when it is not signed by this vault.
    pub(super) fn stored_checkpoint(&self, row: &HeadRow) -> Result<Option<Head>> {
        if row.checkpoint.is_empty() {
            return Ok(None);
        }
        match Checkpoint::open(&row.checkpoint, &self.log_key()?) {
            Ok(Checkpoint { size, root, .. }) => {
                Ok(Some(Head { size: i64::try_from(size).map_err(Error::internal)?, root }))
            }
            Err(error) => {
                tracing::error!(%error, alarm = true, "the stored checkpoint does not verify");
                Ok(None)
            }
        }
    }

    /// The head's row, and whether a vault wrote it and the lanes that it stands on.
    async fn seen_head(&self) -> Result<(HeadRow, bool)> {
        let codec = Arc::clone(&self.core.codec);
        let view = self
            .core
            .reader
            .view(move |tx| async move { Ok(audit::seen_head(tx, &codec).await?) }.boxed());
        view.await
    }

    /// The head's row, as a vault wrote it.
    pub(super) async fn head_row(&self) -> Result<HeadRow> {
        let codec = Arc::clone(&self.core.codec);
        let view = self
            .core
            .reader
            .view(move |tx| async move { Ok(audit::head(tx, &codec).await?) }.boxed());
        view.await
    }

    async fn extends(&self, kept: Head) -> Result<(bool, Head)> {
        let codec = Arc::clone(&self.core.codec);
        let view = self
            .core
            .reader
            .view(move |tx| async move { audit::extends(tx, &codec, &kept).await }.boxed());
        view.await
    }

    async fn keep(&self, head: Head) -> Result<HeadKept> {
        let size = u64::try_from(head.size).map_err(Error::internal)?;
        Ok(self.core.keyring.write_head(&keyring::Head { size, root: head.root }).await?)
    }
}

fn rolled_back(kept: Head) -> Error {
    StoreError::Tampered { table: "log_head", id: kept.size.to_string() }.into()
}
