//! Signs, in memory or in the HSM, and checks signatures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::batch::{Fault, Job, Work, check_item};
use super::find::{gone, label};
use super::mac::VerifyItem;
use super::make::scheme;
use crate::crypto;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::named_keys::NamedKeyVersionRow;
use crate::types::{KeyPurpose, KeyUsage, Placement, SecretBytes};
use crate::vault::View;

/// What signing in the HSM is called in the record.
const IN_HSM: &str = "sign/hsm";

/// Signatures that the HSM makes at once for named keys on this node: its other threads are left to
/// what the vault itself needs.
const AT_ONCE: usize = 2;
/// How long after it came a call goes on with the HSM.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose turn it is in the HSM.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Turns {
    /// Waits for a turn, for a call that came in at a moment.
    pub(super) async fn take(&self, came: Instant) -> Result<SemaphorePermit<'_>> {
        let left = PATIENCE.saturating_sub(came.elapsed());
        if left.is_zero() {
            return Err(Error::Deadline);
        }
        let turn = timeout(left, self.0.acquire()).await.map_err(|_elapsed| Error::Deadline)?;
        turn.map_err(Error::internal)
    }
}

/// Signs with the newest version.
#[derive(Debug)]
pub struct Signing;

/// Checks signatures.
#[derive(Debug)]
pub struct Verifying;

impl Work<'_> {
    pub(super) async fn sign_in_hsm(
        &self,
        version: &NamedKeyVersionRow,
        message: &[u8],
    ) -> Result<Vec<u8>> {
        let (view, key) = (self.view, version.named_key);
        let label = label(view.vault_id(), key, version.version);
        require_pinned(view, version, &label).await?;
        let used = KeyUse { key: key.to_string(), version: version.version, purpose: IN_HSM };
        let turn = self.turns.take(view.ctx().began).await?;
        let signed = view.hsm().sign(&label, message).await.map_err(Error::from);
        drop(turn);
        view.noted(&used, signed)
    }
}

/// Refuses a key in the HSM that is not the one that was made there, once while unsealed.
pub(super) async fn require_pinned(
    view: &View,
    version: &NamedKeyVersionRow,
    label: &str,
) -> Result<()> {
    let keyring = view.keyring();
    if keyring.is_vouched(version.id.0)? {
        return Ok(());
    }
    let found = view.hsm().lookup_key(label).await?;
    let found = found.ok_or_else(|| Error::precondition("the key is gone from the HSM"))?;
    if version.pinned.as_ref() != Some(&found.check) {
        tracing::error!(label, alarm = true, "the HSM holds another key than was made there");
        return Err(Error::Denied("the key in the HSM is not the one that was made".into()));
    }
    keyring.vouch(version.id.0)?;
    Ok(())
}

impl Job for Signing {
    const ACTION: &'static str = "keys.sign";
    const USAGE: KeyUsage = KeyUsage::Signs;
    const PURPOSES: [&'static str; 2] = ["sign/sealed", IN_HSM];
    const MAKES: bool = true;
    type Item = SecretBytes;
    type Done = Vec<u8>;

    async fn one(work: &Work<'_>, message: &SecretBytes) -> Result<Result<Vec<u8>, Fault>> {
        let (message, version) = (message.expose(), &work.newest);
        // Or somebody could have it sign a statement that the vault did not write.
        if work.hot.row.row.purpose == KeyPurpose::Artifacts {
            return Err(Error::invalid("the key signs artifacts alone"));
        }
        if let Err(fault) = check_item("a message", message) {
            return Ok(Err(fault));
        }
        work.uses(version.version);
        let row = &work.hot.row.row;
        match row.placement {
            Placement::Sealed => {
                let private = work.hot.material(work.view, version).await?;
                Ok(Ok(crypto::sign(scheme(row.algorithm)?, &private, message)?))
            }
            Placement::Hsm => Ok(Ok(work.sign_in_hsm(version, message).await?)),
        }
    }
}

impl Job for Verifying {
    const ACTION: &'static str = "keys.verify";
    const USAGE: KeyUsage = KeyUsage::Signs;
    const PURPOSES: [&'static str; 2] = ["verify/public", "verify/public"];
    const MAKES: bool = false;
    type Item = VerifyItem;
    type Done = bool;

    async fn one(work: &Work<'_>, item: &VerifyItem) -> Result<Result<bool, Fault>> {
        if let Err(fault) = check_item("a message", item.message.expose()) {
            return Ok(Err(fault));
        }
        let version = match work.version(item.version).await? {
            Ok(version) => version,
            Err(fault) => return Ok(Err(fault)),
        };
        work.uses(version.version);
        let public = version.public_key.as_deref();
        let public = public.ok_or_else(|| gone("named_key_versions", version.id))?;
        let scheme = scheme(work.hot.row.row.algorithm)?;
        Ok(Ok(crypto::verifies(scheme, public, item.message.expose(), &item.proof)))
    }
}
