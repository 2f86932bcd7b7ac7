//! Renews the login certificate of an administrator that a development vault was founded with, for a
//! key that was made on this machine. A vault without the mark refuses.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::engines::pki::{
    AuthoritySlot, Certificate, Holder, Request, Signed, SpiffeId, Template,
};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialKind, IdentityName, RequestContext, ResourceName};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES_ONE};

/// How long the certificate lives.
const TTL: Duration = Duration::from_hours(7 * 24);

/// Renews the certificate of an administrator.
#[derive(Debug)]
pub struct RenewAdministrator {
    /// Who: one that the founding registered.
    pub name: IdentityName,
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The new certificate's key.
    pub request: Request,
}

impl RenewAdministrator {
    async fn find(&self, view: &View) -> Result<Versioned<IdentityRow>> {
        let name = self.name.clone();
        let row = view
            .read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed())
            .await?;
        // Who registered itself was there from the beginning.
        row.filter(|found| found.row.created_by == found.row.id.to_string()).ok_or_else(|| {
            Error::not_found("this vault was not founded with such an administrator")
        })
    }
}

#[async_trait]
impl Verb for RenewAdministrator {
    const ACTION: &'static str = "system.renew-administrator";
    type Prepared = Signed;
    type Output = Certificate;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        if !view.is_dev() {
            return Err(Error::precondition("only a development vault has such an administrator"));
        }
        let admin = self.find(view).await?;
        let name = ResourceName::join("identities", &[admin.row.name.as_str()])?;
        Ok(vec![Resource::named(name).with_row(admin.row.id.0, &admin)])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Signed> {
        let admin = self.find(view).await?.row;
        let authorities = self.authorities.current()?;
        let spiffe = SpiffeId {
            trust_domain: view.trust_domain().parse()?,
            kind: admin.kind,
            name: admin.name.clone(),
        };
        let template = Template::login(&self.request, &spiffe, Some(TTL))?;
        let resource = &decision.resource()?.name;
        let kind = CredentialKind::Login;
        let holder =
            Holder { kind, identity: &admin, parent: None, elevations: [None, None], resource };
        holder.sign(view, &authorities.login, &template).await
    }

    fn note(&self, prepared: &Signed, note: &mut Note) {
        note.keys.push(prepared.key.clone());
        note.credential = Some(prepared.row.id);
    }
}

#[async_trait]
impl Operation for RenewAdministrator {
    const NEEDS: Needs = WRITES_ONE;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Signed,
        _: &Decision,
    ) -> Result<Certificate> {
        tx.insert(&prepared.row).await?;
        Ok(prepared.certificate.clone())
    }
}
