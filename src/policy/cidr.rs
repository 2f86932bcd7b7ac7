//! Address ranges, canonical or refused: where a grant may be used from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A range of addresses, `address/bits`, with no bit set behind the prefix.
///
/// Source: RFC 4632, section 3.1; RFC 4291, section 2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// Tells whether an address lies in the range; an IPv4 address mapped into IPv6 is IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        mask(address.to_canonical(), self.prefix_bits) == Some(self.network)
    }

    /// Tells whether every address of another range lies in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix_bits <= other.prefix_bits && self.contains(other.network)
    }
}

/// Clears what lies behind the prefix; `None` where the family has fewer bits.
fn mask(address: IpAddr, prefix_bits: u8) -> Option<IpAddr> {
    let bits = u32::from(prefix_bits);
    match address {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            Some(Ipv4Addr::from_bits(v4.to_bits() & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0);
            Some(Ipv6Addr::from_bits(v6.to_bits() & kept).into())
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::invalid(
                "an address range is <address>/<bits> in canonical form, with no bit set behind \
                 the prefix, such as 10.0.0.0/8 or 2001:db8::/32",
            )
        };
        let (address, bits) = text.split_once('/').ok_or_else(malformed)?;
        let network: IpAddr = address.parse().map_err(|_malformed| malformed())?;
        let prefix_bits: u8 = bits.parse().map_err(|_malformed| malformed())?;
        let range = Self { network, prefix_bits };
        let canonical = mask(network, prefix_bits) == Some(network)
            && network.to_canonical() == network
            && range.to_string() == text;
        if canonical { Ok(range) } else { Err(malformed()) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        for (range, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.7/32", "10.0.0.7", true),
            ("10.0.0.7/32", "10.0.0.8", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::/64", "10.0.0.1", false),
        ] {
            let parsed: Cidr = range.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{address} in {range}");
        }
    }

    #[test]
    fn a_range_covers_only_what_lies_wholly_within() {
        for (wide, narrow, covered) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("0.0.0.0/0", "2001:db8::/32", false),
            ("::/0", "10.0.0.0/8", false),
        ] {
            let (wide, narrow): (Cidr, Cidr) = (wide.parse().unwrap(), narrow.parse().unwrap());
            assert_eq!(wide.covers(&narrow), covered, "{wide} over {narrow}");
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "010.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "2001:DB8::/32",
            "2001:db8::/129",
            "2001:db8:0::/32",
            "localhost/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?}");
        }
    }
}
