//! Reads one tile or entry bundle of the log, as it is published.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::log;
use crate::audit::{self, Part};
use crate::crypto::TilePath;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::RequestContext;
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Asks for a part of the log.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// Where it is published.
    pub path: TilePath,
}

#[async_trait]
impl Verb for Read {
    const ACTION: &'static str = "records.read";
    type Prepared = Arc<Part>;
    type Output = Arc<Part>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        log()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Arc<Part>> {
        let path = self.path;
        let part = view.read(move |tx| async move { audit::part(tx, path).await }.boxed()).await?;
        part.map(Arc::new).ok_or_else(|| Error::not_found("the log has no such tile or bundle"))
    }
}

#[async_trait]
impl Operation for Read {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Arc<Part>,
        _: &Decision,
    ) -> Result<Arc<Part>> {
        Ok(Arc::clone(prepared))
    }
}
