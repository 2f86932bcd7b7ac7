//! A socket whose peer has to read: what it leaves unread for too long ends the connection.
//!
//! It stands below TLS, because there every byte that goes is one that the peer made room for. A
//! timer exists only while a write is blocked.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A socket that waits so long for its peer to read, and no longer.
#[derive(Debug)]
pub struct Patient {
    stream: TcpStream,
    unread: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Takes a socket whose peer may leave unread for so long what is sent to it.
    #[must_use]
    pub const fn new(stream: TcpStream, unread: Duration) -> Self {
        Self { stream, unread, blocked: None }
    }

    /// Waits for nobody from now on, and needs no timer for that.
    pub(super) fn hurry(&mut self) {
        (self.unread, self.blocked) = (Duration::ZERO, None);
    }

    /// Answers what the socket did, or that it did nothing for too long.
    fn wait<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.blocked = None;
            return done;
        }
        let unread = self.unread;
        if unread.is_zero() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let ends = self.blocked.get_or_insert_with(|| Box::pin(sleep(unread)));
        ends.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wait(cx, done)
    }

    // A socket keeps nothing back and its end goes at once: neither waits for the peer.

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wait(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
