//! What the vault does by itself, through the same door as everybody: idempotent, bounded, safe on
//! every node at once. Must not know transports.

mod ceremony_keeper;
mod crl_keeper;
mod elevation_keeper;
mod issuer_keeper;
mod key_keeper;
mod lease_reaper;
mod lifecycle_keeper;
mod notice_courier;
mod notice_keeper;
mod recovery_set_keeper;
mod rotation_keeper;
mod secret_keeper;
mod token_reaper;
mod wrap_keeper;

use std::time::Duration;

use async_trait::async_trait;

pub use ceremony_keeper::CeremonyKeeper;
pub use crl_keeper::CrlKeeper;
pub use elevation_keeper::ElevationKeeper;
pub use issuer_keeper::IssuerKeeper;
pub use key_keeper::KeyKeeper;
pub use lease_reaper::LeaseReaper;
pub use lifecycle_keeper::LifecycleKeeper;
pub use notice_courier::NoticeCourier;
pub use notice_keeper::NoticeKeeper;
pub use recovery_set_keeper::RecoverySetKeeper;
pub use rotation_keeper::RotationKeeper;
pub use secret_keeper::SecretKeeper;
pub use token_reaper::TokenReaper;
pub use wrap_keeper::WrapKeeper;

use crate::error::{Error, Result};
use crate::types::{Standing, TaskGroup, UnixMillis};
use crate::vault::Vault;

/// One job that comes back.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Its name: who it is in decisions and in the record.
    const NAME: &'static str;
    /// Time between two rounds.
    const PERIOD: Duration;
    /// Whether it comes as well when rights moved, as far as this node hears of it at once.
    const FOLLOWS: bool = false;

    /// Does what is due.
    ///
    /// # Errors
    /// What went wrong; the next round tries again.
    async fn tick(&self, now: UnixMillis) -> Result<()>;
}

/// Time between the end of a round and the next.
const REST: Duration = Duration::from_millis(20);

/// Runs a worker while the node serves, until the group is told to stop. Effects under way come
/// to their end by themselves.
pub fn start<W: Worker>(worker: W, vault: &Vault, standing: &Standing, tasks: &TaskGroup) {
    let (vault, standing, group) = (vault.clone(), standing.clone(), tasks.clone());
    drop(tasks.spawn(async move {
        let mut ticks = tokio::time::interval(W::PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut moved = vault.follow_rights();
        loop {
            tokio::select! {
                () = group.stopping() => return,
                _ = ticks.tick() => {}
                _ = moved.changed(), if W::FOLLOWS => {}
            }
            if !standing.is_serving() {
                continue;
            }
            let round = async { worker.tick(vault.now()?).await };
            let outcome = tokio::select! {
                () = group.stopping() => return,
                outcome = round => outcome,
            };
            match outcome {
                Ok(()) | Err(Error::Sealed) => {}
                Err(error) => tracing::warn!(worker = W::NAME, %error, "a round failed"),
            }
            // Who changes rights all the time does not keep it at work all the time.
            tokio::time::sleep(REST).await;
        }
    }));
}
