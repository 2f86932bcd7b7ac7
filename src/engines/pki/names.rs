//! Names that a certificate may carry: canonical or refused, never repaired.
//!
//! Knows the grammar of each type; must not know which names are allowed to whom.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Names that one certificate may carry.
pub const MAX_NAMES: usize = 100;

const MAX_DNS_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;
const MAX_URI_BYTES: usize = 2_048;
const MAX_LOCAL_PART_BYTES: usize = 64;

/// One subject alternative name in canonical form.
///
/// As text: `dns:a.example`, `ip:192.0.2.1`, `uri:scheme://host/path`, `email:a@b.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectName {
    /// A host name, lowercase, without a final dot; `*.` may stand in front.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// `scheme://host/path`, without user, port, query, fragment or percent-encoding.
    Uri(String),
    /// An address for mail, lowercase.
    Email(String),
}

impl SubjectName {
    /// Reads a host name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not canonical.
    ///
    /// Source: RFC 1123, section 2.1; RFC 5280, section 4.2.1.6; RFC 9525, section 6.3.
    pub fn dns(text: &str) -> Result<Self> {
        let host = text.strip_prefix("*.").unwrap_or(text);
        let wide_enough = host.len() == text.len() || host.contains('.');
        if is_host(host) && text.len() <= MAX_DNS_BYTES && wide_enough {
            Ok(Self::Dns(text.to_owned()))
        } else {
            Err(Error::invalid(
                "a DNS name has lowercase labels of letters, digits and hyphens joined by dots, \
                 no final dot, and at most one `*.` in front of two labels or more",
            ))
        }
    }

    /// Reads an address from the 4 or 16 bytes of a certificate.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other lengths and for IPv4 inside IPv6, which has two spellings.
    pub fn ip(bytes: &[u8]) -> Result<Self> {
        let refused = || Error::invalid("an IP name has 4 or 16 bytes and no IPv4 inside IPv6");
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            return Ok(Self::Ip(IpAddr::from(v4)));
        }
        let v6 = <[u8; 16]>::try_from(bytes).map_err(|_length| refused())?;
        let address = IpAddr::from(v6);
        if address.to_canonical() == address { Ok(Self::Ip(address)) } else { Err(refused()) }
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not canonical.
    ///
    /// Source: RFC 3986, section 3; SPIFFE ID, section 2.
    pub fn uri(text: &str) -> Result<Self> {
        if split_uri(text).is_some_and(|(_, _, path)| path.is_none_or(is_path)) {
            Ok(Self::Uri(text.to_owned()))
        } else {
            Err(Error::invalid(
                "a URI name is scheme://host/path with lowercase scheme and host and no user, \
                 port, query, fragment, percent-encoding, empty segment or wildcard",
            ))
        }
    }

    /// Reads an address for mail.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not canonical.
    pub fn email(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let local_ok = |local: &str| {
            local.len() <= MAX_LOCAL_PART_BYTES
                && local.bytes().next().is_some_and(plain)
                && local.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-' | b'+'))
                && !local.contains("..")
                && !local.ends_with('.')
        };
        match text.split_once('@') {
            Some((local, domain)) if local_ok(local) && is_host(domain) => {
                Ok(Self::Email(text.to_owned()))
            }
            Some(_) | None => Err(Error::invalid(
                "an email name is lowercase local@domain with letters, digits and . _ + -",
            )),
        }
    }

    /// Shows the name without its type, as a common name would repeat it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Dns(text) | Self::Uri(text) | Self::Email(text) => text.clone(),
            Self::Ip(address) => address.to_string(),
        }
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Dns(_) => "dns",
            Self::Ip(_) => "ip",
            Self::Uri(_) => "uri",
            Self::Email(_) => "email",
        };
        write!(f, "{kind}:{}", self.text())
    }
}

