//! One TOML file to typed values, one file per section; the only reader of the environment.
//!
//! Past [`Config::load`] a value is valid by its type. Unknown sections and keys are refused, and
//! secrets are only ever named (a file, a file descriptor, a systemd credential), never written
//! into the file. Must not know how the values are used. Every key is explained in
//! `deploy/strongroom.toml`, which the tests load.

mod ceremonies;
mod dev;
mod environment;
mod fault;
mod hsm;
mod limits;
mod log;
mod login;
mod mail;
mod notices;
mod pki;
mod reader;
mod record;
mod secret;
mod server;
mod store;
mod telemetry;
mod vault;
mod webhook;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub use ceremonies::Ceremonies;
pub use environment::{Environment, lookup as variable, of_postgres};
pub use fault::ConfigError;
pub use hsm::{Hsm, TokenName};
pub use limits::Limits;
pub use log::{Log, LogFormat, LogLevel};
pub use login::Login;
pub use mail::{Mail, MailTls};
pub use notices::Notices;
pub use pki::Pki;
pub use record::Record;
pub use secret::{MAX_SECRET_BYTES, SecretSource};
pub use server::{Server, TlsFiles};
pub use store::{Endpoint, Postgres, Sqlite, Store, StoreTls};
pub use telemetry::Telemetry;
pub use vault::Vault;
pub use webhook::Webhook;

use reader::Document;

/// Largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Every section with every key it takes, in the order of the sample.
pub const SECTIONS: &[(&str, &[&str])] = &[
    (server::SECTION, server::KEYS),
    (vault::SECTION, vault::KEYS),
    (hsm::SECTION, hsm::KEYS),
    (store::SECTION, store::KEYS),
    (login::SECTION, login::KEYS),
    (pki::SECTION, pki::KEYS),
    (limits::SECTION, limits::KEYS),
    (ceremonies::SECTION, ceremonies::KEYS),
    (notices::SECTION, notices::KEYS),
    (webhook::SECTION, webhook::KEYS),
    (mail::SECTION, mail::KEYS),
    (record::SECTION, record::KEYS),
    (log::SECTION, log::KEYS),
    (telemetry::SECTION, telemetry::KEYS),
];

/// What the operator configured: one value per section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Listeners, TLS, directories.
    pub server: Server,
    /// What this vault is called.
    pub vault: Vault,
    /// The PKCS#11 module, the token and where its PIN comes from.
    pub hsm: Hsm,
    /// Where the vault's state lives.
    pub store: Store,
    /// Lifetimes of login certificates.
    pub login: Login,
    /// What certificates say about the vault.
    pub pki: Pki,
    /// Bounds on what a caller may send.
    pub limits: Limits,
    /// How many administrators do together what nobody does alone.
    pub ceremonies: Ceremonies,
    /// How notices are worded, and how long they are tried.
    pub notices: Notices,
    /// Where notices are posted to, if anywhere.
    pub webhook: Option<Webhook>,
    /// How notices are mailed, if at all.
    pub mail: Option<Mail>,
    /// The record's name and pace.
    pub record: Record,
    /// How the log is written.
    pub log: Log,
    /// Where traces go.
    pub telemetry: Telemetry,
}

impl Config {
    /// Reads and checks a configuration file. Secrets are not read yet.
    ///
    /// # Errors
    /// [`ConfigError`] with the file, the line, the key, what is wrong and what to do; also when
    /// anybody may write to the file, since it chooses code that the server loads.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fault = |what: String| ConfigError::of_file(path, what);
        let absolute = std::path::absolute(path).map_err(|e| fault(format!("no path: {e}")))?;
        let mut file = File::open(&absolute).map_err(|e| {
            fault(format!("cannot be opened ({e}); name a readable file with --config"))
        })?;
        let about = file.metadata().map_err(|e| fault(format!("cannot be examined ({e})")))?;
        if about.permissions().mode() & 0o002 != 0 {
            return Err(fault("anybody may write to it; run chmod o-w on it".into()));
        }
        let mut bytes = Vec::new();
        file.by_ref()
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| fault(format!("cannot be read ({e})")))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(fault(format!(
                "longer than {MAX_FILE_BYTES} bytes; is it the right file?"
            )));
        }
        let text = String::from_utf8(bytes)
            .map_err(|e| fault(format!("not UTF-8 ({e}); save it as UTF-8")))?;
        Self::parse(path, &text, &Environment::of_process())
    }

    /// Checks a configuration that was read already; `file` is for messages only.
    ///
    /// # Errors
    /// [`ConfigError`], as [`Config::load`].
    pub fn parse(file: &Path, text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let document = Document::parse(file, text, environment)?;
        let vault = vault::read(&document)?;
        let server = server::read(&document)?;
        let store = store::read(&document, &server.data_dir)?;
        Ok(Self {
            hsm: hsm::read(&document)?,
            login: login::read(&document)?,
            pki: pki::read(&document)?,
            limits: limits::read(&document)?,
            ceremonies: ceremonies::read(&document)?,
            notices: notices::read(&document)?,
            webhook: webhook::read(&document)?,
            mail: mail::read(&document)?,
            record: record::read(&document, &vault)?,
            log: log::read(&document)?,
            telemetry: telemetry::read(&document)?,
            server,
            vault,
            store,
        })
    }

    /// Makes the configuration of `strongroom dev`: everything below `dir`, on loopback, with
    /// SoftHSM and SQLite. Creates nothing.
    ///
    /// # Errors
    /// [`ConfigError`] when SoftHSM is not installed or `dir` cannot hold a Unix socket.
    pub fn for_dev(dir: &Path) -> Result<Self, ConfigError> {
        dev::config(dir)
    }
}
