//! `[store]`: embedded SQLite, or a shared PostgreSQL.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::reader::{Document, Section, absolute};
use super::server::is_host;
use super::{ConfigError, SecretSource, secret};

pub(super) const SECTION: &str = "store";
pub(super) const KEYS: &[&str] = &[
    "url",
    "sqlite_max_size_mib",
    "sqlite_reserve_mib",
    "password_file",
    "password_fd",
    "password_credential",
    "postgres_lanes",
    "postgres_ca_file",
];

const SQLITE_KEYS: &[&str] = &["sqlite_max_size_mib", "sqlite_reserve_mib"];
const POSTGRES_KEYS: &[&str] =
    &["password_file", "password_fd", "password_credential", "postgres_lanes", "postgres_ca_file"];

/// Where the vault's state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// One file on this machine.
    Sqlite(Sqlite),
    /// A database that several nodes may share.
    Postgres(Postgres),
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sqlite {
    /// The database file.
    pub path: PathBuf,
    /// Size at which it is full, in MiB.
    pub max_size_mib: u32,
    /// What of it only suspend, revoke and seal may use, in MiB; less than `max_size_mib`.
    pub reserve_mib: u32,
}

/// The shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// How the server is reached.
    pub endpoint: Endpoint,
    /// Who we are there.
    pub user: String,
    /// Which database.
    pub database: String,
    /// Where the password comes from; none where the server asks for none.
    pub password: Option<SecretSource>,
    /// Write connections, each with its own chain of batches.
    pub lanes: u32,
}

/// How a PostgreSQL server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Over TCP.
    Tcp {
        /// A DNS name or an IP address.
        host: String,
        /// 5432 unless the URL says otherwise.
        port: u16,
        /// On and verified, unless the URL turns it off by name.
        tls: StoreTls,
    },
    /// Over a Unix socket.
    Socket {
        /// The directory that holds `.s.PGSQL.<port>`.
        dir: PathBuf,
        /// 5432 unless the URL says otherwise.
        port: u16,
    },
}

/// TLS to the store: verified or off, nothing in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreTls {
    /// Verified by chain and name, against the public authorities that are compiled in, and this
    /// CA beside them.
    VerifyFull {
        /// PEM file of CA certificates.
        ca_file: Option<PathBuf>,
    },
    /// Off: `?sslmode=disable`.
    Off,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(sqlite) => write!(f, "sqlite://{}", sqlite.path.display()),
            Self::Postgres(postgres) => match &postgres.endpoint {
                Endpoint::Tcp { host, port, .. } => {
                    write!(f, "postgres://{host}:{port}/{}", postgres.database)
                }
                Endpoint::Socket { dir, .. } => {
                    write!(f, "postgres:///{}?host={}", postgres.database, dir.display())
                }
            },
        }
    }
}

pub(super) fn read(document: &Document<'_>, data_dir: &Path) -> Result<Store, ConfigError> {
    let section = document.section(SECTION);
    let expected = "sqlite:///absolute/path or postgres://USER@HOST[:PORT]/DATABASE, without a \
                    password";
    let raw = section.parsed("url", expected, |text| Some(text.to_owned()))?;
    let (store, foreign) = match raw {
        None => (sqlite(&section, data_dir.join("vault.db"))?, POSTGRES_KEYS),
        Some(text) => {
            if let Some(path) = text.strip_prefix("sqlite://") {
                let path = absolute(path).filter(|_| !path.contains(['?', '#']));
                let path =
                    path.ok_or_else(|| section.fault("url", format!("must be {expected}")))?;
                (sqlite(&section, path)?, POSTGRES_KEYS)
            } else {
                (postgres(&section, &text, expected)?, SQLITE_KEYS)
            }
        }
    };
    match foreign.iter().find(|key| section.has(key)) {
        Some(key) => {
            Err(section.fault(key, "does not go with the store that `url` names; remove it"))
        }
        None => Ok(store),
    }
}

fn sqlite(section: &Section<'_>, path: PathBuf) -> Result<Store, ConfigError> {
    let max_size_mib = section.small("sqlite_max_size_mib", 16..=1_048_576, 4096)?;
    let reserve_mib = section.small("sqlite_reserve_mib", 1..=65_536, 64.min(max_size_mib / 4))?;
    if reserve_mib.saturating_mul(2) > max_size_mib {
        let advice = "more than half of sqlite_max_size_mib; make it smaller";
        return Err(section.fault("sqlite_reserve_mib", advice));
    }
    Ok(Store::Sqlite(Sqlite { path, max_size_mib, reserve_mib }))
}

fn postgres(section: &Section<'_>, text: &str, expected: &str) -> Result<Store, ConfigError> {
    let fault = |what: &str| section.fault("url", what.to_owned());
    let no_url = || section.fault("url", format!("must be {expected}"));
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    let url = url.ok_or_else(no_url)?;
    if url.password().is_some() {
        return Err(fault("carries a password; change it, and use password_file instead"));
    }
    let name = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        ((1..=63).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    };
    let mut parameters = parameters(section, &url)?;
    let user = match (url.username(), parameters.remove("user")) {
        ("", user) => user.unwrap_or_default(),
        (_, Some(_)) => return Err(fault("names a user twice; keep one")),
        (user, None) => user.to_owned(),
    };
    let user = name(&user).ok_or_else(|| fault("names no user of a-z, 0-9, . _ -"))?;
    let database = url.path().strip_prefix('/').and_then(name);
    let database = database.ok_or_else(|| fault("names no database of a-z, 0-9, . _ -"))?;
    Ok(Store::Postgres(Postgres {
        endpoint: endpoint(section, &url, parameters)?,
        user,
        database,
        password: secret::read(section, "password")?,
        lanes: section.small("postgres_lanes", 1..=64, 4)?,
    }))
}

/// Takes a URL's parameters, each known and there once.
fn parameters(
    section: &Section<'_>,
    url: &Url,
) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let mut found = BTreeMap::new();
    for (key, value) in url.query_pairs() {
        let known = ["host", "user", "sslmode"].into_iter().find(|known| *known == key);
        let Some(known) = known else {
            let advice = "takes only the parameters host, user and sslmode; remove others";
            return Err(section.fault("url", advice));
        };
        if found.insert(known, value.into_owned()).is_some() {
            return Err(section.fault("url", "says a parameter twice; keep one"));
        }
    }
    Ok(found)
}

fn endpoint(
    section: &Section<'_>,
    url: &Url,
    mut parameters: BTreeMap<&'static str, String>,
) -> Result<Endpoint, ConfigError> {
    let fault = |what: &str| section.fault("url", what.to_owned());
    let port = url.port().unwrap_or(5432);
    let ca_file = section.path("postgres_ca_file")?;
    let tls = match parameters.remove("sslmode").as_deref() {
        None | Some("verify-full") => StoreTls::VerifyFull { ca_file },
        Some("disable") if ca_file.is_none() => StoreTls::Off,
        Some("disable") => {
            return Err(section.fault("postgres_ca_file", "sslmode=disable uses none; remove it"));
        }
        Some(_) => return Err(fault("sslmode must be verify-full or disable: others verify less")),
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match parameters.remove("host") {
        Some(_) if !host.is_empty() => Err(fault("names a host twice; keep one")),
        Some(dir) => absolute(&dir)
            .map(|dir| Endpoint::Socket { dir, port })
            .ok_or_else(|| fault("the parameter host must be the absolute path of a directory")),
        None if is_host(host) => Ok(Endpoint::Tcp { host: host.to_owned(), port, tls }),
        None => Err(fault("names no host, neither a DNS name in lowercase nor an IP address")),
    }
}
