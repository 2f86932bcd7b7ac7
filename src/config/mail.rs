//! `[mail]`: the server that notices are mailed by, and who has which address.
//!
//! Addresses stand here and not in the vault: whoever administers the vault, or breaks the glass,
//! must not be able to have the notice of it sent elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use lettre::Address;

use super::reader::{Document, Section};
use super::{ConfigError, SecretSource, secret};
use crate::types::IdentityName;

pub(super) const SECTION: &str = "mail";
pub(super) const KEYS: &[&str] = &[
    "host",
    "port",
    "tls",
    "user",
    "password_file",
    "password_fd",
    "password_credential",
    "ca_file",
    "from",
    "copy_to",
    "domain",
    "people",
    "groups",
];

/// Addresses that get every notice, at most.
const COPIES: usize = 16;
/// Bytes of a host name at most.
const HOST_BYTES: usize = 253;

/// How the connection to the mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// From the first byte on.
    Implicit,
    /// By STARTTLS, without which nothing is said.
    StartTls,
    /// Not at all: to a loopback address alone.
    Off,
}

/// The server that notices are mailed by, and who has which address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: MailTls,
    /// Who the vault logs in as, with which password; nobody where the server wants no login.
    pub login: Option<(String, SecretSource)>,
    /// The CA of the server, PEM, in place of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whom the mail is from.
    pub from: Address,
    /// Who gets every notice.
    pub copy_to: Vec<Address>,
    /// Where everybody else has an address, by their name.
    pub domain: Option<String>,
    /// Addresses of people, by name.
    pub people: BTreeMap<String, Address>,
    /// Addresses of groups, by name; members of others are written to one by one.
    pub groups: BTreeMap<String, Address>,
}

pub(super) fn read(document: &Document<'_>) -> Result<Option<Mail>, ConfigError> {
    let section = document.section(SECTION);
    let tls =
        section.parsed("tls", "\"starttls\", \"implicit\" or \"off\"", |text| match text {
            "starttls" => Some(MailTls::StartTls),
            "implicit" => Some(MailTls::Implicit),
            "off" => Some(MailTls::Off),
            _ => None,
        })?;
    let tls = tls.unwrap_or(MailTls::StartTls);
    let usual = match tls {
        MailTls::StartTls => 587,
        MailTls::Implicit => 465,
        MailTls::Off => 25,
    };
    let port = section.integer("port", 1..=65_535, usual)?;
    let port = u16::try_from(port).map_err(|e| section.fault("port", format!("too large: {e}")))?;
    let host = section.parsed("host", "a host name or an address", |text| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".:-_".contains(&b);
        (!text.is_empty() && text.len() <= HOST_BYTES && text.bytes().all(plain))
            .then(|| text.to_owned())
    })?;
    let Some(host) = host else {
        return match KEYS.iter().find(|key| section.has(key)) {
            None => Ok(None),
            Some(_) => Err(section.missing("host", "name the mail server")),
        };
    };
    let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if tls == MailTls::Off && !loopback {
        return Err(section.fault("tls", "may be off only where the host is a loopback address"));
    }
    let from = section.parsed("from", "an address like \"vault@example.org\"", address)?;
    let from = from.ok_or_else(|| section.missing("from", "say whom the mail is from"))?;
    let copies =
        section.list("copy_to", "mail addresses", COPIES, |text| address(text).is_some())?;
    let copies = copies.ok_or_else(|| {
        section.missing("copy_to", "say who gets every notice, so that none goes to nobody")
    })?;
    Ok(Some(Mail {
        port,
        tls,
        login: login(&section)?,
        ca_file: section.path("ca_file")?,
        from,
        copy_to: copies.iter().filter_map(|text| address(text)).collect(),
        domain: section.parsed("domain", "a domain like \"example.org\"", |text| {
            address(&format!("a@{text}")).map(|_| text.to_owned())
        })?,
        people: addresses(&section, "people")?,
        groups: addresses(&section, "groups")?,
        host,
    }))
}

fn login(section: &Section<'_>) -> Result<Option<(String, SecretSource)>, ConfigError> {
    let user = section.parsed("user", "a name of 1 to 256 visible characters", |text| {
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        (plain && (1..=256).contains(&text.len())).then(|| text.to_owned())
    })?;
    match (user, secret::read(section, "password")?) {
        (Some(user), Some(password)) => Ok(Some((user, password))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(section.missing("password_file", "name the file with the password")),
        (None, Some(_)) => Err(section.missing("user", "say whose password it is")),
    }
}

fn addresses(section: &Section<'_>, key: &str) -> Result<BTreeMap<String, Address>, ConfigError> {
    let expected = "names with their mail addresses";
    let fits =
        |name: &str, text: &str| name.parse::<IdentityName>().is_ok() && address(text).is_some();
    let texts = section.strings(key, expected, fits)?;
    Ok(texts.into_iter().filter_map(|(name, text)| Some((name, address(&text)?))).collect())
}

/// Reads an address: ASCII alone, so that every server takes it.
fn address(text: &str) -> Option<Address> {
    let plain = text.len() <= 254 && text.bytes().all(|b| b.is_ascii_graphic());
    text.parse().ok().filter(|_| plain)
}
