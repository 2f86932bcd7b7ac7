//! Signs the certificate of a node's own listener. The listener is no identity, so that there is
//! no row: the serial is in the entry of the intent, which is durable before anything is signed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::audit::Field;
use crate::engines::pki::{
    Authorities, AuthoritySlot, Certificate, PublicKey, Serial, SubjectName, Template, issue,
};
use crate::error::Result;
use crate::keyring::KeyUse;
use crate::store::Tx;
use crate::store::keys::HsmPurpose;
use crate::types::{RequestContext, ResourceName};
use crate::vault::{Decision, EffectOperation, Note, Resource, Verb, View};

/// The name under which a node's listener is recorded.
pub const LISTENER: &str = "listener";

/// Signs a listener's certificate.
#[derive(Debug)]
pub struct IssueListener {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The listener's key.
    pub key: PublicKey,
    /// Hosts and addresses.
    pub names: Vec<SubjectName>,
    /// How long the certificate lives.
    pub ttl: Duration,
}

/// A listener's certificate that is about to be signed.
#[derive(Debug)]
pub struct PreparedListener {
    serial: Serial,
    template: Template,
    authorities: Arc<Authorities>,
    key: KeyUse,
}

#[async_trait]
impl Verb for IssueListener {
    const ACTION: &'static str = "system.issue-listener";
    type Prepared = PreparedListener;
    type Output = Certificate;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("system", &[LISTENER])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<PreparedListener> {
        let authorities = self.authorities.current()?;
        let template = Template::server(self.key.clone(), self.names.clone(), self.ttl)?;
        let serial = Serial::random(view.entropy())?;
        let key = view.keyring().hsm_key(HsmPurpose::CaIssuing)?;
        let key = KeyUse { key: key.label, version: key.version, purpose: "sign certificate" };
        Ok(PreparedListener { serial, template, authorities, key })
    }

    fn note(&self, prepared: &PreparedListener, note: &mut Note) {
        let serial = data_encoding::HEXLOWER.encode(prepared.serial.as_bytes());
        let names: Vec<_> = self.names.iter().map(SubjectName::text).collect();
        note.keys.push(prepared.key.clone());
        note.private.push((Field::Detail, format!("serial {serial} for {}", names.join(", "))));
    }
}

#[async_trait]
impl EffectOperation for IssueListener {
    type Effect = Certificate;

    async fn intend(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        _: &PreparedListener,
        _: &Decision,
    ) -> Result<()> {
        Ok(())
    }

    async fn act(&self, view: &View, prepared: &PreparedListener) -> Result<Certificate> {
        let PreparedListener { serial, template, authorities, .. } = prepared;
        issue(view.hsm().as_ref(), &authorities.issuing, template, serial, view.now()).await
    }

    async fn record(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        _: &PreparedListener,
        made: &Certificate,
    ) -> Result<Certificate> {
        Ok(made.clone())
    }

    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &PreparedListener) -> Result<()> {
        Ok(())
    }
}
