//! `RecoverySetService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::crypto::hex;
use crate::engines::ceremonies::{Held, InCeremony};
use crate::engines::recovery_sets::{
    CreateSet, Custody, DescribedSet, DestroySet, Holder, HolderKey, ListSets,
};
use crate::error::{Error, Result as Parsed};
use crate::proto::recovery_set_service_server::RecoverySetService;
use crate::proto::{
    CreateRecoverySetRequest, CreateRecoverySetResponse, DestroyRecoverySetRequest,
    DestroyRecoverySetResponse, ListRecoverySetsRequest, ListRecoverySetsResponse, RecoveryHolder,
    RecoverySet,
};

/// Serves recovery sets.
#[derive(Debug, Clone)]
pub(super) struct RecoverySets(pub(super) Gate);

#[tonic::async_trait]
impl RecoverySetService for RecoverySets {
    async fn create_recovery_set(
        &self,
        request: Request<CreateRecoverySetRequest>,
    ) -> Result<Response<CreateRecoverySetResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let create = self.0.read(&ctx, create(&request))?;
        let held = self.0.vault.run(&ctx, InCeremony(create)).await.and_then(Held::done);
        let made = Gate::answer(&ctx, held)?;
        Ok(Response::new(CreateRecoverySetResponse { set: Some(self.set(made)) }))
    }

    async fn list_recovery_sets(
        &self,
        request: Request<ListRecoverySetsRequest>,
    ) -> Result<Response<ListRecoverySetsResponse>, Status> {
        let (ctx, ListRecoverySetsRequest {}) = self.0.accept(request).await?;
        let found = Gate::answer(&ctx, self.0.vault.run(&ctx, ListSets).await)?;
        let sets = found.into_iter().map(|found| self.set(found)).collect();
        Ok(Response::new(ListRecoverySetsResponse { sets }))
    }

    async fn destroy_recovery_set(
        &self,
        request: Request<DestroyRecoverySetRequest>,
    ) -> Result<Response<DestroyRecoverySetResponse>, Status> {
        let (ctx, DestroyRecoverySetRequest { id, reason }) = self.0.accept(request).await?;
        let destroy = DestroySet { id: self.0.read(&ctx, id.parse())?, reason };
        let held = self.0.vault.run(&ctx, InCeremony(destroy)).await.and_then(Held::done);
        let destroyed = Gate::answer(&ctx, held)?;
        Ok(Response::new(DestroyRecoverySetResponse { set: Some(self.set(destroyed)) }))
    }
}

impl RecoverySets {
    fn set(&self, of: DescribedSet) -> RecoverySet {
        let DescribedSet { row, custody, holders, covered, keys } = of;
        RecoverySet {
            id: row.id.to_string(),
            vault_id: self.0.vault.installation().id.to_string(),
            threshold: i32::try_from(row.threshold).unwrap_or(i32::MAX),
            holders: holders.into_iter().map(holder).collect(),
            state: row.state.to_string(),
            public_key: hex(&row.public_key),
            keys_covered: covered,
            keys_total: keys,
            created_at_ms: row.created_at.0,
            changed_at_ms: row.changed_at.0,
            custody: custody.as_str().to_owned(),
        }
    }
}

fn holder(of: Holder) -> RecoveryHolder {
    let Holder { name, public_key, sealed_share } = of;
    RecoveryHolder { name, public_key, sealed_share }
}

fn create(request: &CreateRecoverySetRequest) -> Parsed<CreateSet> {
    let key = |of: &RecoveryHolder, custody| HolderKey::parse(&of.name, &of.public_key, custody);
    match &request.token {
        None => {
            let keys = request.holders.iter().map(|of| key(of, Custody::Shares));
            CreateSet::split(request.threshold, keys.collect::<Parsed<_>>()?)
        }
        Some(token) if request.holders.is_empty() && request.threshold == 0 => {
            Ok(CreateSet::in_token(key(token, Custody::Token)?))
        }
        Some(_) => Err(Error::invalid("the private half is split or in a token, not both")),
    }
}
