//! `AuthorityService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::span;
use super::root::{rotation, schedule, state};
use crate::engines::authorities::{
    AuthorityStatus, AuthorityVersion, RetireAuthority, RotateAuthority, ScheduleAuthority,
    ShowAuthority,
};
use crate::engines::ceremonies::{Held, InCeremony};
use crate::proto;
use crate::proto::authority_service_server::AuthorityService;
use crate::proto::{
    GetAuthorityRequest, GetAuthorityResponse, RetireAuthorityRequest, RetireAuthorityResponse,
    RotateAuthorityRequest, RotateAuthorityResponse, RotatingAuthority, ScheduleAuthorityRequest,
    ScheduleAuthorityResponse,
};

/// Serves authorities that rotate.
#[derive(Debug, Clone)]
pub(super) struct RotatingAuthorities(pub(super) Gate);

#[tonic::async_trait]
impl AuthorityService for RotatingAuthorities {
    async fn rotate_authority(
        &self,
        request: Request<RotateAuthorityRequest>,
    ) -> Result<Response<RotateAuthorityResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let name = self.0.read(&ctx, request.name.parse())?;
        let authorities = self.0.authorities.clone();
        let op = RotateAuthority { name, expected: request.expected_version, authorities };
        let rotated = Gate::answer(&ctx, self.0.vault.run_effect(&ctx, op).await)?;
        Ok(Response::new(RotateAuthorityResponse { authority: Some(authority(rotated)) }))
    }

    async fn retire_authority(
        &self,
        request: Request<RetireAuthorityRequest>,
    ) -> Result<Response<RetireAuthorityResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let RetireAuthorityRequest { name, version, force } = request;
        let op = RetireAuthority { name: self.0.read(&ctx, name.parse())?, version, force };
        let held = self.0.vault.run_effect(&ctx, InCeremony(op)).await.and_then(Held::done);
        let retired = Gate::answer(&ctx, held)?;
        Ok(Response::new(RetireAuthorityResponse { authority: Some(authority(retired)) }))
    }

    async fn get_authority(
        &self,
        request: Request<GetAuthorityRequest>,
    ) -> Result<Response<GetAuthorityResponse>, Status> {
        let (ctx, GetAuthorityRequest { name }) = self.0.accept(request).await?;
        let op = ShowAuthority { name: self.0.read(&ctx, name.parse())? };
        let shown = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetAuthorityResponse { authority: Some(authority(shown)) }))
    }

    async fn schedule_authority(
        &self,
        request: Request<ScheduleAuthorityRequest>,
    ) -> Result<Response<ScheduleAuthorityResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let every = self.0.read(&ctx, span("rotate_every_s", request.rotate_every_s))?;
        let op = ScheduleAuthority { name: self.0.read(&ctx, request.name.parse())?, every };
        let set = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(ScheduleAuthorityResponse { authority: Some(authority(set)) }))
    }
}

fn authority(of: AuthorityStatus) -> RotatingAuthority {
    let version = |of: AuthorityVersion| proto::AuthorityVersion {
        version: of.version,
        state: state(of.state).to_owned(),
        created_at_ms: of.created_at.0,
        valid: of.valid,
        valid_until_ms: of.valid_until.0,
        replaced: of.replaced.map(rotation),
    };
    RotatingAuthority {
        versions: of.versions.into_iter().map(version).collect(),
        pending: of.pending.map(rotation),
        schedule: of.schedule.map(schedule),
    }
}
