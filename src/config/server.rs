//! `[server]`: listeners, TLS, directories, shutdown.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ConfigError;
use super::reader::{Document, Section};

pub(super) const SECTION: &str = "server";
pub(super) const KEYS: &[&str] = &[
    "grpc_listen",
    "http_listen",
    "control_socket",
    "tls_cert_file",
    "tls_key_file",
    "server_names",
    "data_dir",
    "drain_timeout_s",
];

/// Longest path of a Unix socket in bytes, its closing NUL not counted: unix(7).
const SOCKET_PATH_BYTES: usize = 107;

/// Where the server listens and lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// gRPC over mTLS.
    pub grpc_listen: SocketAddr,
    /// Metrics and health, without TLS.
    pub http_listen: SocketAddr,
    /// The Unix socket for `status` and `unseal`, made with mode 0600.
    pub control_socket: PathBuf,
    /// The server's own certificate; without it our CA issues one.
    pub tls: Option<TlsFiles>,
    /// DNS names and IP addresses under which clients reach this server.
    pub server_names: Vec<String>,
    /// What the server keeps on this machine.
    pub data_dir: PathBuf,
    /// How long requests that run may take to end once the server is told to stop.
    pub drain_timeout: Duration,
}

/// A certificate chain and its key, both PEM; read again on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// The key, PKCS#8.
    pub key_file: PathBuf,
}

impl Server {
    /// Tells whether nobody outside this machine can connect, which `dev` demands.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.grpc_listen.ip().is_loopback() && self.http_listen.ip().is_loopback()
    }
}

pub(super) fn read(document: &Document<'_>) -> Result<Server, ConfigError> {
    let section = document.section(SECTION);
    let listen = |key, default_port: u16| -> Result<SocketAddr, ConfigError> {
        let address =
            section.parsed(key, "an address and port like \"127.0.0.1:7200\"", |text| {
                text.parse().ok()
            })?;
        Ok(address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], default_port))))
    };
    let data_dir = section.path("data_dir")?.unwrap_or_else(|| "/var/lib/strongroom".into());
    let control_socket =
        section.path("control_socket")?.unwrap_or_else(|| data_dir.join("control.sock"));
    if !fits_socket(&control_socket) {
        let advice = format!("longer than {SOCKET_PATH_BYTES} bytes; choose a shorter path");
        return Err(section.fault("control_socket", advice));
    }
    let expected = "names under which clients reach the server: DNS names or IP addresses";
    let server_names = section.list("server_names", expected, 32, is_host)?;
    Ok(Server {
        grpc_listen: listen("grpc_listen", 7200)?,
        http_listen: listen("http_listen", 7201)?,
        control_socket,
        tls: tls(&section)?,
        server_names: server_names
            .unwrap_or_else(|| vec!["localhost".to_owned(), "127.0.0.1".to_owned()]),
        data_dir,
        drain_timeout: Duration::from_secs(section.integer("drain_timeout_s", 1..=600, 30)?),
    })
}

fn tls(section: &Section<'_>) -> Result<Option<TlsFiles>, ConfigError> {
    match (section.path("tls_cert_file")?, section.path("tls_key_file")?) {
        (Some(cert_file), Some(key_file)) => Ok(Some(TlsFiles { cert_file, key_file })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(section.missing("tls_key_file", "tls_cert_file needs its key")),
        (None, Some(_)) => {
            Err(section.missing("tls_cert_file", "tls_key_file needs its certificate"))
        }
    }
}

/// Tells whether a path fits the address of a Unix socket.
pub(super) fn fits_socket(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_BYTES
}

/// Tells whether text is an IP address or a lowercase DNS name without a wildcard (RFC 1123,
/// section 2.1).
pub(super) fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(is_label))
}

fn is_label(label: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}
