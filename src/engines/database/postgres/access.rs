//! What somebody who holds a credential needs to connect, in the forms that clients read.

use std::fmt::Write;

use super::connection::{ConnectionDefinition, Tls};
use crate::types::SecretBytes;

/// A credential with its target. `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role to log in as.
    pub username: String,
    /// Its password.
    pub password: SecretBytes,
    /// Whether TLS is on and verified.
    pub tls: Tls,
    /// The CA of the target, where it is no public one.
    pub ca_pem: Option<String>,
}

impl Access {
    /// Joins a connection with a credential made through it.
    #[must_use]
    pub fn new(connection: &ConnectionDefinition, username: &str, password: SecretBytes) -> Self {
        Self {
            host: connection.host.clone(),
            port: connection.port,
            database: connection.database.clone(),
            username: username.to_owned(),
            password,
            tls: connection.tls,
            ca_pem: connection.ca_pem.clone(),
        }
    }

    /// Names the TLS mode as libpq does (`sslmode`).
    #[must_use]
    pub const fn ssl_mode(&self) -> &'static str {
        match self.tls {
            Tls::Verify => "verify-full",
            Tls::Off => "disable",
        }
    }

    /// Names what libpq verifies against: the file that the caller wrote the CA to, or the
    /// system's roots (libpq 16 and later) where the target needs no CA of its own.
    fn ssl_root<'a>(&self, ca_file: Option<&'a str>) -> Option<&'a str> {
        match (self.tls, ca_file, &self.ca_pem) {
            (Tls::Off, _, _) | (Tls::Verify, None, Some(_)) => None,
            (Tls::Verify, Some(file), _) => Some(file),
            (Tls::Verify, None, None) => Some("system"),
        }
    }

    /// Writes a connection URI (libpq, section 34.1.1.2); `ca_file` is where the holder keeps
    /// [`Self::ca_pem`].
    #[must_use]
    pub fn dsn(&self, ca_file: Option<&str>) -> SecretBytes {
        let mut uri = b"postgresql://".to_vec();
        uri.extend(encode(self.username.as_bytes()));
        uri.push(b':');
        uri.extend(encode(self.password.expose()));
        uri.push(b'@');
        if self.host.contains(':') {
            uri.extend(format!("[{}]", self.host).bytes());
        } else {
            uri.extend(encode(self.host.as_bytes()));
        }
        uri.extend(format!(":{}/", self.port).bytes());
        uri.extend(encode(self.database.as_bytes()));
        uri.extend(format!("?sslmode={}", self.ssl_mode()).bytes());
        if let Some(root) = self.ssl_root(ca_file) {
            uri.extend(b"&sslrootcert=");
            uri.extend(encode(root.as_bytes()));
        }
        SecretBytes::new(uri)
    }

    /// Lists the environment that libpq reads (section 34.15); values are not quoted for a shell.
    #[must_use]
    pub fn env(&self, ca_file: Option<&str>) -> Vec<(&'static str, SecretBytes)> {
        let text = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        let mut variables = vec![
            ("PGHOST", text(&self.host)),
            ("PGPORT", text(&self.port.to_string())),
            ("PGDATABASE", text(&self.database)),
            ("PGUSER", text(&self.username)),
            ("PGPASSWORD", self.password.clone()),
            ("PGSSLMODE", text(self.ssl_mode())),
        ];
        if let Some(root) = self.ssl_root(ca_file) {
            variables.push(("PGSSLROOTCERT", text(root)));
        }
        variables
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
fn encode(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().flat_map(|byte| {
        let mut text = String::with_capacity(3);
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            write!(text, "%{byte:02X}").unwrap_or_default();
        }
        text.into_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tls: Tls) -> Access {
        Access {
            host: "db.example.org".into(),
            port: 5_433,
            database: "an/alytics?x".into(),
            username: "sr_a_b_c".into(),
            password: SecretBytes::new(b"p@ss:/w%rd&".to_vec()),
            tls,
            ca_pem: None,
        }
    }

    fn show(secret: &SecretBytes) -> &str {
        std::str::from_utf8(secret.expose()).unwrap()
    }

    #[test]
    fn the_uri_reads_back_to_what_went_in() {
        let dsn = access(Tls::Verify).dsn(Some("/tmp/ca file.pem"));
        assert_eq!(
            show(&dsn),
            "postgresql://sr_a_b_c:p%40ss%3A%2Fw%25rd%26@db.example.org:5433/an%2Falytics%3Fx\
             ?sslmode=verify-full&sslrootcert=%2Ftmp%2Fca%20file.pem"
        );
        let mut here = access(Tls::Off);
        here.host = "::1".into();
        here.database = "d".into();
        assert_eq!(
            show(&here.dsn(None)),
            "postgresql://sr_a_b_c:p%40ss%3A%2Fw%25rd%26@[::1]:5433/d?sslmode=disable"
        );
    }

    #[test]
    fn the_environment_holds_what_libpq_reads_and_debug_no_password() {
        let access = access(Tls::Verify);
        let variables = access.env(None);
        let shown: Vec<_> =
            variables.iter().map(|(name, value)| format!("{name}={}", show(value))).collect();
        assert_eq!(
            shown,
            [
                "PGHOST=db.example.org",
                "PGPORT=5433",
                "PGDATABASE=an/alytics?x",
                "PGUSER=sr_a_b_c",
                "PGPASSWORD=p@ss:/w%rd&",
                "PGSSLMODE=verify-full",
                "PGSSLROOTCERT=system",
            ]
        );
        assert!(!format!("{access:?} {variables:?}").contains("p@ss"));
    }
}
