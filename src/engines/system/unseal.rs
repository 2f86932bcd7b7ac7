//! Records an unsealing, and takes the seal off the record.

use async_trait::async_trait;

use super::{seal_resource, seal_row};
use crate::error::Result;
use crate::store::keys::SealRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::RequestContext;
use crate::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};

/// The name under which local acts on the server's own socket are recorded.
pub const CONTROL_SOCKET: &str = "control_socket";

/// Takes the seal off, by somebody on the server's own socket.
#[derive(Debug, Clone, Copy)]
pub struct Unseal;

#[async_trait]
impl Verb for Unseal {
    const ACTION: &'static str = "system.unseal";
    type Prepared = Versioned<SealRow>;
    type Output = ();

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![seal_resource(view).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<SealRow>> {
        seal_row(view).await
    }
}

#[async_trait]
impl Operation for Unseal {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Versioned<SealRow>,
        _: &Decision,
    ) -> Result<()> {
        if prepared.row.sealed_at.is_some() {
            let open = SealRow { sealed_at: None, sealed_by: ctx.actor(), ..prepared.row.clone() };
            tx.update(prepared.version, &open).await?;
        }
        Ok(())
    }
}
