//! Renews the login certificate of the human `admin` of a development vault, for a key that was
//! made on this machine. A vault without the mark refuses.

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

/// Renews the certificate of `admin`.
#[derive(Debug)]
pub struct RenewAdministrator {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The new certificate's key.
    pub request: Request,
}

async fn admin(view: &View) -> Result<Versioned<IdentityRow>> {
    let name: IdentityName = "admin".parse()?;
    let row = view
        .read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed())
        .await?;
    row.ok_or_else(|| Error::not_found("this vault has no identity `admin`"))
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
        let admin = admin(view).await?;
        let name = ResourceName::join("identities", &[admin.row.name.as_str()])?;
        Ok(vec![Resource::named(name).with_row(admin.row.id.0, &admin)])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Signed> {
        let admin = admin(view).await?.row;
        let authorities = self.authorities.current()?;
        let spiffe = SpiffeId {
            trust_domain: view.trust_domain().parse()?,
            kind: admin.kind,
            name: admin.name.clone(),
        };
        let template = Template::login(&self.request, &spiffe, Some(TTL))?;
        let resource = &decision.resource()?.name;
        let kind = CredentialKind::Login;
        let holder = Holder { kind, identity: &admin, parent: None, elevation: None, resource };
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
