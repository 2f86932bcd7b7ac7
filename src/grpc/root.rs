//! `RootService`, and how rotations are told.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::span;
use crate::engines::ceremonies::{Held, InCeremony};
use crate::engines::identities::{IdentityKeyStatus, IdentityKeyVersion};
use crate::engines::root::{
    RetireRoot, RootStatus, RootVersion, RotateRoot, ScheduleRoot, ShowRoot,
};
use crate::engines::rotations::{Progress, Schedule};
use crate::proto;
use crate::proto::root_service_server::RootService;
use crate::proto::{
    GetRootRequest, GetRootResponse, RetireRootRequest, RetireRootResponse, RootKey,
    RotateRootRequest, RotateRootResponse, Rotation, RotationSchedule, ScheduleRootRequest,
    ScheduleRootResponse,
};
use crate::store::keys::KeyState;

/// Serves the root key.
#[derive(Debug, Clone)]
pub(super) struct Root(pub(super) Gate);

#[tonic::async_trait]
impl RootService for Root {
    async fn rotate_root(
        &self,
        request: Request<RotateRootRequest>,
    ) -> Result<Response<RotateRootResponse>, Status> {
        let (ctx, RotateRootRequest { expected_version }) = self.0.accept(request).await?;
        let op = RotateRoot { expected: expected_version };
        let held = self.0.vault.run_effect(&ctx, InCeremony(op)).await.and_then(Held::done);
        let rotated = Gate::answer(&ctx, held)?;
        Ok(Response::new(RotateRootResponse { root: Some(root(rotated)) }))
    }

    async fn retire_root(
        &self,
        request: Request<RetireRootRequest>,
    ) -> Result<Response<RetireRootResponse>, Status> {
        let (ctx, RetireRootRequest { version }) = self.0.accept(request).await?;
        let op = RetireRoot { version };
        let held = self.0.vault.run_effect(&ctx, InCeremony(op)).await.and_then(Held::done);
        let retired = Gate::answer(&ctx, held)?;
        Ok(Response::new(RetireRootResponse { root: Some(root(retired)) }))
    }

    async fn get_root(
        &self,
        request: Request<GetRootRequest>,
    ) -> Result<Response<GetRootResponse>, Status> {
        let (ctx, GetRootRequest {}) = self.0.accept(request).await?;
        let shown = Gate::answer(&ctx, self.0.vault.run(&ctx, ShowRoot).await)?;
        Ok(Response::new(GetRootResponse { root: Some(root(shown)) }))
    }

    async fn schedule_root(
        &self,
        request: Request<ScheduleRootRequest>,
    ) -> Result<Response<ScheduleRootResponse>, Status> {
        let (ctx, ScheduleRootRequest { rotate_every_s }) = self.0.accept(request).await?;
        let every = self.0.read(&ctx, span("rotate_every_s", rotate_every_s))?;
        let op = InCeremony(ScheduleRoot { every });
        let held = self.0.vault.run(&ctx, op).await.and_then(Held::done);
        let set = Gate::answer(&ctx, held)?;
        Ok(Response::new(ScheduleRootResponse { root: Some(root(set)) }))
    }
}

fn root(of: RootStatus) -> RootKey {
    RootKey {
        versions: of.versions.into_iter().map(version).collect(),
        pending: of.pending.map(rotation),
        schedule: of.schedule.map(schedule),
    }
}

fn version(of: RootVersion) -> proto::RootVersion {
    proto::RootVersion {
        version: of.version,
        state: state(of.state).to_owned(),
        created_at_ms: of.created_at.0,
        wraps: of.wraps,
        replaced: of.replaced.map(rotation),
    }
}

/// Tells of the key of an identity.
pub(super) fn identity_key(of: IdentityKeyStatus) -> proto::IdentityKey {
    let version = |of: IdentityKeyVersion| proto::IdentityKeyVersion {
        version: of.version,
        state: state(of.state).to_owned(),
        created_at_ms: of.created_at.0,
        under: of.under,
        replaced: of.replaced.map(rotation),
    };
    proto::IdentityKey {
        versions: of.versions.into_iter().map(version).collect(),
        schedule: of.schedule.map(schedule),
    }
}

/// Names the state of a version of a key that rotates.
pub(super) const fn state(of: KeyState) -> &'static str {
    match of {
        KeyState::Active => "current",
        KeyState::Retired => "retiring",
        KeyState::Destroyed => "retired",
    }
}

/// Tells of a rotation.
pub(super) fn rotation(of: Progress) -> Rotation {
    let (row, pace) = (of.row, of.pace);
    Rotation {
        from_version: row.from_version,
        to_version: row.to_version,
        state: row.state.to_string(),
        total: row.total,
        left: of.left,
        per_second: pace.map_or(0, |pace| pace.per_s),
        estimate_s: pace.map_or(0, |pace| pace.left_s),
        started_at_ms: row.started_at.0,
        started_by: of.started_by,
        changed_at_ms: row.changed_at.0,
    }
}

/// Tells when something rotates by itself.
pub(super) const fn schedule(of: Schedule) -> RotationSchedule {
    RotationSchedule { rotate_every_s: of.every_s, next_at_ms: of.next_at.0 }
}
