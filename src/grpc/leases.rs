//! `LeaseService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::engines::database::Databases;
use crate::engines::leases::{Ending, Lease, ListLeases, RenewLease, RevokeLease};
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::lease_service_server::LeaseService;
use crate::proto::{
    ListLeasesRequest, ListLeasesResponse, RenewLeaseRequest, RenewLeaseResponse,
    RevokeLeaseRequest, RevokeLeaseResponse,
};
use crate::types::{CredentialState, UnixMillis};

/// Serves leases.
#[derive(Debug, Clone)]
pub(super) struct LeaseRpc {
    pub(super) gate: Gate,
    pub(super) databases: Databases,
}

#[tonic::async_trait]
impl LeaseService for LeaseRpc {
    async fn list_leases(
        &self,
        request: Request<ListLeasesRequest>,
    ) -> Result<Response<ListLeasesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, list(request))?;
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let leases = listed.into_iter().map(show).collect();
        Ok(Response::new(ListLeasesResponse { leases, next_page_token }))
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let id = self.gate.read(&ctx, request.id.parse())?;
        let op = RenewLease { databases: self.databases.clone(), id, ttl_s: request.ttl_s };
        let lease = Gate::answer(&ctx, self.gate.vault.run_effect(&ctx, op).await)?;
        Ok(Response::new(RenewLeaseResponse { lease: Some(show(lease)) }))
    }

    async fn revoke_lease(
        &self,
        request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let id = self.gate.read(&ctx, request.id.parse())?;
        let ending = Ending::Asked { reason: request.reason };
        let op = RevokeLease { databases: self.databases.clone(), id, ending };
        let lease = Gate::answer(&ctx, self.gate.vault.run_effect(&ctx, op).await)?;
        Ok(Response::new(RevokeLeaseResponse { lease: Some(show(lease)) }))
    }
}

fn list(request: ListLeasesRequest) -> Result<ListLeases> {
    let state = match request.state.as_str() {
        "" => None,
        "revoked" => Some(CredentialState::Ended),
        "pending" => Some(CredentialState::Pending),
        "active" => Some(CredentialState::Active),
        "revoking" => Some(CredentialState::Revoking),
        _ => return Err(Error::invalid("state is pending, active, revoking or revoked")),
    };
    Ok(ListLeases {
        identity: (!request.identity.is_empty()).then(|| request.identity.parse()).transpose()?,
        resource: (!request.resource.is_empty()).then(|| request.resource.parse()).transpose()?,
        state,
        ended: request.include_ended,
        page_size: request.page_size,
        page_token: request.page_token,
    })
}

fn show(lease: Lease) -> proto::Lease {
    let Lease { row, detail, identity } = lease;
    let ms = |at: Option<UnixMillis>| at.map_or(0, |at| at.0);
    let state = match row.state {
        CredentialState::Pending => "pending",
        CredentialState::Active => "active",
        CredentialState::Revoking => "revoking",
        CredentialState::Ended | CredentialState::Spent => "revoked",
    };
    // What is due while all is well is its end, which is shown.
    let trying = row.state == CredentialState::Revoking;
    proto::Lease {
        id: row.id.to_string(),
        identity: identity.to_string(),
        resource: row.resource.to_string(),
        accessor: detail.accessor().to_owned(),
        state: state.to_owned(),
        created_at_ms: row.issued_at.0,
        expires_at_ms: row.expires_at.0,
        max_expires_at_ms: row.max_expires_at.0,
        renewed_at_ms: ms(detail.renewed_at()),
        end_reason: detail.end_reason.map(|why| why.as_str().to_owned()).unwrap_or_default(),
        ended_at_ms: ms(detail.ended_at()),
        revoke_attempts: i32::try_from(row.tries).unwrap_or(i32::MAX),
        next_try_at_ms: ms(row.next_try.filter(|_| trying)),
        retry_reason: row.trouble,
    }
}
