//! Ends a certificate before its time. Who relies on certificates learns of it from the next
//! revocation list, which a worker has signed within a second.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::credential::Said;
use super::listing::{Listed, Standing};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, CredentialState, RequestContext, ResourceName};
use crate::vault::{Decision, Note, Operation, READS, Resource, TAKES_BACK, Verb, View};

const REASON_CHARS: usize = 500;

/// Ends a certificate; one that has ended stays as it is.
#[derive(Debug)]
pub struct RevokeCertificate {
    /// The certificate.
    pub id: CredentialId,
    /// Why, for the record.
    pub reason: String,
}

#[async_trait]
impl Verb for RevokeCertificate {
    const ACTION: &'static str = "pki.revoke";
    type Prepared = Listed;
    type Output = Listed;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let Some((certificate, holder)) = find(view, self.id).await? else {
            let name = ResourceName::join("pki", &["certificates", &self.id.to_string()])?;
            return Ok(vec![Resource::named(name)]);
        };
        let name = certificate.row.resource.clone();
        let mut resource = Resource::named(name).with_row(self.id.0, &certificate);
        resource.rows.push(holder.fence());
        resource.holder = Some(holder.row.id);
        resource.owner = Some(holder.row.owner);
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Listed> {
        if self.reason.chars().count() > REASON_CHARS {
            return Err(Error::invalid("a reason has at most 500 characters"));
        }
        let (certificate, holder) = find(view, self.id).await?.ok_or_else(missing)?;
        let row = certificate.row;
        Ok(Listed {
            said: Said::of_der(&row.detail)?,
            standing: Standing::of(&row, holder.row.revocation_epoch, view.now()),
            row,
            identity: holder.row.name.to_string(),
        })
    }

    fn note(&self, prepared: &Listed, note: &mut Note) {
        note.credential = Some(prepared.row.id);
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RevokeCertificate {
    const NEEDS: Needs = TAKES_BACK;

    fn needs(&self, prepared: &Listed) -> Needs {
        if is_over(prepared) { READS } else { Self::NEEDS }
    }

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Listed,
        _: &Decision,
    ) -> Result<Listed> {
        if is_over(prepared) {
            return Ok(prepared.clone());
        }
        let found = tx.lookup::<CredentialRow>(&self.id).await?.ok_or_else(missing)?;
        let row = if found.row.state == CredentialState::Ended {
            // Another ended it in between.
            found.row
        } else {
            let ended = CredentialRow {
                state: CredentialState::Ended,
                trouble: "it was revoked".to_owned(),
                ..found.row
            };
            tx.update(found.version, &ended).await?.row
        };
        Ok(Listed { row, standing: Standing::Revoked, ..prepared.clone() })
    }
}

fn is_over(certificate: &Listed) -> bool {
    match certificate.standing {
        Standing::Active => false,
        Standing::Expired | Standing::Revoked => true,
    }
}

async fn find(
    view: &View,
    id: CredentialId,
) -> Result<Option<(Versioned<CredentialRow>, Versioned<IdentityRow>)>> {
    view.read(move |tx| async move { load(tx, id).await }.boxed()).await
}

async fn load(
    tx: &mut Tx,
    id: CredentialId,
) -> Result<Option<(Versioned<CredentialRow>, Versioned<IdentityRow>)>> {
    let found = tx.lookup::<CredentialRow>(&id).await?;
    let Some(found) = found.filter(|found| found.row.kind == CredentialKind::Certificate) else {
        return Ok(None);
    };
    let holder = tx.lookup::<IdentityRow>(&found.row.identity).await?;
    let holder = holder.ok_or_else(|| Error::internal("a certificate without its identity"))?;
    Ok(Some((found, holder)))
}

fn missing() -> Error {
    Error::not_found("there is no such certificate; `strongroom pki list` shows them")
}
