//! From the configuration to the parts of a node.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::files;
use super::listener::ListenerTls;
use super::node::Ingredients;
use super::sinks;
use crate::config::{Config, Endpoint, Postgres, Store, StoreTls, TokenName};
use crate::engines::pki::{LoginTtl, SubjectName};
use crate::engines::tokens::TokenLimits;
use crate::error::{Error, Result};
use crate::hsm::{HsmError, Pkcs11Config, Pkcs11Hsm, TokenSelector};
use crate::store::Location;
use crate::types::{Entropy as _, SystemClock, SystemEntropy};
use crate::{grpc, hsm};

/// Handshakes side by side.
const HANDSHAKES: usize = 1_024;

/// Opens the PKCS#11 module. Blocks while it initialises.
///
/// # Errors
/// [`Error::Precondition`] with what is wrong with module or token.
pub(super) fn token(config: &Config) -> Result<Arc<Pkcs11Hsm>> {
    let token = match &config.hsm.token {
        TokenName::Label(label) => TokenSelector::Label(label.clone()),
        TokenName::Serial(serial) => TokenSelector::Serial(serial.clone()),
    };
    token_at(&Pkcs11Config { module: config.hsm.module.clone(), token })
}

/// The same, of any token.
///
/// # Errors
/// As [`token`].
pub(super) fn token_at(at: &Pkcs11Config) -> Result<Arc<Pkcs11Hsm>> {
    require_roots(&at.module)?;
    Pkcs11Hsm::open(at).map(Arc::new).map_err(|error| explain(&error))
}

