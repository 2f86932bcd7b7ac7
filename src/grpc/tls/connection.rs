//! A connection after its handshake, as the gRPC server takes it.
//!
//! Writes are gathered: what is to leave first lets every task that is ready run, because requests
//! are answered in groups, and their answers then leave in one TLS record and one packet instead of
//! one each. Where nothing else is ready, that costs one more poll. They are gathered here and not
//! left in HTTP/2's own buffer, because that flushes before and after each answer above some size
//! (256 bytes where writes are vectored, which ours are not therefore).
//!
//! Must not know how it was accepted.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::patience::Patient;
use super::places::Place;
use super::trust::PeerCertificate;
use crate::types::wipe;

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
    gathered: Gathered,
    _place: Place,
}

/// Bytes that are gathered at most: as many as one TLS record carries.
const RECORD_BYTES: usize = 16_384;

/// What is to leave. Answers carry secrets, so that it is wiped when it is gone.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Bytes of it that are gone.
    gone: usize,
    turn: Turn,
}

impl Gathered {
    /// Leaves nothing, and no room: most connections are idle most of the time.
    fn clear(&mut self) {
        wipe(&mut self.bytes);
        self.bytes = Vec::new();
        (self.gone, self.turn) = (0, Turn::Open);
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// Whether what is ready had its turn since there was something to leave.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing was said to leave.
    #[default]
    Open,
    /// It has its turn now: this task is woken when that is over.
    Waits,
    /// It had it.
    Over,
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
        Self { stream, peer, silence, gathered: Gathered::default(), _place: place }
    }

    /// Hands what was gathered on.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Gathered { bytes, gone, .. } = &mut self.gathered;
        while let Some(left) = bytes.get(*gone..).filter(|left| !left.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *gone = gone.saturating_add(written);
        }
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }

    /// Hands what was gathered on, and with it what makes a whole record of it: nothing would be gained
    /// by a copy of that. Tells how much of it went.
    fn poll_record(&mut self, cx: &mut Context<'_>, rest: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let Gathered { bytes, gone, .. } = &mut self.gathered;
            let left = bytes.get(*gone..).unwrap_or_default();
            let (before, both) = (left.len(), [IoSlice::new(left), IoSlice::new(rest)]);
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let Some(of_rest) = written.checked_sub(before) else {
                *gone = gone.saturating_add(written);
                continue;
            };
            self.gathered.clear();
            if of_rest > 0 {
                return Poll::Ready(Ok(of_rest));
            }
        }
    }
}

impl Drop for Connection {
    /// What was said to leave goes, also where nobody looks at the connection again.
    fn drop(&mut self) {
        if !self.gathered.bytes.is_empty() {
            self.stream.get_mut().0.hurry();
            // What the socket has no room for is lost, as whatever else was not read by now.
            let _sent = self.poll_drain(&mut Context::from_waker(Waker::noop()));
        }
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
        // A connection reads before it writes, each time that it is woken.
        if self.gathered.turn == Turn::Waits {
            self.gathered.turn = Turn::Over;
        }
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
        let bytes = &mut self.gathered.bytes;
        let room = RECORD_BYTES.saturating_sub(bytes.len());
        if let Some(rest) = buf.get(..room) {
            return self.poll_record(cx, rest);
        }
        if bytes.is_empty() {
            // At once, so that nothing is moved and left behind.
            bytes.reserve_exact(RECORD_BYTES);
        }
        bytes.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gathered.bytes.is_empty() {
            match self.gathered.turn {
                Turn::Open => {
                    self.gathered.turn = Turn::Waits;
                    cx.waker().wake_by_ref();
                    return Poll::Ready(Ok(()));
                }
                Turn::Waits => return Poll::Ready(Ok(())),
                Turn::Over => ready!(self.poll_drain(cx))?,
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
