//! Renews the login certificate of the human `admin` of a development vault, for a key that was
//! made on this machine. A vault without the mark refuses.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::crypto::sha256;
use crate::engines::pki::{
    Authorities, AuthoritySlot, Certificate, Request, Serial, SpiffeId, Template, issue,
};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::identities::{self, IdentityRow};
use crate::store::keys::HsmPurpose;
use crate::store::{Tx, Versioned};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, IdentityName, RequestContext, ResourceName,
    UnixMillis,
};
use crate::vault::{Decision, EffectOperation, Note, Resource, Verb, View};

/// How long the certificate lives.
const TTL: Duration = Duration::from_hours(7 * 24);
/// How long after its intent a signature is looked for by recovery.
const RECOVER_AFTER: Duration = Duration::from_mins(1);
/// The version of a row that nobody but its intent has written.
const PENDING: i64 = 1;

/// Renews the certificate of `admin`.
#[derive(Debug)]
pub struct RenewAdministrator {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The new certificate's key.
    pub request: Request,
}

/// A certificate that is about to be signed.
#[derive(Debug)]
pub struct Renewed {
    pending: CredentialRow,
    serial: Serial,
    template: Template,
    authorities: Arc<Authorities>,
    key: KeyUse,
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
    type Prepared = Renewed;
    type Output = Certificate;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        if !view.is_dev() {
            return Err(Error::precondition("only a development vault has such an administrator"));
        }
        let admin = admin(view).await?;
        let name = ResourceName::join("identities", &[admin.row.name.as_str()])?;
        Ok(vec![Resource::named(name).with_row(admin.row.id.0, &admin)])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Renewed> {
        let admin = admin(view).await?.row;
        let authorities = self.authorities.current()?;
        let spiffe = SpiffeId {
            trust_domain: view.trust_domain().parse()?,
            kind: admin.kind,
            name: admin.name.clone(),
        };
        let template = Template::login(&self.request, &spiffe, Some(TTL))?;
        let serial = Serial::random(view.entropy())?;
        let end = UnixMillis(view.now().plus(TTL)?.seconds().saturating_mul(1_000));
        let resource = decision.resources.first().ok_or(Error::Internal)?;
        let pending = CredentialRow {
            id: CredentialId(view.new_id()?),
            kind: CredentialKind::Login,
            identity: admin.id,
            parent: None,
            handle: None,
            resource: resource.name.clone(),
            state: CredentialState::Pending,
            revocation_epoch: admin.revocation_epoch,
            issued_at: view.now(),
            expires_at: end,
            max_expires_at: end,
            next_try: Some(view.now().plus(RECOVER_AFTER)?),
            tries: 0,
            trouble: String::new(),
            detail: serial.as_bytes().to_vec(),
        };
        let key = view.keyring().hsm_key(HsmPurpose::CaLogin)?;
        let key = KeyUse { key: key.label, version: key.version, purpose: "sign certificate" };
        Ok(Renewed { pending, serial, template, authorities, key })
    }

    fn note(&self, prepared: &Renewed, note: &mut Note) {
        note.keys.push(prepared.key.clone());
        note.credential = Some(prepared.pending.id);
    }
}

#[async_trait]
impl EffectOperation for RenewAdministrator {
    type Effect = Certificate;

    async fn intend(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Renewed,
        _: &Decision,
    ) -> Result<()> {
        tx.insert(&prepared.pending).await?;
        Ok(())
    }

    async fn act(&self, view: &View, prepared: &Renewed) -> Result<Certificate> {
        let Renewed { serial, template, authorities, .. } = prepared;
        issue(view.hsm().as_ref(), &authorities.login, template, serial, view.now()).await
    }

    async fn record(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Renewed,
        made: &Certificate,
    ) -> Result<Certificate> {
        let row = CredentialRow {
            handle: Some(sha256(&made.der).to_vec()),
            state: CredentialState::Active,
            expires_at: made.not_after,
            max_expires_at: made.not_after,
            next_try: None,
            detail: made.der.clone(),
            ..prepared.pending.clone()
        };
        tx.update(PENDING, &row).await?;
        Ok(made.clone())
    }

    async fn abandon(&self, _: &RequestContext, tx: &mut Tx, prepared: &Renewed) -> Result<()> {
        let row = CredentialRow {
            state: CredentialState::Ended,
            next_try: None,
            trouble: "it was not signed".to_owned(),
            ..prepared.pending.clone()
        };
        tx.update(PENDING, &row).await?;
        Ok(())
    }
}