impl FromStr for SubjectName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let untyped = || Error::invalid("a name is dns:, ip:, uri: or email: and its value");
        let (kind, value) = text.split_once(':').ok_or_else(untyped)?;
        match kind {
            "dns" => Self::dns(value),
            "uri" => Self::uri(value),
            "email" => Self::email(value),
            "ip" => {
                let refused = || Error::invalid("an IP name is an address in its shortest form");
                let address: IpAddr = value.parse().map_err(|_malformed| refused())?;
                let canonical = address.to_canonical() == address && address.to_string() == value;
                if canonical { Ok(Self::Ip(address)) } else { Err(refused()) }
            }
            _ => Err(untyped()),
        }
    }
}

/// Tells whether text is a host name in canonical form that cannot be taken for an address.
#[must_use]
pub(super) fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        // `xx--` is reserved for encodings; the only one in use is the A-label (RFC 5891, 4.2.3.1).
        let reserved = label.get(2..4) == Some("--") && !label.starts_with("xn--");
        bytes.len() <= MAX_LABEL_BYTES
            && bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
            && bytes.iter().all(|b| plain(*b) || *b == b'-')
            && !reserved
    };
    let numeric_end =
        text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= MAX_DNS_BYTES && text.split('.').all(is_label) && !numeric_end
}

/// Splits a URI with a canonical scheme and host into scheme, host and path (without its slash).
#[must_use]
pub(super) fn split_uri(text: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = text.split_once("://").filter(|_| text.len() <= MAX_URI_BYTES)?;
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    let scheme_ok = scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && scheme.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')
        });
    (scheme_ok && is_authority(host)).then_some((scheme, host, path))
}

/// Tells whether text may stand as a URI's host: the characters of a SPIFFE trust domain.
#[must_use]
pub(super) fn is_authority(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
        })
}

/// Tells whether text is one canonical segment of a URI's path.
#[must_use]
pub(super) fn is_path_segment(segment: &str) -> bool {
    let allowed = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'=' | b'+' | b',')
    };
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_print_as_they_were_read() {
        for text in [
            "dns:localhost",
            "dns:db-1.example.com",
            "dns:*.example.com",
            "dns:xn--bcher-kva.example",
            "ip:192.0.2.1",
            "ip:2001:db8::1",
            "uri:spiffe://corp.example/pipeline/a",
            "uri:https://host",
            "email:a.b+c@example.com",
        ] {
            assert_eq!(text.parse::<SubjectName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let long_label = format!("dns:{}.example", "a".repeat(64));
        let long_name = format!("dns:{}com", "abcdefg.".repeat(32));
        for text in [
            "localhost",
            "dns:",
            "dns:A.example",
            "dns:a.example.",
            "dns:.a",
            "dns:a..b",
            "dns:a_b.example",
            "dns:-a.example",
            "dns:a-.example",
            "dns:a.example\0.evil.test",
            "dns:a.example\n",
            "dns: a.example",
            "dns:192.0.2.1",
            "dns:*",
            "dns:*.com",
            "dns:*.*.example.com",
            "dns:a.*.example.com",
            "dns:b*.example.com",
            "dns:bücher.example",
            "dns:ab--c.example",
            "ip:192.0.2.01",
            "ip:2001:DB8::1",
            "ip:::ffff:192.0.2.1",
            "ip:192.0.2.1/32",
            "uri:https://",
            "uri:HTTPS://host/a",
            "uri:https://Host/a",
            "uri:https://host:8443/a",
            "uri:https://me@host/a",
            "uri:https://host/a?b",
            "uri:https://host/a#b",
            "uri:https://host/%61",
            "uri:https://host//a",
            "uri:https://host/a/",
            "uri:https://host/../a",
            "uri:https://host/*",
            "uri:https://host/a\0",
            "uri:urn:uuid:1",
            "uri:javascript:alert(1)",
            "email:A@example.com",
            "email:a",
            "email:@example.com",
            "email:a@b@example.com",
            "email:a@",
            "email:a\0@example.com",
            "email:a@*.example.com",
            "other:1",
            &long_label,
            &long_name,
        ] {
            assert!(text.parse::<SubjectName>().is_err(), "{text:?}");
        }
        for bytes in
            [&[1, 2, 3][..], &[0; 5], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4]]
        {
            assert!(SubjectName::ip(bytes).is_err(), "{bytes:?}");
        }
    }
}
