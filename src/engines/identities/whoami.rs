//! Tells a caller who it is: the cheapest authorized call.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, ResourceName};
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
        Ok(WhoAmI { subject: Arc::clone(view.subject()?), dev: view.is_dev() })
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
