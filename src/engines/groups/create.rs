//! Creates a group.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::DescribedGroup;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::Result;
use crate::store::identities::GroupRow;
use crate::store::{Needs, Tx};
use crate::types::{GroupId, RequestContext, ResourceName, Segment};
use crate::vault::{Decision, GOVERNS, Operation, Resource, RetryKey, Verb, View};

/// Creates an empty group.
#[derive(Debug, Clone)]
pub struct CreateGroup {
    /// Its name, never used before.
    pub name: Segment,
    /// What it is for.
    pub purpose: String,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

#[async_trait]
impl Verb for CreateGroup {
    const ACTION: &'static str = "groups.create";
    type Prepared = GroupId;
    type Output = DescribedGroup;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        // Without the row that a retry finds: what exists changes nothing about the decision.
        Ok(vec![Resource::named(ResourceName::join("groups", &[self.name.as_str()])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<GroupId> {
        check_text("a purpose", &self.purpose, LONG)?;
        view.new_id().map(GroupId)
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, prepared: &GroupId) -> String {
        prepared.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<DescribedGroup> {
        let id = made.parse()?;
        view.read(move |tx| {
            async move { DescribedGroup::find(tx, &mut Names::default(), id).await }.boxed()
        })
        .await
    }
}

#[async_trait]
impl Operation for CreateGroup {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &GroupId,
        _: &Decision,
    ) -> Result<DescribedGroup> {
        tx.insert(&GroupRow {
            id: *id,
            name: self.name.clone(),
            purpose: self.purpose.clone(),
            authority_rev: 1,
            created_at: ctx.now,
            created_by: ctx.actor(),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        })
        .await?;
        DescribedGroup::find(tx, &mut Names::default(), *id).await
    }
}
