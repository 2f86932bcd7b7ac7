//! The vault's upkeep, each part at its own pace until the node stops.

use std::future::Future;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::types::TaskGroup;
use crate::vault::Vault;

/// Starts every part.
pub(super) fn start(vault: &Vault, checkpoint: Duration, tasks: &TaskGroup) {
    let second = Duration::from_secs(1);
    let minute = Duration::from_secs(60);
    every(vault, tasks, "integrate", checkpoint, |vault| async move { vault.integrate().await });
    every(
        vault,
        tasks,
        "authority",
        second / 4,
        |vault| async move { vault.watch_authority().await },
    );
    every(vault, tasks, "clock", second, |vault| async move { vault.mark_clock().await });
    every(vault, tasks, "usage", minute, |vault| async move { vault.flush_usage().await });
    every(
        vault,
        tasks,
        "refusals",
        minute,
        |vault| async move { vault.summarise_refusals().await },
    );
    every(vault, tasks, "retries", minute * 60, |vault| async move { vault.purge_retries().await });
}

fn every<F, R>(vault: &Vault, tasks: &TaskGroup, name: &'static str, period: Duration, run: F)
where
    F: Fn(Vault) -> R + Send + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let (vault, group) = (vault.clone(), tasks.clone());
    drop(tasks.spawn(async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = group.stopping() => return,
                _ = ticks.tick() => {}
            }
            match run(vault.clone()).await {
                Ok(()) | Err(Error::Sealed) => {}
                Err(error) => tracing::warn!(upkeep = name, %error, "a round of upkeep failed"),
            }
        }
    }));
}
