//! `[webhook]`: where notices are posted to.

use std::net::IpAddr;
use std::path::PathBuf;

use url::{Host, Url};

use super::reader::Document;
use super::{ConfigError, SecretSource, secret};

pub(super) const SECTION: &str = "webhook";
pub(super) const KEYS: &[&str] =
    &["url", "key_file", "key_fd", "key_credential", "ca_file", "private_address"];

/// Longest URL.
const MAX_URL_BYTES: usize = 1_024;

/// Where notices are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The receiver; without TLS only where it is a loopback address.
    pub url: Url,
    /// What they are signed with.
    pub key: SecretSource,
    /// The CA of the receiver, PEM, in place of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whether the receiver may have a private address.
    pub private_address: bool,
}

pub(super) fn read(document: &Document<'_>) -> Result<Option<Webhook>, ConfigError> {
    let section = document.section(SECTION);
    let expected = "an address like \"https://hooks.example.org/strongroom\": with TLS unless it is \
                    a loopback address, and without a password in it";
    let url = section.parsed("url", expected, receiver)?;
    let key = secret::read(&section, "key")?;
    let (ca_file, private_address) =
        (section.path("ca_file")?, section.flag("private_address", false)?);
    let Some(url) = url else {
        return match key {
            None => Ok(None),
            Some(_) => Err(section.missing("url", "say where notices are posted to")),
        };
    };
    let key = key.ok_or_else(|| {
        section.missing("key_file", "name the file with the key that notices are signed with")
    })?;
    Ok(Some(Webhook { url, key, ca_file, private_address }))
}

fn receiver(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let plain = text.len() <= MAX_URL_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
    let safe = match url.scheme() {
        "https" => url.has_host(),
        "http" => url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    };
    (bare && plain && safe).then_some(url)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(v4) => IpAddr::from(*v4).is_loopback(),
        Host::Ipv6(v6) => v6.is_loopback(),
        // Whatever a name stands for, it may stand for something else tomorrow.
        Host::Domain(_) => false,
    }
}
