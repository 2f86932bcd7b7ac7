//! Shows the newest signed checkpoint: it tells a size and a hash, and so every identity may have
//! it, to keep it where the vault cannot reach.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::crypto;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx, records};
use crate::types::{RequestContext, ResourceName, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// Asks for the newest checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint;

/// The newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The signed note.
    pub note: String,
    /// The key that verifies it, as a verifier key.
    pub verifier_key: String,
    /// How many entries it covers; 0 where what is stored does not verify, which is an alarm.
    pub size: u64,
    /// When it was signed.
    pub signed_at: UnixMillis,
}

#[async_trait]
impl Verb for Checkpoint {
    const ACTION: &'static str = "records.checkpoint";
    type Prepared = Newest;
    type Output = Newest;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("records", &["checkpoint"])?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Newest> {
        let head = view.read(|tx| async { Ok(records::head(tx).await?) }.boxed()).await?;
        if head.checkpoint.is_empty() {
            return Err(Error::not_found("no checkpoint has been signed yet"));
        }
        let key = view.log_key()?;
        // What does not verify is shown as it is: whoever verifies must see it.
        let size = match crypto::Checkpoint::open(&head.checkpoint, &key) {
            Ok(checkpoint) => checkpoint.size,
            Err(error) => {
                tracing::error!(%error, alarm = true, "the stored checkpoint does not verify");
                0
            }
        };
        Ok(Newest {
            note: head.checkpoint,
            verifier_key: key.to_string(),
            size,
            signed_at: UnixMillis(head.signed_at),
        })
    }
}

#[async_trait]
impl Operation for Checkpoint {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &Newest,
        _: &Decision,
    ) -> Result<Newest> {
        Ok(prepared.clone())
    }
}