/// Refuses a module that is not root's: it is loaded as code, and who runs the vault must not be
/// able to change what the vault is.
fn require_roots(module: &Path) -> Result<()> {
    match std::fs::metadata(module) {
        Ok(about) if about.uid() != 0 => Err(Error::precondition(format!(
            "module {}: must belong to root, because it is loaded as code",
            module.display()
        ))),
        // What cannot be looked at is not loaded either, and says why.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Tells an operator what the token said: on a terminal of theirs, the cause is theirs to know.
pub(super) fn explain(error: &HsmError) -> Error {
    Error::precondition(error.to_string())
}

/// Puts the parts of a node together; makes the data directory.
///
/// # Errors
/// [`Error::Precondition`] with what is wrong with the configuration or the directory.
pub(super) fn ingredients(config: &Config, token: Arc<Pkcs11Hsm>) -> Result<Ingredients> {
    let server = &config.server;
    files::private_dir(&server.data_dir)?;
    if let Store::Sqlite(sqlite) = &config.store {
        files::require_writable_store(&sqlite.path)?;
    }
    let tls = match &server.tls {
        Some(tls) => {
            ListenerTls::Files { cert_file: tls.cert_file.clone(), key_file: tls.key_file.clone() }
        }
        None => ListenerTls::Issued { kept_in: Some(server.data_dir.clone()) },
    };
    Ok(Ingredients {
        node: node_name(&server.data_dir)?,
        location: location(&config.store)?,
        hsm: token as Arc<dyn hsm::Hsm>,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        grpc_listen: server.grpc_listen,
        http_listen: Some(server.http_listen),
        tls,
        server_names: server.server_names.iter().map(|name| host(name)).collect::<Result<_>>()?,
        checkpoint: config.record.checkpoint_interval,
        limits: limits(config),
        crl_url: config.pki.crl_url.clone(),
        sinks: sinks::sinks(config)?,
        shredded: Some(shredded(config)),
    })
}

/// The file of this node that lists who was shredded.
pub(super) fn shredded(config: &Config) -> PathBuf {
    config.server.data_dir.join("shredded")
}

/// Says where the state is, password included.
///
/// # Errors
/// [`Error::Precondition`] when the password cannot be read.
pub(super) fn location(store: &Store) -> Result<Location> {
    Ok(match store {
        Store::Sqlite(sqlite) => Location::Sqlite {
            path: sqlite.path.clone(),
            max_mib: u64::from(sqlite.max_size_mib),
            reserve_mib: u64::from(sqlite.reserve_mib),
        },
        Store::Postgres(postgres) => Location::Postgres {
            url: url(postgres)?.into(),
            lanes: usize::try_from(postgres.lanes).map_err(Error::internal)?,
        },
    })
}

fn url(postgres: &Postgres) -> Result<Url> {
    let unfit = |()| Error::precondition("store.url: it cannot be written as a URL");
    let mut url = Url::parse("postgres://localhost").map_err(Error::internal)?;
    url.set_path(&postgres.database);
    match &postgres.endpoint {
        Endpoint::Tcp { host, port, tls } => {
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            url.set_host(Some(&bracketed)).map_err(|_host| unfit(()))?;
            url.set_port(Some(*port)).map_err(unfit)?;
            let mode = match tls {
                StoreTls::VerifyFull { .. } => "verify-full",
                StoreTls::Off => "disable",
            };
            url.query_pairs_mut().append_pair("sslmode", mode);
            if let StoreTls::VerifyFull { ca_file: Some(ca_file) } = tls {
                let path = ca_file.to_str().ok_or_else(|| unfit(()))?;
                url.query_pairs_mut().append_pair("sslrootcert", path);
            }
        }
        Endpoint::Socket { dir, port } => {
            let dir = dir.to_str().ok_or_else(|| unfit(()))?;
            url.query_pairs_mut().append_pair("host", dir).append_pair("port", &port.to_string());
        }
    }
    url.set_username(&postgres.user).map_err(unfit)?;
    if let Some(source) = &postgres.password {
        let password = source.read()?;
        let text = std::str::from_utf8(password.expose())
            .map_err(|_binary| Error::precondition("the store's password is not UTF-8"))?;
        url.set_password(Some(text)).map_err(unfit)?;
    }
    Ok(url)
}

fn host(name: &str) -> Result<SubjectName> {
    let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
    format!("{kind}:{name}").parse()
}

fn limits(config: &Config) -> grpc::Settings {
    let limits = &config.limits;
    let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    grpc::Settings {
        message_bytes: size(limits.message_max_kib).saturating_mul(1_024),
        header_bytes: limits.header_max_kib.saturating_mul(1_024),
        streams: limits.streams_per_connection,
        in_flight: size(limits.requests_in_flight_max),
        deadline: limits.request_deadline,
        connections: grpc::tls::Limits {
            handshake: limits.handshake_timeout,
            handshakes: HANDSHAKES,
            connections: size(limits.connections_max),
            unread: limits.unread_timeout,
        },
        ping: limits.ping_interval,
        pong: limits.ping_timeout,
        login: LoginTtl {
            usual: config.login.certificate_ttl,
            most: config.login.certificate_max_ttl,
        },
        certificates: limits.certificates_per_identity_max,
        administrators: config.ceremonies.administrators,
        wrapped_bytes: i64::from(limits.wrapped_per_identity_max_mib) * 1_024 * 1_024,
        tokens: TokenLimits { live: limits.tokens_per_identity_max, ..TokenLimits::default() },
    }
}

/// Names this node: once, at random, kept in its data directory.
fn node_name(data_dir: &Path) -> Result<String> {
    let path = data_dir.join("node");
    if let Ok(name) = std::fs::read_to_string(&path) {
        let name = name.trim();
        if (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(name.to_owned());
        }
    }
    let mut random = [0; 10];
    SystemEntropy.fill(&mut random)?;
    let name = data_encoding::HEXLOWER.encode(&random);
    files::replace(&path, name.as_bytes(), 0o600)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_store_in_the_configuration_becomes_its_url_and_debug_shows_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        files::write_new(&password, b"p@ss/w:rd\n", 0o600).unwrap();
        for (url, expected) in [
            (
                "postgres://vault@db.example.org/state",
                "postgres://vault:p%40ss%2Fw%3Ard@db.example.org:5432/state?sslmode=verify-full",
            ),
            (
                "postgres://vault@127.0.0.1:6000/state?sslmode=disable",
                "postgres://vault:p%40ss%2Fw%3Ard@127.0.0.1:6000/state?sslmode=disable",
            ),
            (
                "postgres:///state?host=/run/postgresql&user=vault",
                "postgres://vault:p%40ss%2Fw%3Ard@localhost/state?host=%2Frun%2Fpostgresql&port=5432",
            ),
        ] {
            let text = format!(
                "[vault]\ntrust_domain = \"v.example.org\"\nname = \"v\"\n[hsm]\nmodule = \"/m\"\n\
                 token_label = \"t\"\n[store]\nurl = \"{url}\"\npassword_file = \"{}\"\n",
                password.display()
            );
            let config = Config::parse(Path::new("c"), &text, &Environment::default()).unwrap();
            let location = location(&config.store).unwrap();
            assert!(!format!("{location:?}").contains("w%3Ard"));
            let Location::Postgres { url, .. } = location else { panic!("{url}") };
            assert_eq!(url, expected);
        }
    }

    #[test]
    fn a_node_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let name = node_name(dir.path()).unwrap();
        assert_eq!(node_name(dir.path()).unwrap(), name);
        assert_eq!(name.len(), 20);
    }
}
