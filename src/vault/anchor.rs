//! The log's head where the database's owner cannot roll it back.
//!
//! [`Vault::check_anchor`] asks whether the stored log extends what the HSM keeps, before anything
//! is served; a log that does not is served only after [`Vault::accept_rollback`].

use futures_util::FutureExt as _;

use super::Vault;
use crate::audit::{self, DecisionFact, Field, Head};
use crate::error::{Error, Result};
use crate::keyring;
use crate::store::StoreError;

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
}

impl Vault {
    /// Compares the stored log with the head that the HSM keeps.
    ///
    /// # Errors
    /// [`Error::Sealed`]; what HSM and store answer. A log that was rolled back is no error but an
    /// answer.
    pub async fn check_anchor(&self) -> Result<Anchored> {
        let Some(kept) = self.core.keyring.read_head().await? else {
            return Ok(Anchored::Unknown);
        };
        let kept =
            Head { size: i64::try_from(kept.size).map_err(Error::internal)?, root: kept.root };
        let (extends, found) = self.extends(kept).await?;
        if extends {
            return Ok(Anchored::Extends { kept });
        }
        tracing::error!(
            alarm = true,
            kept = kept.size,
            found = found.size,
            "the log does not extend the head that the HSM keeps"
        );
        Ok(Anchored::RolledBack { kept, found })
    }

    /// Writes the newest head into the HSM, if it moved. One that the log does not extend stays.
    ///
    /// # Errors
    /// [`Error::Denied`] for a log that was rolled back; what HSM and store answer.
    pub async fn write_anchor(&self) -> Result<()> {
        let newest = self.head().await?;
        match self.check_anchor().await? {
            Anchored::Extends { kept } if kept.size >= newest.size => Ok(()),
            Anchored::Unknown | Anchored::Extends { .. } => self.keep(newest).await,
            Anchored::RolledBack { kept, .. } => Err(rolled_back(kept)),
        }
    }

    /// Accepts the log as it is: records that, and gives the HSM its head. Who may say so, and how
    /// many must, is for the caller to know.
    ///
    /// # Errors
    /// [`Error::Precondition`] when there is nothing to accept; what HSM and store answer.
    pub async fn accept_rollback(&self) -> Result<()> {
        let Anchored::RolledBack { kept, found } = self.check_anchor().await? else {
            return Err(Error::precondition("the log extends what the HSM keeps of it"));
        };
        let detail = format!("kept: {} entries, found: {} entries", kept.size, found.size);
        let by = DecisionFact { allowed: true, reason: "accepted", by: "local".to_owned() };
        let private = vec![(Field::Detail, detail)];
        self.own_entry("system.accept-rollback", by, "OK", private).await?;
        *self.core.signed.lock() = None;
        self.keep(found).await
    }

    /// Takes notice of a head that is about to be signed: this node signs nothing that does not
    /// extend what it signed before. False when the log has moved on meanwhile.
    ///
    /// # Errors
    /// [`Error::Denied`], with an alarm, when the head went back or is another tree's.
    pub(super) async fn extend_signed(&self, head: Head) -> Result<bool> {
        let signed = *self.core.signed.lock();
        if let Some(signed) = signed {
            let (extends, found) = self.extends(signed).await?;
            if !extends {
                return Err(rolled_back(signed));
            }
            if found != head {
                return Ok(false);
            }
        }
        *self.core.signed.lock() = Some(head);
        Ok(true)
    }

    async fn extends(&self, kept: Head) -> Result<(bool, Head)> {
        let view =
            self.core.reader.view(move |tx| async move { audit::extends(tx, &kept).await }.boxed());
        view.await
    }

    async fn keep(&self, head: Head) -> Result<()> {
        let size = u64::try_from(head.size).map_err(Error::internal)?;
        self.core.keyring.write_head(&keyring::Head { size, root: head.root }).await?;
        Ok(())
    }
}

fn rolled_back(kept: Head) -> Error {
    StoreError::Tampered { table: "log_head", id: kept.size.to_string() }.into()
}
