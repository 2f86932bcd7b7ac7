//! `SystemService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::crypto::hex;
use crate::engines::system::{CancelRecovery, Seal};
use crate::proto::system_service_server::SystemService;
use crate::proto::{
    self, CancelRecoveryRequest, CancelRecoveryResponse, Notice, SealRequest, SealResponse,
};
use crate::types::{RecoveryState, Standing, State};
use crate::vault::Recovery;

/// Serves the vault as a whole.
#[derive(Debug, Clone)]
pub(super) struct System(pub(super) Gate, pub(super) Standing);

#[tonic::async_trait]
impl SystemService for System {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        let (ctx, SealRequest { reason }) = self.0.accept(request).await?;
        let seal = self.0.read(&ctx, Seal::new(reason))?;
        let sealed_at = Gate::answer(&ctx, self.0.vault.run(&ctx, seal).await)?;
        // Nothing more is let in from here on; whoever watches the seal drops the keys.
        self.1.set(State::Sealed("it was sealed by an administrator".to_owned()));
        self.1.nudge();
        Ok(Response::new(SealResponse { sealed_at_ms: sealed_at.0 }))
    }

    async fn cancel_recovery(
        &self,
        request: Request<CancelRecoveryRequest>,
    ) -> Result<Response<CancelRecoveryResponse>, Status> {
        let (ctx, CancelRecoveryRequest { id, reason }) = self.0.accept(request).await?;
        let cancel = CancelRecovery { id: self.0.read(&ctx, id.parse())?, reason };
        let cancelled = Gate::answer(&ctx, self.0.vault.run(&ctx, cancel).await)?;
        Ok(Response::new(CancelRecoveryResponse { recovery: Some(recovery(&cancelled)) }))
    }
}

fn recovery(of: &Recovery) -> proto::Recovery {
    proto::Recovery {
        id: of.id.to_string(),
        identity: of.name.to_string(),
        state: of.state.to_string(),
        key_sha256: hex(&of.key_hash),
        requested_at_ms: of.requested_at.0,
        changed_at_ms: of.changed_at.0,
    }
}

/// Tells an administrator of a recovery.
pub(super) fn recovery_notice(of: &Recovery) -> Notice {
    let Recovery { id, name, .. } = of;
    let key = hex(&of.key_hash);
    let (code, message) = match of.state {
        RecoveryState::Pending => (
            "RECOVERY_PENDING",
            format!(
                "{name} is being recovered, for a key with SHA-256 {key}: asked for on a server at \
                 {}, it takes effect from {} on; if nobody told you, stop it with `strongroom \
                 recovery cancel {id}`",
                of.requested_at, of.due_at
            ),
        ),
        RecoveryState::Done | RecoveryState::Cancelled | RecoveryState::Never => (
            "RECOVERY_DONE",
            format!(
                "{name} was recovered at {}, for a key with SHA-256 {key}; if nobody told you, \
                 suspend {name}",
                of.changed_at
            ),
        ),
    };
    Notice { code: code.to_owned(), message }
}
