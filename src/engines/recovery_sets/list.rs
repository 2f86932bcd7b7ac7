//! Lists recovery sets, with the shares as they are sealed and how many keys each opens.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{DescribedSet, sets};
use crate::error::Result;
use crate::store::{Needs, Tx, recovery_sets};
use crate::types::RequestContext;
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Lists them.
#[derive(Debug, Clone, Copy)]
pub struct ListSets;

#[async_trait]
impl Verb for ListSets {
    const ACTION: &'static str = "recovery_sets.list";
    type Prepared = Vec<DescribedSet>;
    type Output = Vec<DescribedSet>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        sets()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Vec<DescribedSet>> {
        let vault = view.vault_id();
        let read = view.read(move |tx| {
            async move {
                let mut described = Vec::new();
                for row in recovery_sets::all(tx).await? {
                    described.push(DescribedSet::read(tx, vault, row).await?);
                }
                Ok(described)
            }
            .boxed()
        });
        read.await
    }
}

#[async_trait]
impl Operation for ListSets {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        sets: &Vec<DescribedSet>,
        _: &Decision,
    ) -> Result<Vec<DescribedSet>> {
        Ok(sets.clone())
    }
}
