//! Tells a caller who it is: the cheapest authorized call.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, ResourceName, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Subject, Verb, View};

/// Asks who the caller is.
#[derive(Debug, Clone, Copy)]
pub struct Whoami;

/// Who the caller is, with all that a decision would read about it.
#[derive(Debug, Clone)]
pub struct WhoAmI {
    /// The caller.
    pub subject: Arc<Subject>,
    /// Whether the vault is marked as development.
    pub dev: bool,
    /// Whether the caller's own end is near.
    pub identity_ends_soon: bool,
    /// Whether its credential's is: less than a third of its life is left.
    pub credential_ends_soon: bool,
}

#[async_trait]
impl Verb for Whoami {
    const ACTION: &'static str = "identities.whoami";
    const SPENDS: bool = false;
    type Prepared = WhoAmI;
    type Output = WhoAmI;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let subject = view.subject()?;
        let row = &subject.identity.row;
        let name = ResourceName::join("identities", &[row.name.as_str()])?;
        let mut resource = Resource::named(name).with_row(row.id.0, &subject.identity);
        resource.owner = Some(row.owner);
        resource.identity = Some(subject.own_facts(view.now()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<WhoAmI> {
        let (subject, now) = (Arc::clone(view.subject()?), view.now());
        let notice = u64::try_from(subject.lifecycle.row.notice_s).map_err(Error::internal)?;
        let near = |end: UnixMillis| end.since(now).as_secs() < notice;
        let credential = &subject.credential.row;
        let left = credential.expires_at.since(now);
        let late = left < credential.expires_at.since(credential.issued_at) / 3;
        Ok(WhoAmI {
            dev: view.is_dev(),
            identity_ends_soon: subject.identity.row.expires_at.is_some_and(near),
            credential_ends_soon: late && near(credential.expires_at),
            subject,
        })
    }
}

#[async_trait]
impl Operation for Whoami {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &WhoAmI,
        _: &Decision,
    ) -> Result<WhoAmI> {
        Ok(prepared.clone())
    }
}
