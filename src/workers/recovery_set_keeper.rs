//! Wraps every identity key for every recovery set, and has each node know the sets, so that keys to
//! come are wrapped for them as they are made.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::Worker;
use crate::engines::recovery_sets::WrapForSet;
use crate::error::{Error, Result};
use crate::keyring::Recipient;
use crate::store::keys::IdentityKeyRow;
use crate::store::{Reader, recovery_sets};
use crate::types::{Caller, Id, UnixMillis};
use crate::vault::Vault;

/// Keys of one round, each an operation of the HSM.
const ROUND: i64 = 100;
/// How often all keys are looked at again: one that a node made which did not know the set yet may
/// have been passed by.
const AGAIN_MS: i64 = 3_600_000;

/// The worker.
#[derive(Debug)]
pub struct RecoverySetKeeper {
    vault: Vault,
    reader: Reader,
    /// Of each set, up to which key all have their wrap, and since when that was looked at from the
    /// beginning.
    looked: Mutex<HashMap<Id, (String, UnixMillis)>>,
}

impl RecoverySetKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader, looked: Mutex::default() }
    }

    /// Finds keys without a wrap, and how far all have one once these do.
    async fn lacking(&self, set: Id, after: String) -> Result<(Vec<IdentityKeyRow>, String)> {
        let label = Recipient::label(self.vault.installation().id, set);
        let read = self.reader.view(move |tx| {
            async move {
                let newest = recovery_sets::newest_key_id(tx).await?;
                let found = recovery_sets::keys_without(tx, &label, &after, ROUND).await?;
                let all = i64::try_from(found.len()).is_ok_and(|count| count < ROUND);
                let keys: Vec<_> = found.into_iter().map(|found| found.row).collect();
                let upto = keys.last().filter(|_| !all).map(|last| last.id.to_string());
                Ok((keys, upto.unwrap_or(newest)))
            }
            .boxed()
        });
        read.await
    }
}

#[async_trait]
impl Worker for RecoverySetKeeper {
    const NAME: &'static str = "recovery_set_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        for set in self.vault.follow_sets().await? {
            let id = set.set;
            let known = self.looked.lock().get(&id).cloned();
            let fresh =
                |(_, since): &(String, UnixMillis)| now.0.saturating_sub(since.0) < AGAIN_MS;
            let (after, since) = known.filter(fresh).unwrap_or_else(|| (String::new(), now));
            let (keys, upto) = self.lacking(id, after).await?;
            if !keys.is_empty() {
                let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
                match self.vault.run(&ctx, WrapForSet { set, keys }).await {
                    Ok(()) => {}
                    Err(Error::Conflict(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            self.looked.lock().insert(id, (upto, since));
        }
        Ok(())
    }
}
