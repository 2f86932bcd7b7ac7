//! A node's upkeep, each part at its own pace until the node stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::life::Life;
use crate::error::{Error, Result};
use crate::telemetry::Metrics;
use crate::types::{News, TaskGroup};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// When a part runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Sealed or not.
    Always,
    /// Only while the node serves, or would if it heard from its store: without keys there is
    /// nothing to do, and what was counted meanwhile waits.
    Serving,
}

/// Starts every part.
pub(super) fn start(life: &Life, metrics: &Arc<Metrics>, checkpoint: Duration, tasks: &TaskGroup) {
    let every = |name, period, when, run: Round| every(life, tasks, name, period, when, run);
    every(
        "integrate",
        checkpoint,
        When::Serving,
        round(|l| async move { l.vault().integrate().await }),
    );
    every(
        "authority",
        SECOND / 4,
        When::Serving,
        round(|l| async move {
            l.vault().watch_authority().await?;
            l.standing().heard(News::Authority);
            l.follow_authorities().await
        }),
    );
    every("clock", SECOND, When::Always, round(mark_clock));
    every("lanes", MINUTE, When::Serving, round(|l| async move { l.vault().retire_lanes().await }));
    every("usage", MINUTE, When::Serving, round(|l| async move { l.vault().flush_usage().await }));
    every(
        "refusals",
        MINUTE,
        When::Serving,
        round(|l| async move { l.vault().summarise_refusals().await }),
    );
    every(
        "retries",
        MINUTE,
        When::Serving,
        round(|l| async move { l.vault().purge_retries().await }),
    );
    every(
        "key usage",
        MINUTE * 10,
        When::Serving,
        round(|l| async move { l.vault().purge_key_usage().await }),
    );
    every(
        "anchor",
        MINUTE * 10,
        When::Serving,
        round(|l| async move { l.vault().write_anchor().await }),
    );
    every("shreds", MINUTE, When::Serving, round(|l| async move { l.vault().keep_shreds().await }));
    every(
        "listener",
        MINUTE * 10,
        When::Serving,
        round(|l| async move { l.renew_listener().await }),
    );
    let log = Arc::clone(metrics);
    every(
        "log metrics",
        SECOND * 5,
        When::Always,
        round(move |l| measure_log(l, Arc::clone(&log))),
    );
    let counts = Arc::clone(metrics);
    every("counts", MINUTE, When::Always, round(move |l| count(l, Arc::clone(&counts))));
    watch_seal(life, tasks);
    watch_state(life, metrics, tasks);
}

async fn mark_clock(life: Life) -> Result<()> {
    let next = life.vault().read_clock().await?;
    // A store that is full still tells the time.
    life.standing().heard(News::Clock);
    life.vault().advance_clock(next).await
}

async fn measure_log(life: Life, metrics: Arc<Metrics>) -> Result<()> {
    let log = life.vault().log_state().await?;
    metrics.log(log.size, log.waiting, life.vault().now()?.since(log.signed_at));
    Ok(())
}

async fn count(life: Life, metrics: Arc<Metrics>) -> Result<()> {
    metrics.credentials(life.vault().credential_counts().await?);
    metrics.ending(&life.vault().ending_counts().await?);
    metrics.notices(life.vault().notice_counts().await?);
    Ok(())
}

type Round = Box<dyn Fn(Life) -> futures_util::future::BoxFuture<'static, Result<()>> + Send>;

fn round<R>(run: impl Fn(Life) -> R + Send + 'static) -> Round
where
    R: Future<Output = Result<()>> + Send + 'static,
{
    Box::new(move |life| Box::pin(run(life)))
}

fn every(
    life: &Life,
    tasks: &TaskGroup,
    name: &'static str,
    period: Duration,
    when: When,
    run: Round,
) {
    let (life, group) = (life.clone(), tasks.clone());
    drop(tasks.spawn(async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = group.stopping() => return,
                _ = ticks.tick() => {}
            }
            if when == When::Serving && !life.standing().is_open() {
                continue;
            }
            report(name, run(life.clone()).await);
        }
    }));
}

/// Obeys a seal four times a second, and at once when this node wrote it.
fn watch_seal(life: &Life, tasks: &TaskGroup) {
    let (life, group) = (life.clone(), tasks.clone());
    drop(tasks.spawn(async move {
        loop {
            tokio::select! {
                () = group.stopping() => return,
                () = life.standing().nudged() => {}
                () = tokio::time::sleep(SECOND / 4) => {}
            }
            let obeyed = life.obey_seal().await;
            if obeyed.is_ok() {
                life.standing().heard(News::Seal);
            }
            report("seal", obeyed);
        }
    }));
}

/// Checks the state when it is due: a check that is under way does not keep the node from stopping.
fn watch_state(life: &Life, metrics: &Arc<Metrics>, tasks: &TaskGroup) {
    let (life, metrics, group) = (life.clone(), Arc::clone(metrics), tasks.clone());
    drop(tasks.spawn(async move {
        let mut rest = SECOND / 4;
        loop {
            tokio::select! {
                () = group.stopping() => return,
                () = tokio::time::sleep(rest) => {}
            }
            rest = SECOND / 4;
            if !life.standing().is_serving() || !life.vault().state_is_due() {
                continue;
            }
            let checked = tokio::select! {
                () = group.stopping() => return,
                checked = life.vault().check_state() => checked,
            };
            if let Ok(found) = &checked {
                metrics.state(found.checked_at, found.wrong());
            } else {
                rest = SECOND * 5;
            }
            report("state", checked.map(drop));
        }
    }));
}

fn report(name: &str, done: Result<()>) {
    match done {
        Ok(()) | Err(Error::Sealed) => {}
        Err(error) => tracing::warn!(upkeep = name, %error, "a round of upkeep failed"),
    }
}
