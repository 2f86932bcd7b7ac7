//! How the management account reaches the target.

use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::engines::database::names::NAME_BYTES;
use crate::engines::database::target::{Result, TargetError};
use crate::types::SecretBytes;

/// Milliseconds a statement may run on the target.
pub(super) const STATEMENT_MS: &str = "30000";
/// Milliseconds a statement may wait for a lock on the target.
const LOCK_MS: &str = "10000";
const CA_BYTES: usize = 65_536;
const MOST_CONNECTIONS: u32 = 64;

/// Whether the way to the target is encrypted and its certificate verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Encrypted; chain and host name are verified.
    #[default]
    Verify,
    /// Neither. Only by name, for targets on this machine or behind a tunnel.
    Off,
}

/// A connection without its password, which is kept apart and sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionDefinition {
    /// Host name or IP address of the target.
    pub host: String,
    /// TCP port.
    #[serde(default = "port")]
    pub port: u16,
    /// The database that credentials are for; the others of the cluster are entered at revocation.
    pub database: String,
    /// The management account.
    pub username: String,
    /// Encryption and verification.
    #[serde(default)]
    pub tls: Tls,
    /// Certificates of the CA that signed the target's, in PEM, trusted beside the public roots
    /// that are compiled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Most connections that this node opens at once.
    #[serde(default = "max_connections")]
    pub max_connections: u32,
}

const fn port() -> u16 {
    5_432
}

const fn max_connections() -> u32 {
    10
}

impl ConnectionDefinition {
    /// Checks what can be checked without the target.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] with what to change.
    pub fn validate(&self) -> Result<()> {
        let invalid = |why: &'static str| Err(TargetError::Invalid(why.into()));
        let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if self.host.is_empty() || self.host.len() > 253 || !self.host.chars().all(host) {
            return invalid("host is a host name or an IP address");
        }
        let name = |text: &str| {
            !text.is_empty() && text.len() <= NAME_BYTES && !text.chars().any(char::is_control)
        };
        if self.port == 0 || !name(&self.database) || !name(&self.username) {
            return invalid("port is not 0; database and username have 1 to 63 bytes");
        }
        if !(1..=MOST_CONNECTIONS).contains(&self.max_connections) {
            return invalid("max_connections is 1 to 64");
        }
        match (&self.ca_pem, self.tls) {
            (None, _) => Ok(()),
            (Some(_), Tls::Off) => invalid("ca_pem has no use with tls = off"),
            (Some(pem), Tls::Verify) => check_ca(pem),
        }
    }

    /// Makes what a connection to the definition's database needs.
    pub(super) fn options(&self, password: &SecretBytes) -> Result<PgConnectOptions> {
        self.validate()?;
        let password = std::str::from_utf8(password.expose())
            .ok()
            .filter(|text| !text.is_empty() && !text.contains('\0'))
            .ok_or_else(|| {
                TargetError::Invalid("the password is empty, or no UTF-8 without NUL".into())
            })?;
        Ok(PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.database)
            .username(&self.username)
            .password(password)
            .ssl_mode(match self.tls {
                Tls::Verify => PgSslMode::VerifyFull,
                Tls::Off => PgSslMode::Disable,
            })
            // Set even without a CA, so that no file named by the environment is trusted.
            .ssl_root_cert_from_pem(self.ca_pem.clone().unwrap_or_default().into_bytes())
            .application_name("strongroom")
            .options([
                ("statement_timeout", STATEMENT_MS),
                ("lock_timeout", LOCK_MS),
                ("idle_in_transaction_session_timeout", STATEMENT_MS),
                ("standard_conforming_strings", "on"),
            ])
            // Statements hold verifiers.
            .disable_statement_logging())
    }
}

fn check_ca(pem: &str) -> Result<()> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    let malformed = || TargetError::Invalid("ca_pem holds no certificates in PEM".into());
    let mut roots = rustls::RootCertStore::empty();
    if pem.len() > CA_BYTES {
        return Err(malformed());
    }
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_told_by_name| malformed())?;
        roots.add(certificate).map_err(|_told_by_name| malformed())?;
    }
    if roots.is_empty() { Err(malformed()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ConnectionDefinition, String> {
        let definition: ConnectionDefinition =
            serde_json::from_str(json).map_err(|e| e.to_string())?;
        definition.validate().map_err(|e| e.to_string())?;
        Ok(definition)
    }

    #[test]
    fn tls_is_on_unless_turned_off_by_name() {
        let short = r#"{"host": "db.example.org", "database": "d", "username": "u"}"#;
        let definition = parse(short).unwrap();
        assert_eq!((definition.tls, definition.port), (Tls::Verify, 5_432));
        let password = SecretBytes::new(b"hunter2".to_vec());
        let options = definition.options(&password).unwrap();
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull));
        let off = r#"{"host": "::1", "database": "d", "username": "u", "tls": "off"}"#;
        let options = parse(off).unwrap().options(&password).unwrap();
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Disable));
    }

    #[test]
    fn connections_that_cannot_be_meant_are_refused() {
        for (json, why) in [
            (r#"{"host": "", "database": "d", "username": "u"}"#, "host is"),
            (r#"{"host": "/tmp", "database": "d", "username": "u"}"#, "host is"),
            (r#"{"host": "a b", "database": "d", "username": "u"}"#, "host is"),
            (r#"{"host": "h", "database": "d\u0000", "username": "u"}"#, "1 to 63 bytes"),
            (r#"{"host": "h", "port": 0, "database": "d", "username": "u"}"#, "port is not 0"),
            (
                r#"{"host": "h", "database": "d", "username": "u", "tls": "prefer"}"#,
                "unknown variant",
            ),
            (
                r#"{"host": "h", "database": "d", "username": "u", "ca_pem": "x"}"#,
                "no certificates",
            ),
            (
                r#"{"host": "h", "database": "d", "username": "u", "tls": "off", "ca_pem": "x"}"#,
                "no use",
            ),
            (
                r#"{"host": "h", "database": "d", "username": "u", "password": "p"}"#,
                "unknown field",
            ),
            (r#"{"host": "h", "database": "d", "username": "u", "max_connections": 0}"#, "1 to 64"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        let definition =
            parse(r#"{"host": "h", "database": "d", "username": "u", "tls": "off"}"#).unwrap();
        for bad in [&b""[..], b"a\0b", b"\xff"] {
            assert!(definition.options(&SecretBytes::new(bad.to_vec())).is_err());
        }
    }
}
