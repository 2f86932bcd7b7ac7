//! Background tasks that shutdown waits for.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
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

    /// Runs what goes on where nobody waits for it any more: as a part of who waits for it, and from
    /// then on as a task of its own. Shutdown waits for it from now on.
    ///
    /// A task from the start would cost each call one more, and a way between threads. As from a task,
    /// its panic is an answer: whoever waits goes on.
    pub fn finish<F>(&self, doing: F) -> GoesOn<thread::Result<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let caught = AssertUnwindSafe(doing).catch_unwind();
        GoesOn { doing: Some(Box::pin(self.tracker.track_future(caught))), begun: false }
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

/// What goes on where nobody waits for it any more; what was never begun is dropped.
pub struct GoesOn<T: Send + 'static> {
    doing: Option<BoxFuture<'static, T>>,
    begun: bool,
}

impl<T: Send + 'static> fmt::Debug for GoesOn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoesOn").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for GoesOn<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let Some(doing) = &mut self.doing else { return Poll::Pending };
        let done = ready!(doing.as_mut().poll(context));
        self.doing = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for GoesOn<T> {
    fn drop(&mut self) {
        // Without a runtime the process is at its end, and tasks are as well.
        if let Some(doing) = self.doing.take()
            && self.begun
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(doing));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_goes_on_and_shutdown_waits_for_it() {
        let tasks = TaskGroup::default();
        assert_eq!(tasks.finish(async { 7 }).await.unwrap(), 7);
        let (go, wait) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let mut doing = tasks.finish(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        });
        assert!((&mut doing).now_or_never().is_none());
        let mut ends = Box::pin(tasks.shutdown());
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut ends).await.is_err(), "somebody waits for it");
        drop(doing);
        assert!(tokio::time::timeout(soon, &mut ends).await.is_err(), "it goes on");
        go.send(()).unwrap();
        ended.await.unwrap();
        ends.await;
    }

    #[tokio::test]
    async fn what_panics_answers_and_what_was_never_begun_does_nothing() {
        let tasks = TaskGroup::default();
        let panicked = tasks.finish(async { assert_eq!(1, 2, "as a test wants it") }).await;
        assert!(panicked.is_err());
        let ran = Arc::<AtomicBool>::default();
        let runs = Arc::clone(&ran);
        drop(tasks.finish(async move { runs.store(true, Ordering::Relaxed) }));
        tasks.shutdown().await;
        assert!(!ran.load(Ordering::Relaxed));
        assert_eq!(Arc::strong_count(&ran), 1, "it is let go of");
    }

    #[test]
    fn where_the_runtime_is_gone_nothing_goes_on() {
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let mut doing = TaskGroup::default().finish(async move {
            pending::<()>().await;
            drop(holds);
        });
        assert!((&mut doing).now_or_never().is_none());
        drop(doing);
        assert_eq!(Arc::strong_count(&held), 1, "it is let go of");
    }
}
