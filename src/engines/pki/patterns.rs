//! What a profile says about names: patterns over hosts, addresses and URIs.
//!
//! Must not know requests.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::names::{SubjectName, is_host, is_path_segment, split_uri};
use crate::error::{Error, Result};

macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(pattern: $name) -> Self {
                pattern.to_string()
            }
        }
    )+};
}

as_text!(DnsPattern, Cidr, UriPattern, EmailDomain);

/// Hosts: `a.example` itself, `*.a.example` one label below it, `**.a.example` any number below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DnsPattern {
    /// The host itself.
    Exact(String),
    /// One label below the suffix.
    OneBelow(String),
    /// One label or more below the suffix.
    Below(String),
}

impl DnsPattern {
    /// Tells whether the pattern covers a canonical name; a leading `*` counts as a label.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let below = |suffix: &str| name.strip_suffix(suffix).and_then(|n| n.strip_suffix('.'));
        match self {
            Self::Exact(host) => name == host,
            Self::OneBelow(suffix) => below(suffix).is_some_and(|label| !label.contains('.')),
            Self::Below(suffix) => below(suffix).is_some(),
        }
    }
}

impl FromStr for DnsPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (make, host): (fn(String) -> Self, _) = if let Some(host) = text.strip_prefix("**.") {
            (Self::Below, host)
        } else if let Some(host) = text.strip_prefix("*.") {
            (Self::OneBelow, host)
        } else {
            (Self::Exact, text)
        };
        if is_host(host) {
            Ok(make(host.to_owned()))
        } else {
            Err(Error::invalid("a DNS pattern is a host, *.host or **.host in canonical form"))
        }
    }
}

impl fmt::Display for DnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::OneBelow(suffix) => write!(f, "*.{suffix}"),
            Self::Below(suffix) => write!(f, "**.{suffix}"),
        }
    }
}

/// A range of addresses, `192.0.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Tells whether an address lies in the range.
    #[must_use]
    pub fn matches(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && self.masked(address) == self.network
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        let mask = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match address {
            IpAddr::V4(v4) => {
                let keep = u32::MAX.checked_shl(mask(32)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & keep).into())
            }
            IpAddr::V6(v6) => {
                let keep = u128::MAX.checked_shl(mask(128)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & keep).into())
            }
        }
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let (network, prefix) = text.split_once('/')?;
            let cidr = Self { network: network.parse().ok()?, prefix: prefix.parse().ok()? };
            let widest = if cidr.network.is_ipv4() { 32 } else { 128 };
            let canonical = cidr.prefix <= widest
                && cidr.masked(cidr.network) == cidr.network
                && cidr.network.to_canonical() == cidr.network
                && cidr.to_string() == text;
            canonical.then_some(cidr)
        };
        parsed().ok_or_else(|| {
            Error::invalid("an IP range is network/prefix in shortest form, host bits zero")
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// URIs: `scheme://host/path`, where a segment `*` stands for any one and a last `**` for one or
/// more; scheme and host are always literal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UriPattern(String);

impl UriPattern {
    /// Tells whether the pattern covers a canonical URI.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        let (Some((scheme, host, pattern)), Some((uri_scheme, uri_host, path))) =
            (split_uri(&self.0), split_uri(uri))
        else {
            return false;
        };
        let mut names = path.into_iter().flat_map(|path| path.split('/'));
        for part in pattern.into_iter().flat_map(|pattern| pattern.split('/')) {
            match (part, names.next()) {
                ("**", Some(_)) => return scheme == uri_scheme && host == uri_host,
                ("*", Some(_)) => {}
                (part, Some(name)) if part == name => {}
                (_, Some(_) | None) => return false,
            }
        }
        names.next().is_none() && scheme == uri_scheme && host == uri_host
    }

    /// Shows scheme and host as a name, to compare with what is reserved.
    #[must_use]
    pub(super) fn origin(&self) -> Option<SubjectName> {
        split_uri(&self.0).map(|(scheme, host, _)| SubjectName::Uri(format!("{scheme}://{host}")))
    }
}

impl FromStr for UriPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts_ok = |path: &str| {
            let last = path.split('/').count();
            path.split('/')
                .zip(1..)
                .all(|(part, i)| part == "*" || part == "**" && i == last || is_path_segment(part))
        };
        if split_uri(text).is_some_and(|(_, _, path)| path.is_none_or(parts_ok)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(
                "a URI pattern is scheme://host/path with literal scheme and host, where `*` \
                 stands for one segment and a last `**` for one or more",
            ))
        }
    }
}

impl fmt::Display for UriPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The domain of addresses for mail, matched exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EmailDomain(String);

impl EmailDomain {
    /// Tells whether a canonical address lies in the domain.
    #[must_use]
    pub fn matches(&self, email: &str) -> bool {
        email.split_once('@').is_some_and(|(_, domain)| domain == self.0)
    }
}

impl FromStr for EmailDomain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if is_host(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid("an email domain is a host in canonical form"))
        }
    }
}

impl fmt::Display for EmailDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_by_whole_labels() {
        for (pattern, name, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.a.example", false),
            ("*.a.example", "b.a.example", true),
            ("*.a.example", "*.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "c.b.a.example", false),
            ("*.a.example", "bada.example", false),
            ("**.a.example", "c.b.a.example", true),
            ("**.a.example", "a.example", false),
            ("**.a.example", "xa.example", false),
            ("**.a.example", "a.example.evil.test", false),
        ] {
            let pattern: DnsPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn addresses_match_their_range_alone() {
        for (range, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::", false),
            ("192.0.2.7/32", "192.0.2.7", true),
            ("192.0.2.7/32", "192.0.2.6", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "0.0.0.0", false),
        ] {
            let range: Cidr = range.parse().unwrap();
            assert_eq!(range.matches(address.parse().unwrap()), expected, "{range} {address}");
        }
    }

    #[test]
    fn uris_match_by_whole_segments() {
        for (pattern, uri, expected) in [
            ("spiffe://d/a", "spiffe://d/a", true),
            ("spiffe://d/a", "spiffe://d/a/b", false),
            ("spiffe://d/a", "spiffe://e/a", false),
            ("spiffe://d/a", "https://d/a", false),
            ("spiffe://d/*/b", "spiffe://d/x/b", true),
            ("spiffe://d/*", "spiffe://d/x/b", false),
            ("spiffe://d/**", "spiffe://d/x/b", true),
            ("spiffe://d/**", "spiffe://d.evil/x", false),
            ("spiffe://d/**", "spiffe://d", false),
            ("spiffe://d", "spiffe://d", true),
            ("spiffe://d", "spiffe://d/x", false),
        ] {
            let pattern: UriPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(uri), expected, "{pattern} {uri}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for text in ["*", "**", "a.*.b", "*a.example", "***.a.example", "A.example", "", "a..b"] {
            assert!(text.parse::<DnsPattern>().is_err(), "{text}");
        }
        for text in ["192.0.2.1/24", "192.0.2.0/33", "192.0.2.0", "::/129", "10.0.0.0/08", "a/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        for text in [
            "*://d/a",
            "spiffe://*/a",
            "spiffe://*.d/a",
            "spiffe://d/**/a",
            "spiffe://d/a*",
            "spiffe://d/",
            "spiffe://d/a?b",
            "d/a",
        ] {
            assert!(text.parse::<UriPattern>().is_err(), "{text}");
        }
        for text in ["*.example", "@a.example", "A.example", ""] {
            assert!(text.parse::<EmailDomain>().is_err(), "{text}");
        }
    }
}
