//! Accepting: whoever may fetch the revocation list is a stranger, so that connections have a bound,
//! and each an end.
//!
//! Must not know what is asked over a connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::grpc::tls::Patient;
use crate::telemetry::Metrics;
use crate::types::TaskGroup;

/// How long accepting rests when the system is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What clients may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is closed.
    pub connections: usize,
    /// How long a client may take to ask, from the connection's begin and from each answer.
    pub header: Duration,
    /// How long it may leave unread what is sent to it.
    pub unread: Duration,
    /// How long a connection lasts, whatever is done over it.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header: Duration::from_secs(10),
            unread: Duration::from_secs(30),
            whole: Duration::from_mins(5),
        }
    }
}

/// Accepts until the tasks are told to stop.
pub(super) async fn listen(
    listener: &TcpListener,
    routes: &Router,
    limits: Limits,
    metrics: &Metrics,
    tasks: &TaskGroup,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            () = tasks.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        let place = Arc::clone(&places).try_acquire_owned();
        match (accepted, place) {
            (Ok((stream, _)), Ok(place)) => {
                let (routes, tasks_of_it) = (routes.clone(), tasks.clone());
                drop(tasks.spawn(async move {
                    // What goes wrong is a stranger's doing and no event; nor is its end.
                    drop(timeout(limits.whole, answer(stream, routes, limits, tasks_of_it)).await);
                    drop(place);
                }));
            }
            (Ok(_), Err(_full)) => metrics.connection_refused(),
            (Err(error), _) => {
                tracing::debug!(%error, "cannot accept connections; trying again");
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Answers what is asked over one connection, until its client or the node ends it.
async fn answer(stream: TcpStream, routes: Router, limits: Limits, tasks: TaskGroup) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header);
    let stream = TokioIo::new(Patient::new(stream, limits.unread));
    let mut connection = pin!(builder.serve_connection(stream, TowerToHyperService::new(routes)));
    tokio::select! {
        ended = connection.as_mut() => return drop(ended),
        () = tasks.stopping() => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}
