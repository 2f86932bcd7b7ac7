//! Shows a wrap, never what is in it.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Wrap, as_of, resource_of};
use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::{CredentialId, RequestContext};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Shows a wrap.
#[derive(Debug, Clone, Copy)]
pub struct ShowWrap {
    /// Its accessor.
    pub accessor: CredentialId,
}

#[async_trait]
impl Verb for ShowWrap {
    const ACTION: &'static str = "wraps.show";
    type Prepared = Wrap;
    type Output = Wrap;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.accessor).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Wrap> {
        let (id, as_of) = (self.accessor, as_of(view)?);
        view.read(move |tx| async move { Wrap::load(tx, id, as_of).await }.boxed()).await
    }
}

#[async_trait]
impl Operation for ShowWrap {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Wrap,
        _: &Decision,
    ) -> Result<Wrap> {
        Ok(prepared.clone())
    }
}
