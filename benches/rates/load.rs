//! Drives a call from a number of tasks for a while and measures each.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::report::Run;

/// How long one run lasts.
pub(crate) const RUN: Duration = Duration::from_secs(4);
/// How long each side warms up before its first run.
pub(crate) const WARM: Duration = Duration::from_millis(800);

/// Runs `call` from `concurrency` tasks, each with a state of its own.
pub(crate) async fn drive<S, F, R>(
    concurrency: usize,
    span: Duration,
    states: Vec<S>,
    call: F,
) -> Run
where
    S: Clone + Send + Sync + 'static,
    F: Fn(S, usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let began = Instant::now();
    let tasks: Vec<_> = (0..concurrency)
        .map(|task| {
            let (state, call) = (states[task % states.len()].clone(), call.clone());
            tokio::spawn(async move {
                let mut took = Vec::with_capacity(4_096);
                while began.elapsed() < span {
                    let start = Instant::now();
                    call(state.clone(), task).await;
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    run(all, began.elapsed())
}

/// Sums up what each call took.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of calls and an index into them"
)]
pub(crate) fn run(mut all: Vec<Duration>, elapsed: Duration) -> Run {
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    Run { rate_per_s: all.len() as f64 / elapsed.as_secs_f64(), p50: at(0.50), p99: at(0.99) }
}
