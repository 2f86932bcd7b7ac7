//! Accepting: bounded handshakes side by side, so that slow strangers starve nobody.
//!
//! Must not know what is asked over a connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Connection, PeerInfo};
use super::patience::Patient;
use super::places::Places;
use super::trust::PeerCertificate;
use super::{HTTP_2, Tls};
use crate::telemetry::Metrics;
use crate::types::TaskGroup;

/// Finished handshakes that may wait for the server to take them.
const READY: usize = 64;
/// How long accepting rests when the system is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What strangers may take up before they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Handshakes side by side; one more ends the oldest of them.
    pub handshakes: usize,
    /// Connections at once; one more is closed. A quarter may be without a client certificate, so
    /// that strangers leave room for those who are known; and an eighth of either room, or 16, may
    /// be of one certificate, or from one network.
    pub connections: usize,
    /// How long a client may leave unread what is sent to it.
    pub unread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 1_024,
            connections: 4_096,
            unread: Duration::from_secs(30),
        }
    }
}

/// Connections whose handshakes are done, for `serve_with_incoming_shutdown`.
#[derive(Debug)]
pub struct Connections(mpsc::Receiver<Connection>);

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// Accepts on a listener until the tasks are told to stop or the connections are dropped.
#[must_use]
pub fn listen(
    listener: TcpListener,
    tls: Arc<Tls>,
    limits: Limits,
    metrics: Arc<Metrics>,
    tasks: &TaskGroup,
) -> Connections {
    let (ready, connections) = mpsc::channel(READY);
    // Its end is what shutdown waits for; nobody else does.
    let places = Arc::new(Places::new(limits.connections, metrics));
    drop(tasks.spawn(accept(listener, tls, limits, places, ready, tasks.clone())));
    Connections(connections)
}

async fn accept(
    listener: TcpListener,
    tls: Arc<Tls>,
    limits: Limits,
    places: Arc<Places>,
    ready: mpsc::Sender<Connection>,
    tasks: TaskGroup,
) {
    let mut pending = Pending { most: limits.handshakes.max(1), handshakes: VecDeque::new() };
    loop {
        let accepted = tokio::select! {
            () = tasks.stopping() => break,
            () = ready.closed() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // Closed before anything is computed for it.
            Ok(_) if places.is_full() => places.refuse(),
            Ok((stream, address)) => {
                let handshake = handshake(stream, address, Arc::clone(&tls), limits);
                let (ready, places) = (ready.clone(), Arc::clone(&places));
                let task = tasks.spawn(async move {
                    let Some((stream, peer)) = handshake.await else { return };
                    match places.take(&peer) {
                        Some(place) => {
                            let connection = Connection::new(stream, peer, place, limits.handshake);
                            // It fails when the server takes no more; it is dropped then.
                            drop(ready.send(connection).await);
                        }
                        None => places.refuse(),
                    }
                });
                pending.push(task.abort_handle());
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    pending.end();
}

/// Errors that a client causes by going away before it is accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

/// Handshakes under way, oldest first.
struct Pending {
    most: usize,
    handshakes: VecDeque<AbortHandle>,
}

impl Pending {
    /// Takes one more. Where there are too many, the oldest ends: an honest handshake takes a few
    /// milliseconds, so the oldest of a thousand is a stranger's.
    fn push(&mut self, handshake: AbortHandle) {
        while self.handshakes.front().is_some_and(AbortHandle::is_finished) {
            self.handshakes.pop_front();
        }
        if self.handshakes.len() >= self.most {
            self.handshakes.retain(|handshake| !handshake.is_finished());
        }
        if self.handshakes.len() >= self.most
            && let Some(oldest) = self.handshakes.pop_front()
        {
            oldest.abort();
        }
        self.handshakes.push_back(handshake);
    }

    fn end(self) {
        for handshake in self.handshakes {
            handshake.abort();
        }
    }
}

/// Runs one handshake to its end. What goes wrong in it is a stranger's doing and no event.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<Tls>,
    limits: Limits,
) -> Option<(TlsStream<Patient>, PeerInfo)> {
    let refused = |why: &str| tracing::debug!(%address, why, "no TLS connection");
    if let Err(error) = stream.set_nodelay(true) {
        refused(&error.to_string());
        return None;
    }
    let stream = Patient::new(stream, limits.unread);
    let shaken = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = match timeout(limits.handshake, shaken).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            refused(&error.to_string());
            return None;
        }
        Err(_elapsed) => {
            refused("the handshake took too long");
            return None;
        }
    };
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(HTTP_2) {
        refused("the client does not speak HTTP/2");
        return None;
    }
    let certificate = match session.peer_certificates().map(PeerCertificate::of_chain) {
        None => None,
        Some(Ok(certificate)) => Some(Arc::new(certificate)),
        Some(Err(error)) => {
            refused(&error.to_string());
            return None;
        }
    };
    Some((stream, PeerInfo { address, certificate }))
}
