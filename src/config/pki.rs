//! `[pki]`: what certificates say about the vault.

use url::Url;

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "pki";
pub(super) const KEYS: &[&str] = &["crl_url"];

/// Longest URL that stands in every certificate.
const MAX_URL_BYTES: usize = 1_024;

/// What certificates say about the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// Where relying parties get the revocation list of the issuing CA; none says nothing.
    pub crl_url: Option<String>,
}

pub(super) fn read(document: &Document<'_>) -> Result<Pki, ConfigError> {
    let expected = "an address like \"http://crl.example.org/crl/issuing.crl\"";
    let crl_url = document.section(SECTION).parsed("crl_url", expected, |text| {
        let url = Url::parse(text).ok()?;
        let bare = url.username().is_empty() && url.password().is_none();
        let plain = text.len() <= MAX_URL_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
        let known = ["http", "https"].contains(&url.scheme()) && url.has_host();
        (known && bare && plain).then(|| text.to_owned())
    })?;
    Ok(Pki { crl_url })
}
