//! Signs the certificate of a node's own listener. The listener is no identity, so that there is
//! no row: its serial and its names are in the entry.

use std::time::Duration;

use async_trait::async_trait;

use crate::audit::Field;
use crate::engines::pki::{
    AuthoritySlot, Certificate, PublicKey, SubjectName, Template, issue, signing_key,
};
use crate::error::Result;
use crate::keyring::KeyUse;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, ResourceName};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

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

/// A listener's certificate that was signed and that no listener shows yet.
#[derive(Debug)]
pub struct PreparedListener {
    certificate: Certificate,
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
        let (issuing, serial) = (&authorities.issuing, view.serial().await?);
        let key = signing_key(view, issuing)?;
        let issued = issue(view.hsm().as_ref(), issuing, &template, &serial, view.now()).await;
        Ok(PreparedListener { certificate: view.noted(&key, issued)?, key })
    }

    fn note(&self, prepared: &PreparedListener, note: &mut Note) {
        let serial = prepared.certificate.serial;
        let names: Vec<_> = self.names.iter().map(SubjectName::text).collect();
        note.keys.push(prepared.key.clone());
        note.private.push((Field::Detail, format!("serial {serial} for {}", names.join(", "))));
    }
}

#[async_trait]
impl Operation for IssueListener {
    const NEEDS: Needs = READS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &PreparedListener,
        _: &Decision,
    ) -> Result<Certificate> {
        Ok(prepared.certificate.clone())
    }
}
