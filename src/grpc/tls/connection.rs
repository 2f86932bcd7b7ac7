//! A connection after its handshake, as the gRPC server takes it.
//!
//! Writes are gathered: one that could go at once first lets every task that is ready run, because
//! requests are answered in groups, and their answers then leave in one TLS record and one packet
//! instead of one each. Where nothing else is ready, that costs one more poll.
//!
//! Must not know how it was accepted.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::patience::Patient;
use super::places::Place;
use super::trust::PeerCertificate;

/// Who is at the other end; every request of the connection carries it as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The certificate, where one was shown; its chain was verified.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What an HTTP/2 client says first.
///
/// Source: RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<Patient>,
    peer: PeerInfo,
    silence: Option<Silence>,
    /// Whether what is ready had its turn since this last began to write.
    gathered: bool,
    _place: Place,
}

/// A client that has not said yet what every client says first. Once it has, HTTP/2 itself asks
/// whether it is still there.
#[derive(Debug)]
struct Silence {
    ends: Pin<Box<Sleep>>,
    said: usize,
}

impl Connection {
    /// Takes a stream; its client has so long to begin.
    pub(super) fn new(
        stream: TlsStream<Patient>,
        peer: PeerInfo,
        place: Place,
        silence: Duration,
    ) -> Self {
        let silence = Some(Silence { ends: Box::pin(sleep(silence)), said: 0 });
        Self { stream, peer, silence, gathered: false, _place: place }
    }

    /// Lets what is ready run before a write begins.
    fn gather(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.gathered {
            return Poll::Ready(());
        }
        self.gathered = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(silence) = &mut self.silence {
            let said = buf.filled().len().saturating_sub(before);
            silence.said = silence.said.saturating_add(said);
            if silence.said >= PREFACE_BYTES {
                self.silence = None;
            } else if silence.ends.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gather(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.gathered = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gather(cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
