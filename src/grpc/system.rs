//! `SystemService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::engines::system::Seal;
use crate::proto::system_service_server::SystemService;
use crate::proto::{SealRequest, SealResponse};
use crate::types::{Standing, State};

/// Serves the vault as a whole.
#[derive(Debug, Clone)]
pub(super) struct System(pub(super) Gate, pub(super) Standing);

#[tonic::async_trait]
impl SystemService for System {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        let (ctx, SealRequest { reason }) = self.0.accept(request).await?;
        let seal = Gate::answer(&ctx, Seal::new(reason))?;
        let sealed_at = Gate::answer(&ctx, self.0.vault.run(&ctx, seal).await)?;
        // Nothing more is let in from here on; whoever watches the seal drops the keys.
        self.1.set(State::Sealed("it was sealed by an administrator".to_owned()));
        self.1.nudge();
        Ok(Response::new(SealResponse { sealed_at_ms: sealed_at.0 }))
    }
}
