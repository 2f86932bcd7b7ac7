//! Connections to what the operator named, and to nothing else (rule 17): the name is resolved here,
//! what it resolves to is looked at, and that very address is connected to. Nothing is followed
//! anywhere, and whatever answers is read to a bound.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Result};

/// Bytes that are read of one connection, handshakes included.
const READ_BYTES: usize = 256 * 1_024;

/// Whom the other end's certificate is to come from.
#[derive(Debug, Clone)]
pub enum Roots {
    /// The public authorities that are compiled in (Mozilla's).
    Public,
    /// Authorities of the operator's own, PEM.
    Own(Vec<u8>),
}

/// Where a connection leads, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Wire {
    host: String,
    port: u16,
    private: bool,
    tls: Arc<ClientConfig>,
}

impl Wire {
    /// Takes a host and what may be behind it. Where it is named by a loopback address, that is
    /// allowed; `private` allows what a name resolves to, too.
    ///
    /// # Errors
    /// [`Error::Precondition`] when there are no authorities among the roots.
    pub fn new(host: &str, port: u16, private: bool, roots: &Roots) -> Result<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let named = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = Arc::new(client_config(roots)?);
        Ok(Self { host, port, private: private || named, tls })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host and, unless it is the usual one, the port.
    pub(in crate::engines) fn authority(&self, usual: u16) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what a person can do about it.
    pub(in crate::engines) async fn connect(&self) -> Result<Bounded<TcpStream>> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|e| down("cannot be resolved", &e))?.collect();
        let allowed: Vec<_> =
            found.into_iter().filter(|address| may_reach(address.ip(), self.private)).collect();
        if allowed.is_empty() {
            return Err(Error::unavailable("the name leads to no address that is allowed"));
        }
        // One after the other, until one answers.
        let stream = TcpStream::connect(allowed.as_slice()).await;
        let stream = stream.map_err(|e| down("cannot be connected to", &e))?;
        Ok(Bounded { inner: stream, left: READ_BYTES })
    }

    /// Secures a connection: the certificate has to be of the host, by one of the roots.
    ///
    /// # Errors
    /// As [`Wire::connect`].
    pub(in crate::engines) async fn secure<S>(&self, stream: S) -> Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(self.host.clone()).map_err(Error::internal)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(name, stream).await.map_err(|e| down("is not who it should be", &e))
    }
}

fn down(what: &str, error: &io::Error) -> Error {
    Error::unavailable(format!("the other end {what} ({})", error.kind()))
}

fn client_config(roots: &Roots) -> Result<ClientConfig> {
    let mut store = rustls::RootCertStore::empty();
    match roots {
        Roots::Public => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Own(pem) => {
            let unfit = || Error::precondition("ca_file: there is no certificate of a CA in it");
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_malformed| unfit())?;
                store.add(certificate).map_err(|_unusable| unfit())?;
            }
            if store.is_empty() {
                return Err(unfit());
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

/// Tells whether an address may be connected to. Link-local ones never: that is where clouds answer
/// with credentials to whoever asks.
fn may_reach(address: IpAddr, private: bool) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => may_reach_v4(v4, private),
        IpAddr::V6(v6) => may_reach_v6(v6, private),
    }
}

/// Source: the IANA registry of special-purpose IPv4 addresses.
fn may_reach_v4(address: Ipv4Addr, private: bool) -> bool {
    let [a, b, c, _] = address.octets();
    let never = a == 0 || a >= 224 || address.is_link_local();
    let inside = address.is_private()
        || address.is_loopback()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !never && (private || !inside)
}

/// Source: the IANA registry of special-purpose IPv6 addresses.
fn may_reach_v6(address: Ipv6Addr, private: bool) -> bool {
    let [first, second, third, _, _, _, high, low] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        may_reach_v4(Ipv4Addr::new(a, b, c, d), private)
    };
    if address.is_loopback() {
        return private;
    }
    match first {
        // A translator's of one network's own, which may stand for anything (RFC 8215).
        0x64 if second == 0xff9b && third == 1 => false,
        // A translator's: what counts is the address behind it (RFC 6052; RFC 3056).
        0x64 if second == 0xff9b => v4(high, low),
        0x2002 => v4(second, third),
        // Of those with 0 the unspecified address and IPv4 in its old dress.
        0 | 0xfe80..=0xfebf | 0xff00..=0xffff => false,
        0xfc00..=0xfdff | 0xfec0..=0xfeff => private,
        _ => true,
    }
}

/// A connection of which no more than a bound is read.
#[derive(Debug)]
pub(in crate::engines) struct Bounded<S> {
    inner: S,
    left: usize,
}

impl Bounded<TcpStream> {
    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.left = self.left.saturating_sub(read);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_reached_where_that_is_allowed_and_link_local_ones_never() {
        let table: &[(&str, bool, bool)] = &[
            ("93.184.216.34", true, true),
            ("2606:2800:220:1::1", true, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("192.168.1.1", false, true),
            ("127.0.0.1", false, true),
            ("100.64.0.1", false, true),
            ("198.18.0.1", false, true),
            ("::1", false, true),
            ("fd00::1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("64:ff9b::10.0.0.1", false, true),
            ("2002:a00:1::", false, true),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::169.254.169.254", false, false),
            ("64:ff9b:1::93.184.216.34", false, false),
            ("2002:a9fe:a9fe::", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("::10.0.0.1", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("fe80::1", false, false),
            ("ff02::1", false, false),
        ];
        for (text, public, private) in table {
            let address = text.parse().unwrap();
            assert_eq!(may_reach(address, false), *public, "{text}");
            assert_eq!(may_reach(address, true), *private, "{text} where it is allowed");
        }
    }

    #[test]
    fn a_file_without_a_ca_is_refused() {
        for bad in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let roots = Roots::Own(bad.as_bytes().to_vec());
            assert!(Wire::new("hooks.example.org", 443, false, &roots).is_err(), "{bad:?}");
        }
    }
}
