//! Ends certificates that a crash left between their intent and their signature.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::credential::never_signed;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialId, CredentialState, RequestContext};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Recovers a signing: the row ends, because what it was for was never handed out.
#[derive(Debug, Clone, Copy)]
pub struct RecoverSigning {
    /// The certificate or login.
    pub id: CredentialId,
}

#[async_trait]
impl Verb for RecoverSigning {
    // Recovery is a part of the verb whose intent it finishes.
    const ACTION: &'static str = "pki.sign";
    type Prepared = Versioned<CredentialRow>;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let row = self.find(view).await?;
        Ok(vec![Resource::named(row.row.resource.clone()).with_row(self.id.0, &row)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<CredentialRow>> {
        let row = self.find(view).await?;
        if row.row.state != CredentialState::Pending {
            return Err(Error::Conflict("the certificate is not pending any more".into()));
        }
        Ok(row)
    }

    fn note(&self, _: &Versioned<CredentialRow>, note: &mut Note) {
        note.credential = Some(self.id);
    }
}

impl RecoverSigning {
    async fn find(&self, view: &View) -> Result<Versioned<CredentialRow>> {
        let id = self.id;
        let row = view.read(move |tx| async move { Ok(tx.lookup(&id).await?) }.boxed()).await?;
        row.ok_or_else(|| Error::not_found("no such certificate"))
    }
}

#[async_trait]
impl Operation for RecoverSigning {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        pending: &Versioned<CredentialRow>,
        _: &Decision,
    ) -> Result<()> {
        tx.update(pending.version, &never_signed(&pending.row)).await?;
        Ok(())
    }
}
