//! `[vault]`: what this vault is called, for ever.

use super::ConfigError;
use super::reader::Document;
use super::server::is_host;
use crate::types::Segment;

pub(super) const SECTION: &str = "vault";
pub(super) const KEYS: &[&str] = &["trust_domain", "name"];

/// The vault's names. Both are fixed by `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// The SPIFFE trust domain of its identities, `spiffe://<trust domain>/…`.
    pub trust_domain: String,
    /// What people call it; stands in the names of its authorities.
    pub name: Segment,
}

pub(super) fn read(document: &Document<'_>) -> Result<Vault, ConfigError> {
    let section = document.section(SECTION);
    let domain = section.parsed("trust_domain", "a domain like \"vault.example.org\"", |text| {
        // Narrower than SPIFFE-ID, section 2.1: a DNS name that is no IP address.
        let is_address = text.parse::<std::net::IpAddr>().is_ok();
        (is_host(text) && !is_address).then(|| text.to_owned())
    })?;
    let name = section.parsed("name", "one word of a-z, 0-9, dots and dashes", |text| {
        text.parse::<Segment>().ok()
    })?;
    Ok(Vault {
        trust_domain: domain.ok_or_else(|| {
            section.missing("trust_domain", "name a domain you own; it can never change")
        })?,
        name: name
            .ok_or_else(|| section.missing("name", "give the vault a name; it can never change"))?,
    })
}
