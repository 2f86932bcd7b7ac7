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
        if let Some(root) = ssl_root(self.tls == Tls::Verify, self.ca_pem.is_some(), ca_file) {
            uri.extend(b"&sslrootcert=");
            uri.extend(encode(root.as_bytes()));
        }
        SecretBytes::new(uri)
    }
}

/// Where Debian and most others keep the public authorities. libpq has a word of its own for them
/// (`system`) from 16 on only, and Debian 12 has 15.
const PUBLIC_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Names what libpq verifies a target against (`sslrootcert`): the file that the holder wrote the
/// target's own CA to, or the public authorities of the holder's system.
#[must_use]
pub fn ssl_root(verified: bool, own_ca: bool, ca_file: Option<&str>) -> Option<&str> {
    match (verified, ca_file) {
        (true, Some(file)) => Some(file),
        (true, None) if !own_ca => Some(PUBLIC_CAS),
        (true, None) | (false, _) => None,
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
    fn a_target_of_a_public_authority_names_a_file_that_libpq_15_reads() {
        let dsn = access(Tls::Verify).dsn(None);
        let end = "?sslmode=verify-full&sslrootcert=%2Fetc%2Fssl%2Fcerts%2Fca-certificates.crt";
        assert!(show(&dsn).ends_with(end), "{}", show(&dsn));
        let own = Access { ca_pem: Some("PEM".into()), ..access(Tls::Verify) };
        assert!(show(&own.dsn(None)).ends_with("?sslmode=verify-full"), "its holder adds the file");
        assert!(!format!("{own:?}").contains("p@ss"));
    }
}
