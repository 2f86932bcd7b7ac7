//! Background tasks that shutdown waits for.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks: told to stop together and waited for together.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl TaskGroup {
    /// Starts a task that shutdown waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Waits until the group is told to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Tells every task to stop, without waiting.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Tells every task to stop and waits until each has ended.
    pub async fn shutdown(&self) {
        self.stop();
        self.tracker.wait().await;
    }
}
