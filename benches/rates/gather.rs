//! Connections whose answers leave gathered, as the vault's do: what is ready runs first, then all that
//! it had to say leaves in one record and one packet.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// As many bytes as one TLS record carries.
const RECORD: usize = 16_384;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Turn {
    #[default]
    Open,
    Waits,
    Over,
}

pub(crate) struct Gathering<S = TlsStream<TcpStream>> {
    stream: S,
    bytes: Vec<u8>,
    gone: usize,
    turn: Turn,
}

/// Accepts clients whose certificates lead to a root.
pub(crate) fn accept(
    listener: TcpListener,
    (certificate, key): (&str, &str),
    root: &str,
) -> ReceiverStream<io::Result<Gathering>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(clients);
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sender, accepted) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let stream = acceptor.accept(stream).await;
            if sender.send(stream.map(Gathering::new)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(accepted)
}

impl<S> Gathering<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, bytes: Vec::new(), gone: 0, turn: Turn::Open }
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.bytes.len() {
            let left = &self.bytes[self.gone..];
            self.gone += ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
        }
        self.bytes.clear();
        (self.gone, self.turn) = (0, Turn::Open);
        Poll::Ready(Ok(()))
    }
}

impl Connected for Gathering {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn == Turn::Waits {
            self.turn = Turn::Over;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= RECORD {
            ready!(self.poll_drain(cx))?;
        }
        let taken = buf.len().min(RECORD - self.bytes.len());
        self.bytes.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.bytes.is_empty() {
            match self.turn {
                Turn::Open => {
                    self.turn = Turn::Waits;
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
